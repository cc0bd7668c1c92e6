"""A user's own defense in a sweep: one that writes in place, and one whose gradient is zero."""

import json

import pytest

from tests.workflows.conftest import USERS_OWN, copy_of, read_grid

SWEEP = (
    *("-m", "attack=ifgsm", "eps=0.1", "limit=20", "checks.images=0", "logger=none", USERS_OWN),
    "classifier=tests.workflows.components:linear_classifier",
)


@pytest.fixture
def sweep(run_command, tmp_path):
    """``sweep("defense=…")``: rows of the grid by defense, stored cells by defense, names of the findings."""

    def run(*arguments):
        outputs = tmp_path / str(len(list(tmp_path.iterdir())))
        run_command("src.sweep", *SWEEP, *arguments, outputs=outputs)
        stored = [json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")]
        found = {each["name"] for each in json.loads((outputs / "report" / "findings.json").read_text())}
        rows = {row["defense"]: row["accuracy"] for row in read_grid(outputs)}
        return rows, {cell["defense"]: cell for cell in stored if cell["eps"]}, found

    return run


@pytest.mark.slow
def test_a_defense_that_writes_in_place_changes_no_other_column(sweep):
    beside, cells, _ = sweep("defense=blackens_in_place,binarize,none")
    alone, without, _ = sweep("defense=binarize,none")
    assert {name: beside[name] for name in alone} == alone
    for name in alone:
        assert cells[name]["predictions"] == without[name]["predictions"]
        assert cells[name]["examples"] == without[name]["examples"]


@pytest.mark.slow
def test_a_gradient_that_is_zero_is_found_and_passed_straight_through(sweep):
    beaten, _, found = sweep("defense=rounded", "threat=adaptive")
    assert "zero-gradient" in found
    attacked, cells, found = sweep("defense=none,rounded", "threat=adaptive", "defense.bpda=true")
    assert "zero-gradient" not in found
    assert float(attacked["rounded"]) < float(beaten["rounded"])
    assert cells["rounded"]["identity"]["defense"]["_target_"] == "src.straight_through.StraightThrough"
    assert cells["none"]["identity"]["defense"] is None


def test_a_single_cell_says_what_is_suspicious(run_command, tmp_path):
    cell = [word for word in SWEEP if word != "-m"]
    done = run_command("src.sweep", *cell, "defense=rounded", "threat=adaptive", outputs=tmp_path)
    assert "suspicious, see docs/checks.md: zero-gradient: the loss gradient is zero" in done.stdout + done.stderr
    honest = run_command("src.sweep", *cell, "defense=binarize", outputs=tmp_path)
    assert "suspicious" not in honest.stdout + honest.stderr


def test_an_attack_of_no_family_is_named(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    said = run_command("src.sweep", "~attack.family", "limit=20", "checks.images=0", "logger=none", outputs=outputs)
    assert (said.stdout + said.stderr).count("attack=fgsm has no family in its YAML") == 1
