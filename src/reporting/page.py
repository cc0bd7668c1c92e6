"""``index.html``: the whole report in one file that needs nothing else."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.evaluation.grid import Grid
from src.reporting.certified import CERTIFIED_LEGEND, CertifiedPart
from src.reporting.colours import HEAT, heat
from src.reporting.document import Comparison, Part, all_sentences
from src.reporting.facets import DIMENSIONS
from src.reporting.figures import Drawing
from src.reporting.published import COMPARISON_LEGEND
from src.reporting.suspicions import EXPLAINED, NOTHING_CHECKED, TITLE, Suspicions, suspicion_sentences

TEMPLATES = Path(__file__).with_name("templates")


def to_html(
    grid: Grid,
    chapters: Sequence[Part],
    comparisons: Sequence[Comparison],
    drawings: Sequence[Drawing],
    figures: Mapping[str, Path],
    suspicions: Suspicions = NOTHING_CHECKED,
    certified: Sequence[CertifiedPart] = (),
) -> str:
    """The page. Everything that comes from the grid is escaped; figures are embedded.

    Args:
        drawings: what the figures are, in the order in which they are shown.
        figures: their files by name; a drawing without a file is left out.
        suspicions: what the checks of the grid came to.
        certified: the certificates of each data set, if there are any.
    """
    pictures: dict[str, list[dict[str, str]]] = {}
    for drawing in drawings:
        if drawing.name in figures:
            data = base64.b64encode(figures[drawing.name].read_bytes()).decode()
            picture = {"caption": drawing.caption, "name": drawing.name, "source": f"data:image/png;base64,{data}"}
            pictures.setdefault(drawing.topic, []).append(picture)
    sentences = all_sentences(chapters)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["unbroken"] = lambda text: str(text).replace(" %", "\N{NO-BREAK SPACE}%")
    return environment.get_template("page.html").render(
        headline=sentences[0],
        chapters=chapters,
        comparisons=comparisons,
        certified=certified,
        certified_legend=CERTIFIED_LEGEND,
        pictures=pictures,
        suspicions=suspicion_sentences(suspicions),
        findings=len(suspicions.findings),
        suspicions_title=TITLE,
        suspicions_explained=EXPLAINED,
        comparison_legend=COMPARISON_LEGEND,
        ramp=", ".join(HEAT),
        heat=heat,
        facts=_facts(grid),
        settings=_settings(grid),
        versions=_versions(grid),
    )


def _facts(grid: Grid) -> dict[str, str]:
    """The grid in a few figures."""
    cells = {row.key: row.cell for row in grid if row.cell}
    seconds = sum(cell.seconds for cell in cells.values())
    facts = {name: ", ".join(map(str, grid.values(name))) for name in DIMENSIONS}
    images = sorted({cell.n for cell in cells.values()})
    return facts | {
        "test images": ", ".join(f"{n:,}" for n in images),
        "cells": f"{len(grid) - len(grid.missing)} of {len(grid)} computed",
        "computed in": f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 3600:,.1f} h",
    }


def _settings(grid: Grid) -> dict[str, list[str]]:
    """What the numbers depend on: for each part of the cells' identities its distinct values, as JSON."""
    found: dict[str, dict[str, None]] = {}
    for row in grid:
        for part, value in row.cell.identity.items() if row.cell else ():
            found.setdefault(part, {})[json.dumps(value, ensure_ascii=False)] = None
    return {part: list(values) for part, values in found.items()}


def _versions(grid: Grid) -> list[dict[str, Any]]:
    """The distinct environments in which cells were computed."""
    return list({json.dumps(row.cell.environment): row.cell.environment for row in grid if row.cell}.values())
