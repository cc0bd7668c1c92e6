"""What the charts show, read back from their specifications."""

from typing import Any

import reporting_factories as make

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import facets
from src.reporting.analysis.labels import column_label, percent
from src.reporting.analysis.tradeoff import trade_offs
from src.reporting.figures.charts import (
    LOSSES,
    accuracy_figure,
    certified_chart,
    heat_map,
    tradeoff_figure,
    training_chart,
)
from src.reporting.figures.colours import column_styles


def rows_of(chart: dict[str, Any], **where: Any) -> list[dict[str, Any]]:
    rows = chart["data"]["values"]
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def drawn_as(chart: dict[str, Any], channel: str) -> dict[str, Any]:
    """Of each label its colour, shape or stroke."""
    scale = next(layer["encoding"][channel]["scale"] for layer in chart["layer"] if channel in layer["encoding"])
    return dict(zip(scale["domain"], scale["range"], strict=True))


def test_each_defense_is_a_line_with_its_intervals_as_error_bars_and_a_gap_where_a_cell_is_missing(grid: Grid) -> None:
    (facet,) = facets(make.without(grid, attack="fgsm", eps=0.2, defense="kmeans"))
    chart = accuracy_figure([facet], "fgsm")
    styles = column_styles(facet.columns, facet.grid.bare)
    for column in make.COLUMNS:
        rows = rows_of(chart, label=column_label(*column))
        assert [row["eps"] for row in rows] == list(make.BUDGETS)
        for row in rows:
            cell = facet.cell("fgsm", row["eps"], column)
            assert (row["accuracy"] is None) == (cell is None) == ((row["eps"], column[0]) == (0.2, "kmeans"))
            assert cell is None or (row["accuracy"], row["low"], row["high"]) == (cell.accuracy, *cell.interval)
        assert drawn_as(chart, "color")[column_label(*column)] == styles[column].colour
    bars = chart["layer"][1]
    assert (bars["mark"]["type"], bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == (
        *("errorbar", "low", "high"),
    )
    low, high = chart["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert low <= 0 and high >= 1


def test_several_threats_have_a_panel_each(grid: Grid) -> None:
    others = make.make_grid(threat="adaptive", columns={("none", None): (0.98, 0.01), ("jpeg", None): (0.9, 0.1)})
    chart = accuracy_figure(facets(Grid(grid.rows + others.rows)), "fgsm")
    assert chart["facet"]["column"]["sort"] == ["gray_box", "adaptive"]
    assert {row["label"] for row in rows_of(chart, threat="adaptive")} == {"none", "jpeg"}
    assert len(drawn_as(chart["spec"], "color")) == len(make.COLUMNS) + 1


def test_the_trade_off_is_a_point_a_column(grid: Grid) -> None:
    (facet,) = facets(grid)
    found = trade_offs(facet.grid)
    points = [
        (row["label"], row["clean_accuracy"], row["attacked_accuracy"])
        for row in rows_of(tradeoff_figure(facet, found), named=True)
    ]
    assert points == [(i.label, i.clean.fraction, i.attacked.fraction) for i in found.items if i.clean and i.attacked]
    assert len(points) == 7


def test_of_many_noises_a_few_are_named() -> None:
    columns = {("none", None): (0.98, 0.01)} | {("vqvae", i / 99): (0.9, 0.2 + i / 500) for i in range(100)}
    (facet,) = facets(make.make_grid(("fgsm",), (0.3,), columns))
    chart = tradeoff_figure(facet, trade_offs(facet.grid))
    named = chart["layer"][1]["encoding"]["color"]["legend"]["values"]
    assert named[:2] + named[-1:] == ["none", "vqvae 0", "vqvae 1"] and len(named) == 9
    assert len(drawn_as(accuracy_figure([facet], "fgsm"), "color")) == 101


def test_losses_are_drawn_for_each_model_and_noise() -> None:
    records = make.make_records()
    chart = training_chart(records)
    assert chart["facet"]["sort"] == ["classifier", "vqvae"]
    shown = [f"vqvae {noise} · mnist" for noise in ("0", "0.25", "0.5", "0.75")]
    assert list(drawn_as(chart["spec"], "color")) == ["classifier · mnist", *shown]
    for name, record in zip(["classifier · mnist", *shown], records, strict=True):
        curve, losses = rows_of(chart, label=name, validation=False), [loss for _, loss in record.losses]
        assert len(curve) <= LOSSES and curve[-1]["step"] == record.losses[-1][0]
        assert (min(row["low"] for row in curve), max(row["high"] for row in curve)) == (min(losses), max(losses))
        ends = [(row["step"], row["loss"]) for row in rows_of(chart, label=name, validation=True)]
        assert ends == [(epoch["step"], epoch["val/loss"]) for epoch in record.epochs]


def test_the_heat_map_writes_every_accuracy_and_eps_0_once(grid: Grid) -> None:
    (facet,) = facets(make.without(grid, attack="mifgsm", eps=0.3, defense="kmeans"))
    written = [row["text"] for row in rows_of(heat_map(facet))]
    rows = [("fgsm", 0.0)] + [(attack, eps) for attack in make.ATTACKS for eps in make.BUDGETS[1:]]
    cells = [facet.cell(attack, eps, column) for attack, eps in rows for column in facet.columns]
    assert written == [percent(cell.accuracy) if cell else "—" for cell in cells]
    assert written.count("—") == 1


def test_certificates_have_a_line_a_set_dashed_without_a_denoiser_and_crosses_for_the_published() -> None:
    from src.reporting.document.certified import certified_sections

    five, bare = make.certified(0.1, 0.25, 0.6, 1.3, wrong=1), make.certified(0.2, wrong=3, abstained=1, denoiser=None)
    (section,) = certified_sections([make.certified(0.2, 0.3, sigma=0.25), five, bare])
    chart = certified_chart(section.subject)
    colours, strokes, shapes = (drawn_as(chart, channel) for channel in ("color", "strokeDash", "shape"))
    assert len(colours) == 3 + 2
    assert strokes["σ 0.5 · none"] == (7, 4) and strokes["σ 0.5 · vqvae 0.5"] == (1, 0)
    assert colours["σ 0.5 · none"] == colours["σ 0.5 · vqvae 0.5"] != colours["σ 0.25 · vqvae 0.25"]
    curve = [(round(row["radius"], 3), row["accuracy"]) for row in rows_of(chart, label="σ 0.5 · vqvae 0.5")]
    assert curve == [(0.0, 0.8), (0.1, 0.8), (0.25, 0.6), (0.6, 0.4), (1.3, 0.2), (1.3, 0)]
    assert all(row["published"] for row in rows_of(chart, label="σ 0.5 · published"))
    assert shapes["σ 0.5 · published"].startswith("M") and shapes["σ 0.5 · none"] == "stroke"
