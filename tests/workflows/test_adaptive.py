"""A sweep whose attackers know the defense, through the real command."""

import json

import pytest

from tests.workflows.conftest import USERS_OWN, cells, copy_of, read_grid

pytestmark = pytest.mark.slow

#: Members of conf/attack/worst.yaml that are kept; the others take too long for a test.
KEPT = ("ifgsm", "pgd")
SWEEP = (
    *("-m", "attack=worst", "attack.members.pgd.steps=5", "eps=0,0.3", "threat=gray_box,adaptive"),
    *("defense=binarize,vqvae", "noise=0.5", "limit=60", "checks.images=20", "logger=none"),
)


def without_others(repo_conf) -> list[str]:
    lines = (repo_conf / "attack" / "worst.yaml").read_text().splitlines()
    names = [line.split("@members.")[1].split()[0] for line in lines if "@members." in line and line.startswith("  - ")]
    return [f"~attack.members.{name}" for name in names if name not in KEPT]


@pytest.fixture(scope="module")
def swept(trained, run_command, tmp_path_factory, request):
    """An outputs folder after a sweep over both threats, and what the sweep said."""
    outputs = copy_of(trained, tmp_path_factory.mktemp("both"))
    arguments = (*SWEEP, *without_others(request.config.rootpath / "conf"))
    return outputs, arguments, run_command("src.sweep", *arguments, outputs=outputs).stdout


def test_both_threats_stand_side_by_side(swept):
    outputs, _, said = swept
    rows = {(row["threat"], row["defense"], row["eps"]): row for row in read_grid(outputs)}
    assert len(rows) == 8 and all(row["accuracy"] for row in rows.values())
    assert {row["attack"] for row in rows.values()} == {"worst"}
    for defense in ("binarize", "vqvae"):
        assert rows["gray_box", defense, "0"]["accuracy"] == rows["adaptive", defense, "0"]["accuracy"]
    assert said.count("worst, 60 images") == 1 and "gray_box and adaptive · worst, 60 images" in said


def test_the_worst_case_is_at_most_each_of_its_members_which_are_cells(swept):
    outputs = swept[0]
    stored = {path.stem: json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")}
    worst = [cell for cell in stored.values() if cell["members"]]
    assert {cell["threat"] for cell in worst} == {"gray_box", "adaptive"}
    for cell in worst:
        assert set(cell["members"]) == set(KEPT)
        for name, member in cell["members"].items():
            assert stored[member["key"]]["attack"] == name
            assert cell["correct"] <= member["correct"] == stored[member["key"]]["correct"]


def test_what_the_attacker_saw_is_stored_and_the_attack_was_tried_harder(swept):
    outputs = swept[0]
    stored = [json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")]
    adaptive = [cell for cell in stored if cell["attack"] == "pgd" and cell["threat"] == "adaptive"]
    assert {cell["attacker"]["family"] for cell in adaptive} == {"iterative"}
    assert {cell["attacker"]["random"] for cell in stored if cell["eps"]} == {False}, "under every threat"
    steps = {(cell["n"], cell["eps"], cell["identity"]["attack"]["steps"]) for cell in adaptive}
    assert {(60, 0.3, 5.0), (20, 0.3, 10.0), (20, 0.5, 5.0)} <= steps


def test_what_was_checked_and_found_is_in_the_report_and_on_the_screen(swept):
    outputs, _, said = swept
    found = json.loads((outputs / "report" / "findings.json").read_text())
    # For each of 2 defenses 2 attacks under 2 threats; 2 extra runs for each attacker who knows the defense
    outcome = f"{len(found) or 'None'} found by 7 of 10 checks of 8 cells, with 8 extra runs of attacks."
    for text in (said, *((outputs / "report" / name).read_text() for name in ("index.html", "grid.md"))):
        assert "Reasons for suspicion" in text and outcome in text
        assert all(each["name"] in text for each in found)


def test_a_check_that_fails_costs_a_check_and_not_the_cell(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    arguments = ("attack=ifgsm", "eps=0.3", "threat=adaptive", "defense=fails_on_three", "limit=4", "checks.images=3")
    done = run_command("src.sweep", "-m", *arguments, USERS_OWN, "logger=none", outputs=outputs)
    assert [row["n"] for row in read_grid(outputs)] == ["4"]
    assert done.stdout.count("is not checked") == 2 and "RuntimeError: three" in done.stdout
    assert "0 extra runs of attacks (2 more are missing)" in done.stdout


def test_a_sweep_that_is_computed_computes_nothing_again(swept, run_command):
    outputs, arguments, _ = swept
    before = cells(outputs)
    said = run_command("src.sweep", *arguments, outputs=outputs).stdout
    assert "0 cells to compute" in said
    assert cells(outputs) == before
