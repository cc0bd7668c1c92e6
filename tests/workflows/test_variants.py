"""Several values of one argument in a sweep, and what is kept of several sweeps."""

import csv
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from src.evaluation import NO_DEFENSE, AttackSpec, CellSpec, DataSpec, DefenseSpec, ThreatSpec
from src.workflows.variants import labels
from tests.workflows.conftest import copy_of, read_grid

pytestmark = pytest.mark.slow

HERE = "tests.workflows.components"
FEW = ("logger=none", "limit=20", "checks.images=0", "noise=0")


def cell(eps: float = 0.1, steps: int = 10, k: int | None = None, classifier: str = "a", eot: int = 1) -> CellSpec:
    return CellSpec(
        data=DataSpec("digits", "f", 9),
        classifier=classifier,
        attack=AttackSpec("ifgsm", {"_target_": "ifgsm", "steps": steps}),
        eps=eps,
        threat=ThreatSpec("gray_box", {"_target_": "gray_box", "eot_samples": eot}),
        defense=NO_DEFENSE if k is None else DefenseSpec("kmeans", {"_target_": "kmeans", "k": k}),
    )


def test_cells_that_differ_in_columns_keep_their_names():
    points = [(f"eps={eps}", "attack.steps=10") for eps in (0, 0.1)]
    specs = [cell(eps) for eps in (0, 0.1)]
    assert labels(points, specs) == [spec.coordinates for spec in specs]


def test_the_values_stand_in_the_columns_they_belong_to():
    wanted = list(product((0.0, 0.1), (5, 20), (None, 2, 8)))
    points = [(f"eps={eps}", f"attack.steps={steps}", f"+defense.purifier.k={k}") for eps, steps, k in wanted]
    for where, (eps, steps, k) in zip(labels(points, [cell(*each) for each in wanted]), wanted, strict=True):
        assert where.attack == f"ifgsm (steps={steps})", "where nothing is attacked as well"
        assert where.defense == ("none" if k is None else f"kmeans (k={k})")
        assert (where.data, where.threat, where.eps) == ("digits", "gray_box", eps)


def test_a_value_that_makes_no_difference_is_not_named():
    points = [(f"inference_noise={noise}", f"defense={name}") for noise, name in product((0, 1), ("none", "kmeans"))]
    specs = [cell(), cell(k=2), cell(), cell(k=8)]  # as if K-means took it, and the bare classifier did not
    assert [where.defense for where in labels(points, specs)] == [
        "none",
        "kmeans (inference_noise=0)",
        "none",
        "kmeans (inference_noise=1)",
    ]


@pytest.mark.parametrize(
    ("changes", "override", "column", "said"),
    [
        ([{"classifier": "a"}, {"classifier": "b"}], "classifier", "data", "digits (classifier={})"),
        ([{"eot": 1}, {"eot": 2}], "eot_samples", "threat", "gray_box (eot_samples={})"),
    ],
)
def test_what_is_neither_attack_nor_defense_has_a_place_as_well(changes, override, column, said):
    points = [(f"{override}={number}",) for number in (0, 1)]
    found = labels(points, [cell(**change) for change in changes])
    assert [getattr(where, column) for where in found] == [said.format(0), said.format(1)]
    assert len({replace(where, **{column: ""}) for where in found}) == 1


def test_a_sweep_over_a_parameter_has_a_row_for_each_value(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    grid = ("-m", "attack=ifgsm", "eps=0,0.2", "defense=kmeans", "attack.steps=1,3", "defense.purifier.k=2,8")
    said = run_command("src.sweep", *grid, *FEW, outputs=outputs).stdout
    rows = read_grid(outputs)
    attacks, defenses = ("ifgsm (steps=1)", "ifgsm (steps=3)"), ("kmeans (k=2)", "kmeans (k=8)")
    places = {(row["attack"], row["eps"], row["defense"]) for row in rows}
    assert places == set(product(attacks, ("0", "0.2"), defenses))
    assert len({row["key"] for row in rows}) == 2 + 4, "at eps 0 the attack makes no difference"
    assert "ifgsm (steps=3) eps 0.2 · kmeans (k=8)" in said
    page = (outputs / "report" / "index.html").read_text()
    assert all(name in page for name in (*attacks, *defenses))


def test_two_classifiers_stand_side_by_side(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    both = "classifier=" + ",".join(f"{HERE}:{name}" for name in ("POOLED", "linear_classifier"))
    run_command("src.sweep", "-m", "attack=fgsm", "eps=0,0.1", "defense=none", both, *FEW, outputs=outputs)
    rows = read_grid(outputs)
    assert len(rows) == len({row["key"] for row in rows}) == 4
    named = [f"mnist (classifier={HERE}:{name})" for name in ("POOLED", "linear_classifier")]
    assert {row["data"] for row in rows} == set(named)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "grid.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_sweep_keeps_its_report_and_an_index_lists_them(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    for defense in ("none,binarize", "none"):
        run_command("src.sweep", "-m", "attack=fgsm", "eps=0.1", f"defense={defense}", *FEW, outputs=outputs)
    first, second = sorted(path.parent for path in (outputs / "sweeps").glob("*/grid.json"))
    assert (len(rows_of(first / "report")), len(rows_of(second / "report"))) == (2, 1)
    assert read_grid(outputs) == rows_of(second / "report"), "outputs/report is the newest"
    for copy in (second / "report").rglob("*.*"):
        assert copy.read_bytes() == (outputs / "report" / copy.relative_to(second / "report")).read_bytes()

    index = (outputs / "sweeps" / "index.html").read_text()
    links = re.findall(r'href="([^"]+)"', index)
    assert links == [f"{sweep.name}/report/index.html" for sweep in (second, first)]
    assert all((outputs / "sweeps" / link).exists() for link in links)
    assert "python -m src.sweep -m attack=fgsm eps=0.1 defense=none,binarize" in index

    run_command("src.report", f"sweep={first}", "logger=none", outputs=outputs)
    assert read_grid(outputs) == rows_of(second / "report"), "an older sweep's report hides no newer one"
