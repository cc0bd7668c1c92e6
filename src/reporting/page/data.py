"""What the page's charts, switches and image browser show, as JSON.

Numbers come with the text that the tables have for them: the page formats none a second time.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from src.evaluation.cell import Cell
from src.evaluation.grid import Grid
from src.evaluation.spec import Column
from src.reporting.analysis.certified import Certificates
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import column_label
from src.reporting.analysis.tradeoff import TradeOffs
from src.reporting.document.sections import GridSection, Section
from src.reporting.document.words import floor_steps
from src.reporting.figures.charts import (
    accuracy_chart,
    accuracy_rows,
    certified_chart,
    certified_styles,
    look,
    run_label,
    tradeoff_chart,
    tradeoff_rows,
    training_chart,
    training_styles,
)
from src.reporting.figures.colours import CROSS, SOLID, Style, column_styles, heat, on_dark
from src.reporting.figures.image_panels import RECONSTRUCTION, is_pictured
from src.reporting.page.pixels import Pixels

if TYPE_CHECKING:
    from src.training_record import TrainingRecord

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
    records = sorted(records, key=lambda record: (record.model, record.data, record.seed, record.noise or 0.0))
    styles, run_styles = column_styles(columns, grid.bare), training_styles(records)
    certified_line_styles = [certified_styles(section.subject) for section in certified]
    families = [styles.values(), run_styles.values(), *(line_styles.values() for line_styles in certified_line_styles)]
    return {
        "columns": [_line(column_label(*column), style) for column, style in styles.items()],
        "visible": VISIBLE,
        "attack": _headlined(parts),  # shown first
        "heat": [heat(i / 100) for i in range(101)],
        "look": look("var(--ink)", "var(--soft)", "var(--line)"),
        "dark": {style.colour: on_dark(style.colour) for family in families for style in family},
        "parts": [_part(part, columns, grid.bare, pixels) | {"chapter": _single(part, parts)} for part in parts],
        "certified": [
            {"chart": certified_chart(section.subject), "lines": list(map(_line, line_styles, line_styles.values()))}
            for section, line_styles in zip(certified, certified_line_styles, strict=True)
        ],
        "training": {
            "chart": training_chart(records) if run_styles else None,
            "lines": list(map(_line, run_styles, run_styles.values())),
            "reconstructions": list(_reconstructions(records, pixels)),
        },
        "stacks": pixels.shapes(),
    }


def _line(label: str, style: Style) -> dict[str, str]:
    """What a legend shows of a line; crosses without one are dotted."""
    dash = "dashed" if style.dash != SOLID else "dotted" if style.shape == CROSS else "solid"
    return {"label": label, "colour": style.colour, "dash": dash}


def _headlined(parts: Sequence[GridSection]) -> str | None:
    """The attack that the first sentence is about; None where there is none."""
    first = next((part.trade_offs for part in parts if part.trade_offs), None)
    return first.strongest if first else None


def _part(part: GridSection, columns: list[Column], bare: list[Column], pixels: Pixels) -> dict[str, Any]:
    threats = list(dict.fromkeys(line.threat for line in part.lines))
    return {
        "title": part.title,
        "place": part.subject.place,
        "several": len(part.lines) > 1,
        "note": part.note,
        "chart": accuracy_chart(columns, bare, threats, named=True),
        "points": [row for line in part.lines for row in accuracy_rows(line, columns, line.attacks)],
        "cells": [cell for facet in part.facets for cell in _cells(facet, columns, pixels)],
        "tradeoff": _trade_off(part.trade_offs, columns, bare) if part.trade_offs else None,
    }


def _single(part: GridSection, parts: Sequence[GridSection]) -> int:
    """The number of the one-facet section that stands for a part: of several threats the last, whose attacker knows
    most; of several seeds the first."""
    facet = part.facets[-1]
    return next(i for i, other in enumerate(parts) if other.trade_offs and other.facets[0] is facet)


def _cells(facet: Facet, columns: list[Column], pixels: Pixels) -> Iterator[dict[str, Any]]:
    """What the cells hold besides their accuracy."""
    for row in facet.grid:
        if row.cell and (row.cell.examples or row.cell.per_class):
            place = row.coordinates
            position = {"attack": place.attack, "eps": place.eps, "column": columns.index(place.column)}
            yield position | {"threat": place.threat, "classes": row.cell.per_class, "shown": _shown(row.cell, pixels)}


def _shown(cell: Cell, pixels: Pixels) -> dict[str, Any] | None:
    """The cell's example images and what they were taken for."""
    if not cell.examples:
        return None
    stacks = {name: pixels.add(cell.examples[name]) for name in ("original", "attacked", "purified")}
    return stacks | {name: cell.examples[name] for name in ("labels", "predictions", "confidences")}


def _trade_off(tradeoffs: TradeOffs, columns: list[Column], bare: list[Column]) -> dict[str, Any] | None:
    """Clean against attacked accuracy, and what to take for which floor on clean accuracy."""
    items = list(tradeoff_rows(tradeoffs, columns))
    if not items or tradeoffs.eps is None:
        return None
    steps = [{"floor": floor, "words": words} for floor, words in floor_steps(tradeoffs)]
    return {"chart": tradeoff_chart(columns, bare, tradeoffs.eps), "items": items, "steps": steps}


def _reconstructions(records: "Sequence[TrainingRecord]", pixels: Pixels) -> Iterator[dict[str, Any]]:
    """What a purifier makes of noisy images."""
    for record in records:
        if is_pictured(record):
            stacks = [pixels.add(record.examples[name]) for name in RECONSTRUCTION]
            yield {"run": run_label(record), "stacks": stacks}
