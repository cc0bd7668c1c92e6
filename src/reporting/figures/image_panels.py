"""Figures of images: what attacks did to them, what purifiers made of them, and what they were taken for."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from src.encoded_images import decode_images
from src.evaluation.spec import number
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import column_label, spread
from src.reporting.figures.charts import Chart, Row
from src.reporting.figures.colours import INK, RIGHT, WRONG

if TYPE_CHECKING:
    from src.evaluation.cell import Cell
    from src.training_record import TrainingRecord

#: Images across: the first of the test set, not chosen by how they look.
SHOWN = 6
#: Defenses down; of more, an even selection.
DEEPEST = 12
#: What a record of a VQ-VAE keeps.
RECONSTRUCTION = ("original", "noisy", "reconstruction")
#: Width of an image, what is left between two, and how many times as many pixels a PNG has.
TILE, GAP, SCALE = 48, 6, 2

Title = tuple[str, bool | None]  #: text over an image, and whether the prediction in it is right


@dataclass(frozen=True)
class Strip:
    """A row of images."""

    label: str
    images: np.ndarray  #: (N, C, H, W) in [0, 1]
    titles: Sequence[Title] = ()


def attack_panel(facet: Facet, attack: str, eps: float) -> Chart | None:
    """Originals, attacked images and what each defense makes of them, under "label → prediction".

    Returns:
        None if no cell at this attack and eps is computed or keeps images.
    """
    strips = _attack_strips(facet, attack, eps)
    return draw_strips(strips, "label → prediction; right in blue, wrong in bold orange") if strips else None


def reconstruction_panel(records: Sequence["TrainingRecord"]) -> Chart | None:
    """Originals, and for each training noise the noisy input and its reconstruction.

    Returns:
        None if no record keeps images.
    """
    strips: list[Strip] = []
    origin: Any = None
    for record in spread([record for record in records if is_pictured(record)], DEEPEST):
        examples = record.examples
        if examples["original"] != origin:
            origin = examples["original"]
            strips.append(Strip("original", decode_images(origin)))
        noise = "" if record.noise is None else f"noise {number(record.noise)}"
        if record.noise:
            strips.append(Strip(f"{noise}\ninput", decode_images(examples["noisy"])))
        strips.append(Strip(f"{noise}\nreconstruction".strip(), decode_images(examples["reconstruction"])))
    return draw_strips(strips) if strips else None


def is_pictured(record: "TrainingRecord") -> bool:
    """Whether a record keeps reconstructions."""
    return record.examples.keys() >= set(RECONSTRUCTION)


def _attack_strips(facet: Facet, attack: str, eps: float) -> list[Strip]:
    columns = [column for column in facet.columns if column not in facet.grid.bare]
    cells = [(c, cell) for c in columns if (cell := facet.cell(attack, eps, c)) and cell.examples]
    bare = _bare_cell(facet, attack, eps)
    first = bare if bare and bare.examples else cells[0][1] if cells else None
    if first is None:
        return []
    kept = first.examples
    strips = [Strip("original", decode_images(kept["original"]), _clean_titles(facet, attack, kept["labels"]))]
    # An attacker who does not know the defense shows it the same images as the undefended classifier.
    shared = kept["attacked"] if first is bare or not facet.grid.informed else None
    if eps and shared:
        predictions = "predictions" if first is bare else "undefended_predictions"
        strips.append(Strip("attacked", decode_images(shared), _titles(kept, predictions)))
    for column, cell in spread(cells, DEEPEST):
        label, examples = column_label(*column), cell.examples
        if eps and examples["attacked"] != shared:
            strips.append(Strip(f"attack on\n{label}", decode_images(examples["attacked"])))
        strips.append(Strip(label, decode_images(examples["purified"]), _titles(examples)))
    return strips


def _bare_cell(facet: Facet, attack: str, eps: float) -> "Cell | None":
    """The cell without a defense."""
    return next((cell for column in facet.grid.bare if (cell := facet.cell(attack, eps, column))), None)


def _clean_titles(facet: Facet, attack: str, labels: Sequence[int]) -> list[Title]:
    """Labels, with the undefended predictions where the grid has them."""
    clean = _bare_cell(facet, attack, 0)
    if clean and clean.examples.get("labels") == labels:
        return _titles(clean.examples)
    return [(str(label), None) for label in labels]


def _titles(examples: dict[str, Any], predictions: str = "predictions") -> list[Title]:
    return [(f"{y} → {k}", y == k) for y, k in zip(examples["labels"], examples[predictions], strict=True)]


def draw_strips(strips: Sequence[Strip], note: str = "") -> Chart:
    """Rows of images as one mosaic, and words beside and above them.

    Args:
        strips: rows of images of one height and width.
        note: said in small under the title.
    """
    height, width = strips[0].images.shape[2:]
    tile_height = round(TILE * height / width)
    head = 18 if any(strip.titles for strip in strips) else GAP
    mosaic = _mosaic(strips, tile_height, head)
    size = {"width": mosaic.width // SCALE, "height": mosaic.height // SCALE}
    png = io.BytesIO()
    mosaic.save(png, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    image = {"type": "image", "url": url, "align": "left", "baseline": "top"} | size
    origin = {"x": {"value": 0}, "y": {"value": 0}}
    word_rows = [
        row for i, strip in enumerate(strips) for row in _words(strip, i * (tile_height + head) + head, tile_height)
    ]
    expressions = {name: {"expr": f"datum.{name}"} for name in ("align", "baseline", "fontWeight", "fill")}
    position = {name: {"field": name, "type": "quantitative", "scale": None, "axis": None} for name in "xy"}
    text_mark = {"type": "text", "fontSize": 8, "lineHeight": 10} | expressions
    return size | {
        "title": {"subtitle": note, "fontSize": 10, "subtitleFontSize": 8, "offset": 6},
        "layer": [
            {"data": {"values": [{}]}, "mark": image, "encoding": origin},
            {"data": {"values": word_rows}, "mark": text_mark, "encoding": position | {"text": {"field": "text"}}},
        ],
    }


def _mosaic(strips: Sequence[Strip], tile_height: int, head: int) -> Image.Image:
    """All images on white, ``head`` above each row, in units of a chart. Small images are enlarged and keep their
    pixels; large ones are made smaller and must not flicker."""
    size, across, down = (SCALE * TILE, SCALE * tile_height), SCALE * (TILE + GAP), SCALE * (tile_height + head)
    count = min(SHOWN, max(len(strip.images) for strip in strips))
    mosaic = Image.new("RGB", (count * across - SCALE * GAP, len(strips) * down), "white")
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip.images[:count]):
            method = Image.Resampling.BOX if max(image.shape) > SCALE * TILE else Image.Resampling.NEAREST
            picture = Image.fromarray(_rgb(image)).resize(size, method)
            mosaic.paste(picture, (j * across, i * down + SCALE * head))
    return mosaic


def _words(strip: Strip, top: int, height: int) -> Iterator[Row]:
    """A row's label on its left and titles over its images; ``top`` is where the images begin."""
    style = {"align": "right", "baseline": "middle", "fontWeight": "normal", "fill": INK}
    yield {"text": strip.label.split("\n"), "x": -GAP, "y": top + height / 2 - 5 * strip.label.count("\n")} | style
    for j, (text, right) in enumerate(strip.titles[:SHOWN]):
        colour = INK if right is None else RIGHT if right else WRONG
        title_style = {"align": "center", "baseline": "bottom", "fontWeight": "bold" if right is False else "normal"}
        yield {"text": text, "x": j * (TILE + GAP) + TILE / 2, "y": top - 2, "fill": colour} | title_style


def _rgb(image: np.ndarray) -> np.ndarray:
    """One image (C, H, W) in [0, 1] as (H, W, 3) 8-bit; what is not RGB is shown in grey."""
    pixels = image if len(image) == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return (pixels.transpose(1, 2, 0) * 255).round().astype(np.uint8)
