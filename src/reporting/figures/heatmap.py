"""A heat map of all accuracies: attack and eps down, defense across."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from src.evaluation.cell import Cell
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import MISSING, column_label, number, percent, spread, unmathed
from src.reporting.figures.colours import HEAT, INK, heat

#: Columns above which numbers would not be legible, and a colour key stands for them.
WRITTEN_OUT = 16
#: Columns above which the map would be wider than a page.
WIDEST = 40
DEEPEST = 60


def heat_map(facet: Facet, title: str) -> Figure:
    """Accuracy of every attack × eps (rows) and defense (columns); eps 0 is one row, all attacks share it."""
    rows, columns = spread(_rows(facet), DEEPEST), spread(facet.columns, WIDEST)
    cells = [[facet.cell(attack, eps, column) for column in columns] for attack, eps in rows]
    values = np.array([[cell.accuracy if cell else np.nan for cell in line] for line in cells])
    written = len(columns) <= WRITTEN_OUT
    wide = 0.78 if written else 0.24
    labels = [unmathed(column_label(*column)) for column in columns]
    names = ["no attack" if eps == 0 else f"{unmathed(attack)}  {number(eps)}" for attack, eps in rows]
    left, bottom = 0.35 + 0.075 * max(map(len, names)), 0.22 + 0.058 * max(map(len, labels))
    width, height = max(left + wide * len(columns) + 0.3, 5.0), bottom + 0.36 * len(rows) + 0.5
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, wide * len(columns) / width, 0.36 * len(rows) / height))
    shades = LinearSegmentedColormap.from_list("heat", HEAT)
    image = axes.imshow(values, cmap=shades, vmin=0, vmax=1, aspect="auto")
    figure.text(0.1 / width, 1 - 0.12 / height, unmathed(title), fontsize=11, weight="bold", color=INK, va="top")
    _ticks(axes, labels, names)
    _separate(axes, rows)
    if written:
        _write_out(axes, cells)
    else:
        key = figure.add_axes((1 - 2.3 / width, 1 - 0.3 / height, 1.9 / width, 0.12 / height))
        figure.colorbar(image, cax=key, orientation="horizontal", format=PercentFormatter(1), ticks=(0, 0.5, 1))
        key.tick_params(labelsize=7.5, length=0)
    return figure


def _write_out(axes: Axes, cells: list[list[Cell | None]]) -> None:
    """The number on each field."""
    for i, line in enumerate(cells):
        for j, cell in enumerate(line):
            text, ink = (percent(cell.accuracy), heat(cell.accuracy)[1]) if cell else (MISSING, "#8a9099")
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color=ink)


def _rows(facet: Facet) -> list[tuple[str, float]]:
    """(attack, eps), eps 0 once and first."""
    pairs = [(attack, eps) for attack in facet.attacks for eps in facet.budgets(attack)]
    clean = [pair for pair in pairs if pair[1] == 0][:1]
    return clean + [pair for pair in pairs if pair[1] != 0]


def _ticks(axes: Axes, labels: list[str], names: list[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _separate(axes: Axes, rows: list[tuple[str, float]]) -> None:
    """A white line wherever another attack begins."""
    groups = [None if eps == 0 else attack for attack, eps in rows]
    for i in range(1, len(rows)):
        if groups[i] != groups[i - 1]:
            axes.axhline(i - 0.5, color="white", lw=3)
