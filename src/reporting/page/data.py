"""What the page's charts, switches and image browser show, as JSON.

Numbers come with the text that the tables have for them: the page formats none a second time.
"""

from collections.abc import Iterator, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from src.evaluation.cell import Cell
from src.evaluation.grid import Grid
from src.reporting.analysis.certified import Certificates
from src.reporting.analysis.facets import Column, Facet
from src.reporting.analysis.labels import column_label, number
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.replicates import Replicates
from src.reporting.analysis.tradeoff import TradeOff, TradeOffs
from src.reporting.document.sections import GridSection, Section
from src.reporting.document.tables import rate_text
from src.reporting.document.words import floor_steps
from src.reporting.figures.colours import FIXED, column_styles, heat, on_dark, shades
from src.reporting.page.pixels import Pixels

if TYPE_CHECKING:
    from src.training_record import TrainingRecord

#: matplotlib's markers by the names that Vega has for them, or as paths.
SHAPES = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"},
    **{"P": "cross", "X": "triangle-left", "p": "triangle-right"},
    "x": "M-.8,-1L0,-.2L.8,-1L1,-.8L.2,0L1,.8L.8,1L0,.2L-.8,1L-1,.8L-.2,0L-1,-.8Z",
}
#: Points of a loss curve that are shown; single batches' losses are averaged to as many.
LOSSES = 150
#: Columns that are switched on at first.
VISIBLE = 12


def page_data(
    grid: Grid,
    parts: Sequence[GridSection],
    certified: Sequence[Section[Certificates]],
    records: "Sequence[TrainingRecord]",
    pixels: Pixels,
) -> dict[str, Any]:
    """Everything the page's script needs, in plain types; images are added to ``pixels`` and referred to by number."""
    columns = grid.columns()
    records = sorted(records, key=lambda each: (each.model, each.data, each.seed, each.noise or 0.0))
    numbered = {column: i for i, column in enumerate(columns)}
    return {
        "columns": _columns(columns, grid.bare),
        "visible": VISIBLE,
        "attack": _headlined(parts),  # shown first
        "heat": [heat(i / 100) for i in range(101)],
        "parts": [_part(part, numbered, pixels) | {"chapter": _single(part, parts)} for part in parts],
        "certified": [_certified(section.subject) for section in certified],
        "training": {"losses": list(_losses(records)), "reconstructions": list(_reconstructions(records, pixels))},
        "stacks": pixels.shapes(),
    }


def _columns(columns: list[Column], bare: list[Column]) -> list[dict[str, Any]]:
    styles = column_styles(columns, bare)
    return [
        {
            "label": column_label(*column),
            "light": style.colour,
            "dark": on_dark(style.colour),
            "dash": "dotted" if style.dashed else "solid",
            "shape": SHAPES[style.marker],
        }
        for column, style in styles.items()
    ]


def _headlined(parts: Sequence[GridSection]) -> str | None:
    """The attack that the first sentence is about; None where there is none."""
    first = next((part.trade_offs for part in parts if part.trade_offs), None)
    return first.strongest if first else None


def _part(part: GridSection, numbered: dict[Column, int], pixels: Pixels) -> dict[str, Any]:
    return {
        "title": part.title,
        "place": part.subject.place,
        "several": len(part.lines) > 1,
        "note": part.note,
        "points": [point for line in part.lines for point in _points(line, numbered)],
        "cells": [cell for facet in part.facets for cell in _cells(facet, numbered, pixels)],
        "tradeoff": _trade_off(part.trade_offs, numbered) if part.trade_offs else None,
    }


def _single(part: GridSection, parts: Sequence[GridSection]) -> int:
    """The section of one facet that stands for a part: of several threats the last, whose attacker knows most; of
    several seeds the first."""
    facet = part.facets[-1]
    return next(i for i, other in enumerate(parts) if other.trade_offs and other.facets[0] is facet)


def _points(line: Facet | Replicates, numbered: dict[Column, int]) -> Iterator[dict[str, Any]]:
    """Accuracy over eps."""
    for attack in line.attacks:
        for eps in line.budgets(attack):
            for column in line.columns:
                if rate := line.rate(attack, eps, column):
                    yield {"attack": attack, "eps": eps, "column": numbered[column], "threat": line.threat} | _bar(rate)


def _bar(rate: Rate) -> dict[str, Any]:
    """An accuracy with the ends of its error bar, and its text."""
    low, high = (rate.fraction if isnan(end) else end for end in (rate.low, rate.high))
    return {"accuracy": rate.fraction, "low": low, "high": high, "text": rate_text(rate)}


def _cells(facet: Facet, numbered: dict[Column, int], pixels: Pixels) -> Iterator[dict[str, Any]]:
    """What the cells hold besides their accuracy."""
    for row in facet.grid:
        if row.cell and (row.cell.examples or row.cell.per_class):
            at = row.coordinates
            here = {"attack": at.attack, "eps": at.eps, "column": numbered[at.defense, at.noise], "threat": at.threat}
            yield here | {"classes": row.cell.per_class, "shown": _shown(row.cell, pixels)}


def _shown(cell: Cell, pixels: Pixels) -> dict[str, Any] | None:
    """The cell's example images and what they were taken for."""
    stages = ("original", "attacked", "purified")
    if not {*stages, "labels", "predictions"} <= set(cell.examples):
        return None
    told = {name: cell.examples[name] for name in ("labels", "predictions", "confidences") if name in cell.examples}
    return {name: pixels.add(cell.examples[name]) for name in stages} | told


def _trade_off(found: TradeOffs, numbered: dict[Column, int]) -> dict[str, Any] | None:
    """Clean against attacked accuracy, and what to take for which floor on clean accuracy."""
    items = [_paid_and_kept(item, numbered) for item in found.items if item.clean and item.attacked]
    if not items or found.eps is None:
        return None
    steps = [{"floor": floor, "words": words} for floor, words in floor_steps(found)]
    return {"eps": number(found.eps), "items": items, "steps": steps}


def _paid_and_kept(item: TradeOff, numbered: dict[Column, int]) -> dict[str, Any]:
    assert item.clean and item.attacked
    clean, attacked = _bar(item.clean), _bar(item.attacked)
    return {
        "column": numbered[item.defense, item.noise],
        **{f"clean_{name}": value for name, value in clean.items()},
        **{f"attacked_{name}": value for name, value in attacked.items()},
    }


def _certified(part: Certificates) -> dict[str, Any]:
    """The curves of one data set; as in a step function, an accuracy holds back to the radius before it."""
    tones = shades([each.certification.sigma for each in part.sets])
    curves = []
    for each in part.sets:
        colour, bare = tones[each.certification.sigma], each.certification.denoiser is None
        points = [[radius, rate.fraction, rate.low, rate.high] for radius, rate in each.curve()]
        curves.append(_curve(each.label, colour, "dashed" if bare else "solid", points))
    for theirs in part.published:
        colour = tones[theirs.sigma]
        points = [[radius, share / 100, share / 100, share / 100] for radius, share in theirs.percents.items() if share]
        curves.append(_curve(theirs.label, colour, "dotted", points))
    return {"curves": curves}


def _curve(label: str, colour: str, dash: str, points: list[list[float]]) -> dict[str, Any]:
    """A line through (radius, accuracy, low, high); dotted for points alone."""
    return {"label": label, "light": colour, "dark": on_dark(colour), "dash": dash, "points": points}


def _losses(records: "Sequence[TrainingRecord]") -> Iterator[dict[str, Any]]:
    """A training run's losses, averaged over equal stretches of steps."""
    tones = shades([record.noise for record in records if record.noise is not None])
    for i, record in enumerate(records):
        colour = FIXED[i % len(FIXED)] if record.noise is None else tones[record.noise]
        stretch = -(-len(record.losses) // LOSSES) or 1
        averaged = []
        for start in range(0, len(record.losses), stretch):
            piece = record.losses[start : start + stretch]
            averaged.append([piece[-1][0], sum(loss for _, loss in piece) / len(piece)])
        if averaged:
            tone = {"light": colour, "dark": on_dark(colour)}
            yield {"model": record.model, "run": run_label(record), "losses": averaged} | tone


def run_label(record: "TrainingRecord") -> str:
    """``vqvae 0.5``; the data set and a seed other than 0 are named."""
    seed = f"seed {record.seed}" if record.seed else ""
    return " · ".join(filter(None, [column_label(record.model, record.noise), record.data, seed]))


def _reconstructions(records: "Sequence[TrainingRecord]", pixels: Pixels) -> Iterator[dict[str, Any]]:
    """What a purifier makes of noisy images."""
    for record in records:
        if {"original", "noisy", "reconstruction"} <= set(record.examples):
            stacks = [pixels.add(record.examples[name]) for name in ("original", "noisy", "reconstruction")]
            yield {"run": run_label(record), "stacks": stacks}
