"""The runs of cells, read back from disk and compared with `grid.csv`."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from src.evaluation import Coordinates
from src.reporting.wandb.cells import _numbers
from tests.reporting.wandb.wandb_writing import CLASSIFIER, WEIGHTS, Sweep, cell_at, csv_rows, small_grid

NAMES = ("data", "attack", "eps", "threat", "defense", "noise", "protocol", "seed")


def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in NAMES)


def run_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of a row's run: without attack there is one for all of them."""
    return place(row if row["eps"] else {**row, "attack": "none"})


def test_there_is_one_run_for_each_computed_cell_and_its_numbers_are_those_of_the_grid(
    sweep: Sweep,
) -> None:
    runs = {place(run.config): run for run in sweep.cells}
    computed = [row for row in small_grid() if row.cell]
    assert len(sweep.cells) == len(runs) == 17 - 3  # clean cells stand in the rows of both attacks
    assert len(computed) == 17
    written = [row for row in csv_rows(small_grid()) if row["accuracy"]]
    for row, line in zip(computed, written, strict=True):
        run = runs[run_of(asdict(row.coordinates))]
        for name in ("n", "correct", "accuracy", "ci_low", "ci_high", "seconds"):
            assert run.summary[name] == float(line[name]), name
        assert run.summary.get("propagations") == (20 if row.coordinates.eps else None)
        assert run.config["key"] == line["key"]
        assert run.history == [{k: v for k, v in run.summary.items() if "." not in k} | run.history[0]]


def test_a_cell_run_says_what_it_was_made_from_and_nothing_that_is_not_a_number(
    sweep: Sweep,
) -> None:
    run = next(run for run in sweep.cells if place(run.config)[1:6] == ("ifgsm", 0.1, "gray_box", "vqvae", 0.25))
    assert run.start["display_name"] == "ifgsm eps 0.1 · vqvae 0.25"
    assert run.start["run_group"] == f"mnist-default-{CLASSIFIER}"
    assert run.config["attack/steps"] == 10
    assert run.config["defense/0/k"] == 20
    assert run.config["classifier"] == WEIGHTS
    assert run.config["environment/torch"] == "2.14.1"
    assert run.summary["recovered"] == run.summary["accuracy"] - 1 / 3
    assert run.summary["seconds/attack"] == 1.5
    values = {name: value for name, value in run.summary.items() if not name.startswith("examples.")}
    assert all(isinstance(value, int | float) for value in values.values())
    assert not any(isinstance(value, dict | list) for value in run.config.values())


def test_a_cell_run_shows_its_examples(sweep: Sweep) -> None:
    from PIL import Image

    run = sweep.cells[0]
    with Image.open(run.media("examples")) as image:
        assert image.size == (10 * 28, 3 * 28)
    assert "7→2" in run.summary["examples.caption"]


def test_a_proof_has_no_numbers_of_an_attack() -> None:
    attacked = cell_at(Coordinates("mnist", "certified", 0.3, "adaptive", "vqvae_certified", None, "default", 0), 30)
    proof = replace(attacked, attacker={"family": "certificate"})
    assert proof.is_proof and not attacked.is_proof
    assert {"recovered", "undefended_accuracy", "perturbation_linf"} <= _numbers(attacked).keys() - _numbers(
        proof
    ).keys()
    assert _numbers(proof)["accuracy"] == attacked.accuracy
