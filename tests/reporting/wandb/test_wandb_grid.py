"""The run of a grid, read back from disk and compared with `grid.csv`."""

from dataclasses import replace
from typing import Any

from src.evaluation import Coordinates
from src.evaluation.grid import COLUMNS, Grid, GridRow
from src.reporting.analysis.facets import facets
from src.reporting.document.key_figures import short_title
from src.reporting.document.sections import sections
from src.reporting.wandb.grid import _curves
from tests.reporting.wandb.wandb_writing import Sweep, cell_at, csv_rows, small_grid


def as_written(value: Any) -> Any:
    """A value of `grid.csv` as the number, text or nothing that it stands for."""
    if value == "":
        return None
    try:
        return float(value)
    except ValueError:
        return value


def test_the_grid_run_holds_the_table_of_grid_csv(sweep: Sweep) -> None:
    run = sweep.grid
    table, written = run.table("grid"), csv_rows(small_grid())
    assert list(table[0]) == list(COLUMNS)
    assert [list(row.values()) for row in table] == [[as_written(v) for v in row.values()] for row in written]
    assert table[-1]["accuracy"] is None


def test_the_grid_run_holds_the_lines_twice_and_leaves_out_what_is_missing(sweep: Sweep) -> None:
    run = sweep.grid
    wanted = {
        (row["attack"], f"{row['defense']} {row['noise']}".strip(), float(row["eps"])): float(row["accuracy"])
        for row in csv_rows(small_grid())
        if row["accuracy"]
    }
    drawn = {
        (attack, point["lineKey"], point["step"]): point["lineVal"]
        for attack in ("fgsm", "ifgsm")
        for point in run.table(f"curves/{attack}_table")
    }
    assert drawn == wanted
    names = {"none": "none", "vqvae_0": "vqvae 0", "vqvae_0_25": "vqvae 0.25"}
    stepped = {
        (name.split("/")[0], names[name.split("/")[1]], row["eps"]): value
        for row in run.history
        if "eps" in row
        for name, value in row.items()
        if "/" in name
    }
    assert stepped == wanted
    assert [row["eps"] for row in run.history if "eps" in row] == [0, 0.1, 0.3]
    steps = {metric["name"]: metric.get("step_metric") for metric in run.of("metric")}
    assert steps == {"eps": None} | {f"{a}/{label}": "eps" for a in ("fgsm", "ifgsm") for label in names}


def test_the_grid_run_holds_figures_summary_and_config(sweep: Sweep) -> None:
    from PIL import Image

    run = sweep.grid
    with Image.open(run.media("figures/fgsm_curves")) as image:
        assert image.size == (40, 30)
    assert not any("absent" in name for name in run.summary)
    accuracies = {row.coordinates: row.cell.accuracy for row in small_grid() if row.cell}
    assert run.summary["cells"] == 18
    assert run.summary["missing"] == 1
    least = {
        noise: min(accuracy for where, accuracy in accuracies.items() if where.noise == noise) for noise in (None, 0.0)
    }
    assert run.summary["best_accuracy"] == max(least.values()) == least[None]
    assert run.summary["worst_accuracy"] == min(least.values()) == least[0.0]
    assert run.summary["best_accuracy_of"] == "none, the least under fgsm and ifgsm up to eps 0.3"
    assert run.summary["worst_accuracy_of"] == "vqvae 0, the least under fgsm and ifgsm up to eps 0.3"
    assert run.summary["headline"] == short_title(sections(small_grid()))
    assert len(run.summary["headline"].split()) <= 20
    assert "suspicious" not in run.summary  # nothing was checked: a 0 would say that nothing was found
    assert run.summary["worst/vqvae_0"] == least[0.0]
    assert "worst/vqvae_0_25" not in run.summary  # one of its cells is missing: it could be the lowest
    assert run.config["data"] == "mnist"
    assert run.config["eps"] == [0, 0.1, 0.3]


def test_a_grid_of_several_settings_has_a_line_for_each() -> None:
    where = Coordinates("mnist", "ifgsm", 0.1, "gray_box", "none", None, "default", 0)
    cells = [cell_at(where, 40, steps=5.0), cell_at(where, 30, steps=10.0)]
    rows = [GridRow(cell.coordinates, cell.key, cell) for cell in cells]
    rows.append(GridRow(replace(where, threat="adaptive"), "", cell_at(replace(where, threat="adaptive"), 20)))
    curves = [curve for facet in facets(Grid(tuple(rows))) for curve in _curves(facet)]
    assert len({curve.metric for curve in curves}) == len({curve.label for curve in curves}) == 3
    assert [curve.points for curve in curves] == [[(0.1, 40 / 60)], [(0.1, 0.5)], [(0.1, 20 / 60)]]
