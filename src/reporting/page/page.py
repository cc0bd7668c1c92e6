"""``index.html``: the whole report in one file that needs nothing else."""

import base64
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.reporting.analysis.certified import Certificates
from src.reporting.analysis.facets import DIMENSIONS, Facet
from src.reporting.document.costs import cost_table
from src.reporting.document.findings import EXPLAINED, NOTHING_CHECKED, TITLE, check_sentences
from src.reporting.document.key_figures import key_figures, short_title
from src.reporting.document.sections import GridSection, Section, headline
from src.reporting.figures.colours import HEAT, heat
from src.reporting.page.data import page_data
from src.reporting.page.pixels import Pixels, pack
from src.reporting.templating import template

if TYPE_CHECKING:
    from src.training_record import TrainingRecord


def to_html(
    grid: Grid,
    parts: Sequence[GridSection],
    comparisons: Sequence[Section[Facet]],
    records: "Sequence[TrainingRecord]" = (),
    checks: CheckReport = NOTHING_CHECKED,
    certified: Sequence[Section[Certificates]] = (),
    downloads: dict[str, str] | None = None,
) -> str:
    """The page. Everything that comes from the grid is escaped.

    Args:
        records: training runs whose losses and reconstructions are shown.
        checks: what the checks of the grid came to.
        certified: the certificates of each data set, if there are any.
        downloads: texts that can be saved from the page, by file name.
    """
    pixels = Pixels()
    data = page_data(grid, parts, certified, records, pixels)
    cells = [cell for part in data["parts"] for cell in part["cells"]]
    costs = {i: cost_table(part.facets[0]) for i, part in enumerate(parts) if part.trade_offs}
    return template("page.html").render(
        title=short_title(parts),
        headline=headline(parts),
        key=key_figures(parts),
        parts=parts,
        switches=_switches(parts),
        legends=dict.fromkeys(part.legend for part in parts),
        tradeoffs=any(part.tradeoff for part in parts),
        pictured=any(cell["shown"] for cell in cells),
        classed=any(cell["classes"] for cell in cells),
        training=bool(data["training"]["chart"] or data["training"]["reconstructions"]),
        reconstructed=bool(data["training"]["reconstructions"]),
        costs=[(i, table) for i, table in costs.items() if table],
        comparisons=comparisons,
        certified=certified,
        checks=check_sentences(checks),
        findings=len(checks.findings),
        checks_title=TITLE,
        checks_explained=EXPLAINED,
        ramp_colours=", ".join(HEAT),
        heat=heat,
        facts=_facts(grid),
        settings=_settings(grid),
        versions=_versions(grid),
        downloads={name: _link(text) for name, text in (downloads or {}).items()},
        data=data,
        pixels=pixels.packed(),
        library=_charts_library(),
    )  # fmt: skip


@cache  # bundling takes two seconds
def _charts_library() -> str:
    """Vega, Vega-Lite and Vega-Embed, packed."""
    import vl_convert

    return pack(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())


def _switches(parts: Sequence[GridSection]) -> dict[str, list[str]]:
    """For each dimension in which parts can differ, its values; and the attacks."""
    places = [part.subject.place for part in parts]
    values = {name: list(dict.fromkeys(place[name] for place in places)) for name in (*DIMENSIONS, "settings")}
    return values | {"attack": list(dict.fromkeys(attack for part in parts for attack in part.subject.attacks))}


def _link(text: str) -> str:
    return f"data:text/plain;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _facts(grid: Grid) -> dict[str, str]:
    """The grid in a few figures."""
    cells = {row.key: row.cell for row in grid if row.cell}
    seconds = sum(cell.seconds for cell in cells.values())
    facts = {name: ", ".join(map(str, grid.values(name))) for name in DIMENSIONS}
    images = sorted({cell.n for cell in cells.values()})
    return facts | {
        "images": ", ".join(f"{n:,}" for n in images),
        "cells": f"{len(grid) - len(grid.missing)} of {len(grid)} computed",
        "computed in": f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 3600:,.1f} h",
    }


def _settings(grid: Grid) -> dict[str, list[str]]:
    """What the numbers depend on: for each part of the cells' identities its distinct values, as JSON."""
    values_by_part: dict[str, dict[str, None]] = {}
    for row in grid:
        for part, value in row.cell.identity.items() if row.cell else ():
            values_by_part.setdefault(part, {})[json.dumps(_as_typed(value), ensure_ascii=False)] = None
    return {part: list(values) for part, values in values_by_part.items()}


def _as_typed(value: Any) -> Any:
    """Numbers as people type them: identities hold 0 as 0.0."""
    if isinstance(value, dict):
        return {name: _as_typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_typed(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _versions(grid: Grid) -> list[dict[str, Any]]:
    """The distinct environments in which cells were computed."""
    return list({json.dumps(row.cell.environment): row.cell.environment for row in grid if row.cell}.values())
