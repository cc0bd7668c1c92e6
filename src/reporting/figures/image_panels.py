"""Figures of images: what attacks did to them, what purifiers made of them, and what they were taken for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.encoded_images import decode_images
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import column_label, number, spread, unmathed
from src.reporting.figures.colours import INK, RIGHT, WRONG

if TYPE_CHECKING:
    from src.evaluation.cell import Cell
    from src.training_record import TrainingRecord

#: Images across: the first of the test set, not chosen by how they look.
SHOWN = 6
#: Defenses down; of more, an even selection.
DEEPEST = 12
#: What a record of a VQ-VAE keeps.
RECONSTRUCTION = {"original", "noisy", "reconstruction"}
#: Inches of a tile.
TILE = 0.8

Title = tuple[str, bool | None]  #: text over an image, and whether the prediction in it is right


@dataclass(frozen=True)
class Strip:
    """A row of images."""

    label: str
    images: np.ndarray  #: (N, C, H, W) in [0, 1]
    titles: Sequence[Title] = ()


def attack_panel(facet: Facet, attack: str, eps: float, title: str) -> Figure | None:
    """Originals, attacked images and what each defense makes of them, under "label → prediction".

    Returns:
        None if no cell at this attack and eps is computed or keeps images.
    """
    strips = _attack_strips(facet, attack, eps)
    return draw_strips(strips, title, "label → prediction; right in blue, wrong in bold orange") if strips else None


def reconstruction_panel(records: Sequence["TrainingRecord"], title: str) -> Figure | None:
    """Originals, and for each training noise the noisy input and its reconstruction.

    Returns:
        None if no record keeps images.
    """
    strips: list[Strip] = []
    origin: Any = None
    for record in spread([record for record in records if set(record.examples) >= RECONSTRUCTION], DEEPEST):
        seen = record.examples
        if seen["original"] != origin:
            origin = seen["original"]
            strips.append(Strip("original", decode_images(origin)))
        noise = "" if record.noise is None else f"noise {number(record.noise)}"
        if record.noise:
            strips.append(Strip(f"{noise}\ninput", decode_images(seen["noisy"])))
        strips.append(Strip(f"{noise}\nreconstruction".strip(), decode_images(seen["reconstruction"])))
    return draw_strips(strips, title, titled=False) if strips else None


def _attack_strips(facet: Facet, attack: str, eps: float) -> list[Strip]:
    columns = [column for column in facet.columns if column not in facet.grid.bare]
    cells = [(c, cell) for c in columns if (cell := facet.cell(attack, eps, c)) and cell.examples]
    bare = _bare_cell(facet, attack, eps)
    first = bare if bare and bare.examples else cells[0][1] if cells else None
    if first is None:
        return []
    shown = first.examples
    strips = [Strip("original", decode_images(shown["original"]), _clean_titles(facet, attack, shown))]
    # Only an attacker who does not know the defense attacks it with what the undefended classifier was shown.
    shared = shown["attacked"] if first is bare or not facet.grid.informed else None
    if eps and shared:
        predictions = shown["predictions"] if first is bare else shown["undefended_predictions"]
        strips.append(Strip("attacked", decode_images(shared), _titles(shown["labels"], predictions)))
    for column, cell in spread(cells, DEEPEST):
        label, seen = column_label(*column), cell.examples
        if eps and seen["attacked"] != shared:
            strips.append(Strip(f"attack on\n{label}", decode_images(seen["attacked"])))
        strips.append(Strip(label, decode_images(seen["purified"]), _titles(seen["labels"], seen["predictions"])))
    return strips


def _bare_cell(facet: Facet, attack: str, eps: float) -> "Cell | None":
    """The cell without a defense."""
    return next((cell for column in facet.grid.bare if (cell := facet.cell(attack, eps, column))), None)


def _clean_titles(facet: Facet, attack: str, shown: dict[str, Any]) -> list[Title]:
    """Labels, with the undefended predictions where the grid has them."""
    clean = _bare_cell(facet, attack, 0)
    if clean and clean.examples.get("labels") == shown["labels"]:
        return _titles(shown["labels"], clean.examples["predictions"])
    return [(str(label), None) for label in shown["labels"]]


def _titles(labels: Sequence[int], predictions: Sequence[int]) -> list[Title]:
    return [(f"{y} → {k}", y == k) for y, k in zip(labels, predictions, strict=False)]


def draw_strips(strips: Sequence[Strip], title: str, note: str = "", titled: bool = True) -> Figure:
    """Rows of images as one mosaic: a single image is drawn, whatever the number of tiles, because axes are slow.

    Args:
        strips: rows of images of one height and width.
        note: said in small under the title.
        titled: whether to leave room for titles over the images.
    """
    height, width = strips[0].images.shape[2:]
    gap = max(1, round(0.12 * width))
    head = round(0.36 * height) if titled else gap
    mosaic = _mosaic(strips, gap, head)
    scale = TILE / width
    down, across = scale * mosaic.shape[0], scale * mosaic.shape[1]
    side = 0.35 + 0.085 * max(len(line) for strip in strips for line in strip.label.split("\n"))
    page_height = 0.54 + 0.2 * bool(note) + down
    page_width = max(side + across + 0.12, 0.4 + 0.085 * max(len(title), 0.8 * len(note)))
    figure = Figure(figsize=(page_width, page_height))
    left = 0.12 / page_width
    figure.text(left, 1 - 0.1 / page_height, unmathed(title), fontsize=10, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.33 / page_height, note, fontsize=8, color="#5a6068", va="top")
    place = (side / page_width, 0.12 / page_height, across / page_width, down / page_height)
    axes = figure.add_axes(place)
    # Small images are enlarged and keep their pixels; large ones are made smaller and must not flicker.
    axes.imshow(mosaic, interpolation="nearest" if width <= 64 else "antialiased", aspect="auto")
    axes.set_axis_off()
    for i, strip in enumerate(strips):
        _write(axes, strip, i * (height + head) + head - 0.5, gap)
    return figure


def _mosaic(strips: Sequence[Strip], gap: int, head: int) -> np.ndarray:
    """All images on white, (H', W', 3), 8-bit: ``gap`` pixels between columns, ``head`` pixels above each row."""
    across = min(SHOWN, max(len(strip.images) for strip in strips))
    height, width = strips[0].images.shape[2:]
    mosaic = np.full((len(strips) * (height + head), across * (width + gap) - gap, 3), 255, np.uint8)
    for i, strip in enumerate(strips):
        for j, image in enumerate(strip.images[:across]):
            top, left = i * (height + head) + head, j * (width + gap)
            mosaic[top : top + height, left : left + width] = _rgb(image)
    return mosaic


def _write(axes: Axes, strip: Strip, top: float, gap: int) -> None:
    """A row's label on its left and titles over its images; ``top`` is the pixel where the images begin."""
    height, width = strip.images.shape[2:]
    axes.text(-gap, top + height / 2, unmathed(strip.label), ha="right", va="center", fontsize=8.5, color=INK)
    for j, (text, right) in enumerate(strip.titles[:SHOWN]):
        colour = INK if right is None else RIGHT if right else WRONG
        axes.text(
            j * (width + gap) + width / 2, top - 0.05 * height, text, ha="center", va="bottom", fontsize=8.5,
            color=colour, weight="bold" if right is False else "normal",
        )  # fmt: skip


def _rgb(image: np.ndarray) -> np.ndarray:
    """One image (C, H, W) in [0, 1] as (H, W, 3) 8-bit; what is not RGB is shown in grey."""
    pixels = image if len(image) == 3 else image.mean(axis=0, keepdims=True).repeat(3, axis=0)
    return (pixels.transpose(1, 2, 0) * 255).round().astype(np.uint8)
