"""Sweeps as a user runs them: the real commands, on a slice of real digits."""

import json
import os
import shutil
import signal
import time

import pytest

from src.evaluation.grid import COLUMNS
from src.models.checkpoint import read_checkpoint, weights_fingerprint
from tests.wandb_reading import read_runs
from tests.workflows.conftest import GRID, USERS_OWN, cells, copy_of, read_grid

ROWS = 2 * 2 * 5  # attacks × eps × (none, kmeans, binarize, vqvae 0, vqvae 0.5)
CELLS = 5 + 2 * 5  # eps 0 is one cell for all attacks


def test_the_grid_is_complete_and_follows_from_the_cells(swept):
    outputs, _ = swept
    rows = read_grid(outputs)
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == ROWS
    assert len({tuple(row[name] for name in COLUMNS[:8]) for row in rows}) == ROWS
    assert len(cells(outputs)) == CELLS
    for row in rows:
        stored = json.loads((outputs / "cells" / f"{row['key']}.json").read_text())
        assert int(row["correct"]) == stored["outcomes"].count("1")
        assert float(row["accuracy"]) == stored["outcomes"].count("1") / 120
        assert float(row["ci_low"]) < float(row["accuracy"]) < float(row["ci_high"]) or row["accuracy"] in "01"


def test_one_attacked_set_serves_every_defense(swept):
    outputs, _ = swept
    assert len(list((outputs / "adversarial").glob("*.safetensors"))) == 2  # fgsm 0.2 and ifgsm 0.2


def test_every_job_folder_holds_its_cell(swept):
    outputs, _ = swept
    copies = [json.loads(path.read_text()) for path in (outputs / "sweeps").glob("*/*/cell.json")]
    assert {copy["key"] for copy in copies} == set(cells(outputs))
    assert all(copy == json.loads((outputs / "cells" / f"{copy['key']}.json").read_text()) for copy in copies)


def test_a_line_a_cell_and_a_table_at_the_end(swept):
    _, said = swept
    assert f"{ROWS} rows, {CELLS} cells to compute" in said
    for number in range(1, CELLS + 1):
        assert said.count(f"[{number}/{CELLS}, ") == 1
    assert "binarize" in " ".join(said.splitlines()[-20:])


def test_wandb_has_a_run_a_cell_and_the_grid_and_its_numbers_are_the_grids(swept):
    outputs, _ = swept
    rows = read_grid(outputs)
    runs = read_runs(outputs, "cell")
    logged = sorted(
        (run.config["attack"], run.config["eps"], run.config["defense"], run.summary["accuracy"]) for run in runs
    )
    clean_once = {
        r["key"]: (r["attack"] if float(r["eps"]) else "none", float(r["eps"]), r["defense"], float(r["accuracy"]))
        for r in rows
    }
    assert logged == sorted(clean_once.values()) and len(logged) == CELLS
    assert len({run.start["run_group"] for run in runs}) == 1
    (summary,) = read_runs(outputs, "grid")
    table = summary.table("grid")
    assert sorted(row["accuracy"] for row in table) == sorted(float(row["accuracy"]) for row in rows)


def test_again_computes_nothing(swept, run_command):
    outputs, _ = swept
    before, runs = cells(outputs), len(list((outputs / "wandb").iterdir()))
    said = run_command("src.sweep", *GRID, outputs=outputs).stdout
    assert f"{ROWS} rows, 0 cells to compute" in said
    assert cells(outputs) == before
    assert len(list((outputs / "wandb").iterdir())) == runs
    assert len(read_grid(outputs)) == ROWS


@pytest.mark.slow
def test_a_sweep_that_goes_on_gives_the_cells_of_a_fresh_one(swept, trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    for noises in ("0.5", "0,0.5"):
        grid = ("-m", "attack=fgsm", "eps=0.2", "defense=vqvae", f"noise={noises}", "logger=none")
        run_command("src.sweep", *grid, outputs=outputs)
    fresh = {path.name: json.loads(path.read_text())["predictions"] for path in (swept[0] / "cells").glob("*.json")}
    for path in (outputs / "cells").glob("*.json"):
        assert json.loads(path.read_text())["predictions"] == fresh[path.name]


def test_a_single_cell_says_its_number_and_leaves_the_report_alone(swept, run_command):
    outputs, _ = swept
    before = read_grid(outputs), cells(outputs)
    said = run_command("src.sweep", "attack=ifgsm", "eps=0.2", "defense=vqvae", "noise=0.5", outputs=outputs).stdout
    (row,) = (r for r in before[0] if (r["attack"], r["eps"], r["noise"]) == ("ifgsm", "0.2", "0.5"))
    assert f"ifgsm eps 0.2 · vqvae 0.5 · gray_box: {float(row['accuracy']):.2%}" in said
    assert (read_grid(outputs), cells(outputs)) == before


@pytest.mark.slow
def test_the_report_is_made_again_from_stored_cells_alone(swept, run_command, tmp_path):
    outputs = tmp_path / "moved"
    shutil.copytree(swept[0], outputs)
    for folder in ("report", "adversarial", "wandb"):
        shutil.rmtree(outputs / folder)
    lost = read_grid(swept[0])[7]["key"]
    (outputs / "cells" / f"{lost}.json").unlink()
    (outputs / "checkpoints").rename(tmp_path / "elsewhere")
    run_command("src.report", f"paths.checkpoints={tmp_path / 'elsewhere'}", outputs=outputs)
    assert (outputs / "report" / "figures" / "training-loss.png").exists()
    rows = read_grid(outputs)
    for row, original in zip(rows, read_grid(swept[0]), strict=True):
        assert row == original if row["key"] != lost else (row["accuracy"], row["n"]) == ("", "")
    assert not (outputs / "adversarial").exists()
    assert {path.name for path in (outputs / "report").iterdir()} >= {"grid.csv", "grid.md", "index.html", "figures"}


def test_weights_are_untouched(swept, trained):
    for path in (trained / "checkpoints").rglob("*.ckpt"):
        after = swept[0] / path.relative_to(trained)
        assert after.read_bytes() == path.read_bytes()
        stored, provenance = read_checkpoint(after, "")
        assert weights_fingerprint(stored["state_dict"]) == provenance.weights


@pytest.mark.slow
def test_a_retrained_classifier_makes_other_cells(swept, run_command, tmp_path):
    outputs = tmp_path / "retrained"
    shutil.copytree(swept[0], outputs)
    before = set(cells(outputs))
    training = ("model=classifier", "model.epochs=2", "trainer.limit_train_batches=2", "overwrite=true", "logger=none")
    run_command("src.train", *training, outputs=outputs)
    one = ("-m", "attack=fgsm", "eps=0", "defense=none", "logger=none")
    said = run_command("src.sweep", *one, outputs=outputs).stdout
    assert "1 rows, 1 cells to compute" in said
    assert len(set(cells(outputs)) - before) == 1


@pytest.mark.slow
def test_a_users_own_defense_and_attack_are_one_yaml_each_and_a_failing_cell_stops_no_other(
    trained, run_command, tmp_path
):
    outputs = copy_of(trained, tmp_path)
    grid = ("-m", "attack=random_signs,fgsm", "eps=0.1", "defense=broken,blur,none", "logger=none", USERS_OWN)
    done = run_command("src.sweep", *grid, outputs=outputs, check=False)
    rows = {(row["attack"], row["defense"]): row["accuracy"] for row in read_grid(outputs)}
    assert all(rows[attack, defense] for attack in ("random_signs", "fgsm") for defense in ("blur", "none"))
    assert rows["fgsm", "broken"] == rows["random_signs", "broken"] == ""
    assert done.returncode != 0
    assert "2 of 6 cells are missing" in done.stderr
    assert "missing: fgsm eps 0.1 · broken" in done.stdout
    assert float(rows["random_signs", "none"]) > float(rows["fgsm", "none"])


@pytest.mark.slow
def test_killed_and_started_again_every_cell_once_and_none_lost(trained, run_command, start_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    grid = ("-m", "attack=fgsm,ifgsm", "eps=0.2", "defense=none,kmeans,binarize,vqvae", "noise=0", "checks.images=0")
    computed = 4 + 2 * 4  # clean images, too
    process = start_command("src.sweep", *grid, "logger=none", outputs=outputs)
    deadline = time.monotonic() + 200
    while len(cells(outputs)) < computed // 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    survived = cells(outputs)
    assert 0 < len(survived) < computed
    run_command("src.sweep", *grid, "logger=none", outputs=outputs)
    after = cells(outputs)
    assert len(after) == computed
    assert {key: after[key] for key in survived} == survived
    assert not list(outputs.rglob("*.tmp"))
    assert all(row["accuracy"] for row in read_grid(outputs))


@pytest.mark.slow
def test_the_reports_protocol(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    grid = ("-m", "+experiment=report", "eps=0,0.2", "defense=none,vqvae", "noise=0,0.5", "logger=none")
    said = run_command("src.sweep", *grid, outputs=outputs).stdout
    rows = {(row["attack"], row["eps"], row["defense"], row["noise"]): row for row in read_grid(outputs)}
    assert {row["protocol"] for row in rows.values()} == {"report"}
    frozen = [rows[attack, "0.2", "none", ""]["accuracy"] for attack in ("ifgsm", "mifgsm")]
    assert frozen[0] == frozen[1]  # one gradient, so momentum changes nothing
    noisy = json.loads((outputs / "cells" / f"{rows['fgsm', '0', 'vqvae', '0.5']['key']}.json").read_text())
    assert noisy["identity"]["defense"]["inference_noise"] == 0.5
    assert noisy["identity"]["defense"]["clip"] is False
    origin = json.loads((outputs / "cells" / f"{rows['fgsm', '0', 'none', '']['key']}.json").read_text())
    for row in rows.values():
        outcomes = json.loads((outputs / "cells" / f"{row['key']}.json").read_text())["outcomes"]
        assert all(clean == "1" for clean, each in zip(origin["outcomes"], outcomes, strict=True) if each == "1")
    assert "98.39" in said  # the report's own number, beside ours
