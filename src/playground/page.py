"""The playground as a page of Gradio's. The only module that knows Gradio; import it where it is needed."""

import html
import logging
from typing import Any

import fastapi
import gradio as gr
import numpy as np
import torch
from torch import Tensor

from src.errors import UserError, in_a_line
from src.playground.choices import Choice, Playground
from src.playground.drawing import like_mnist
from src.playground.rendering import stylesheet, thumbnails_html, to_html

log = logging.getLogger(__name__)

PICKED, DRAWN = "picked", "drawn"

#: What a drawing is meant as if its maker does not say.
UNSAID = "what the classifier takes it for"

#: Pixels of the canvas' side and of the pen's radius: a stroke is as thick for its digit as those of MNIST are.
CANVAS, PEN = 280, 11

#: Budgets that the slider reaches; beyond it an image may become grey all over.
LARGEST_EPS, EPS_STEP = 0.5, 0.005

PAGE_STYLE = """
.gradio-container { max-width: 80rem !important; margin: 0 auto !important; }
.gradio-container h1 { font-size: clamp(1.2rem, 1rem + 1.5vw, 1.7rem) !important; }
.left-out { font-size: .85rem; }
"""

#: Turns a click on a thumbnail, or Enter on it, into an event with its number.
TELL_WHICH = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-index]");
  if (button) trigger("select", { index: Number(button.dataset.index) });
});
"""

#: Takes up the pen as soon as the canvas is there; Gradio would first have it chosen among the tools.
TAKE_PEN = """
() => {
  let left = 50;
  const take = () => {
    const pen = document.querySelector('#canvas [aria-label="Brush"], #canvas button.quite-round');
    if (pen) pen.click();
    else if (left--) setTimeout(take, 100);
  };
  if (!window.penIsTaken) take();
  window.penIsTaken = true;
}
"""


def application(playground: Playground) -> fastapi.FastAPI:
    """The page as a web application that sends nothing to anybody else and keeps nothing."""
    return gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page(playground),
        path="/",
        theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        css=PAGE_STYLE + stylesheet(),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size="1mb",
    )


def page(playground: Playground) -> gr.Blocks:
    """Controls on the left, what they come to on the right; it follows every change."""
    first, follow = playground.first, _follow(playground)
    with gr.Blocks(analytics_enabled=False, title="Playground · defense-vqvae") as blocks:
        gr.Markdown("# Attack an image, purify it, see what the classifier makes of it")
        source, drawing = gr.State(PICKED), gr.State(None)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                index, meant = _image_controls(playground, source, drawing)
                attack = gr.Dropdown(list(playground.attacks), value=first.attack, label="Attack")
                threat = gr.Radio(list(playground.threats), value=first.threat, label="Threat: what the attacker knows")
                largest = max(LARGEST_EPS, first.eps)
                eps = gr.Slider(
                    0, largest, value=first.eps, step=EPS_STEP, label="eps: how far a pixel may move (0: no attack)"
                )
                defense = gr.Radio(list(playground.defenses), value=first.defense, label="Defense")
            with gr.Column(scale=6, min_width=300):
                # The first result is part of the page: an event on opening the page is now and then lost
                first_result = follow(PICKED, 0, None, -1, first.attack, first.eps, first.defense, first.threat)
                result = gr.HTML(first_result, elem_id="shown")
        if playground.left_out:
            _left_out(playground)
        inputs: list[Any] = [source, index, drawing, meant, attack, eps, defense, threat]
        gr.on(
            [control.change for control in inputs], follow, inputs, result,
            trigger_mode="always_last", show_progress="minimal", api_visibility="private",
        )  # fmt: skip
    return blocks


def _image_controls(playground: Playground, source: gr.State, drawing: gr.State) -> tuple[gr.Number, gr.Dropdown]:
    """Two ways to an image: pick one or draw one. Returns the controls for the picked number and the drawn class."""
    test = playground.test
    count = min(playground.config.thumbnails, len(test.labels))
    with gr.Tabs():
        with gr.Tab("Pick") as pick:
            buttons = gr.HTML(thumbnails_html(test.images[:count], test.labels[:count]), js_on_load=TELL_WHICH)
            last = len(test.labels) - 1
            index = gr.Number(0, label=f"Number of the test image, 0 to {last}", step=1, precision=0)
        with gr.Tab("Draw") as draw:
            sketch = gr.Sketchpad(
                label="Drawing", type="numpy", image_mode="L", canvas_size=(CANVAS, CANVAS), fixed_canvas=True,
                layers=False, transforms=(), buttons=[], elem_id="canvas",
                brush=gr.Brush(default_size=PEN, colors=["#000000"], color_mode="fixed"),
            )  # fmt: skip
            classes = [(str(k), k) for k in range(test.num_classes)]
            meant = gr.Dropdown([(UNSAID, -1), *classes], value=-1, label="It is meant as")
    shape = tuple(test.images.shape[1:])
    # Not "once", the default, which drops events until the last one is answered
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "multiple"}
    buttons.select(_selected, None, index, queue=False, **private)
    sketch.change(lambda value: _drawn(value, shape), sketch, drawing, **private | {"trigger_mode": "always_last"})
    pick.select(lambda: PICKED, None, source, **private)
    draw.select(lambda: DRAWN, None, source, **private)
    draw.select(None, js=TAKE_PEN)
    return index, meant


def _selected(event: gr.EventData) -> int:
    """The number of the test image whose thumbnail was chosen."""
    return int(event.index)


def _drawn(value: dict[str, Any] | None, shape: tuple[int, ...]) -> Tensor | None:
    """A drawing, black on white, as an image of the data's; None of an empty canvas."""
    composite = None if value is None else value["composite"]
    ink = None if composite is None else 255 - np.asarray(composite, dtype=np.float32)
    return None if ink is None or not ink.any() else like_mnist(torch.from_numpy(ink), shape)


def _follow(playground: Playground) -> Any:
    """What is to be shown for the values of the controls."""

    def follow(
        source: str, index: float | None, drawing: Tensor | None, meant: int,
        attack: str, eps: float, defense: str, threat: str,
    ) -> str:  # fmt: skip
        label: int | None
        if source == DRAWN:
            image, label = drawing, None if meant < 0 else meant
        elif index is not None and 0 <= index < len(playground.test.labels):
            image, label = playground.test.images[int(index)], int(playground.test.labels[int(index)])
        else:
            return _said(f"There is no test image of this number; the last is {len(playground.test.labels) - 1}.")
        if image is None:
            return _said("Draw something on the canvas: it is scaled and centred as the digits of MNIST are.")
        try:
            demonstration = playground.show(image, label, Choice(attack, eps, defense, threat))
        except UserError as error:
            return _said(f"{error}")
        except Exception as error:
            log.exception("%s at eps %s on %s (%s) failed", attack, eps, defense, threat)
            return _said(f"This failed: {in_a_line(error)}")
        return to_html(demonstration, defense, threat, supposed=label is None)

    return follow


def _said(text: str) -> str:
    return f'<p role="alert">{html.escape(text)}</p>'


def _left_out(playground: Playground) -> None:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in playground.left_out)
    with gr.Accordion(f"Left out ({len(playground.left_out)})", open=False):
        gr.HTML(f'<ul class="left-out">{items}</ul>')
