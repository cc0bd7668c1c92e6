"""Runs from their start to their end: written once, finished in any case, and nothing left behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.command_server import CommandServer
from tests.reporting.wandb.wandb_writing import CLASSIFIER, Sweep
from tests.wandb_reading import Processes, read_runs

pytestmark = pytest.mark.slow  # processes of W&B, started and waited for


def test_running_again_logs_nothing_but_another_project_gets_its_own_runs(sweep: Sweep) -> None:
    ended = sweep.ended
    assert ended.result["logged"] == 9 * [True] + 3 * [False] + 5 * [True] + 17 * [False]
    assert ended.result["grids"] == [True, False]
    assert ended.result["other_project"] is True
    assert ended.result["recounted"] is True, "computed anew, it counts other images"


def test_all_runs_of_a_sweep_are_finished_and_stand_in_one_group(sweep: Sweep) -> None:
    runs = sweep.runs
    assert {run.start["run_group"] for run in runs} == {f"mnist-default-{CLASSIFIER}"}
    assert {run.exit_code for run in runs} == {0}


def test_logging_is_quiet_late_fast_and_leaves_nothing_behind(command_server: CommandServer, sweep: Sweep) -> None:
    outputs, ended = sweep.outputs, sweep.ended
    assert ended.stdout == ended.stderr == ""
    assert not command_server.imports_wandb
    assert ended.result["run"]
    assert ended.result["environment"]
    assert sorted(ended.result["seconds"][1:17])[8] < 0.25  # 0.03 s on an idle machine
    home = outputs.parent / "home"
    assert not (home / ".local").exists()  # W&B would keep the tables' files there until they are uploaded
    staged = [entry for run in sweep.runs for each in run.of("artifact") for entry in each["manifest"]["contents"]]
    assert len(staged) == 3
    assert all(outputs in Path(entry["local_path"]).parents for entry in staged)
    assert all(Path(entry["local_path"]).is_file() for entry in staged)


def test_place_and_names_come_from_the_settings(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_named", tmp_path / "out", home=tmp_path / "home")
    assert (ended.result, ended.stderr) == ([True, True, True, True], "")
    runs = read_runs(tmp_path / "out")
    for run in runs:
        told = {name: run.start[name] for name in ("project", "entity", "run_group", "job_type", "tags", "notes")}
        asked = {"project": "p", "entity": "e", "run_group": "g", "job_type": "j"}
        assert told == asked | {"tags": ["a", "b"], "notes": "why"}
    assert runs[0].start["display_name"] == "pgd eps 0.1 · kmeans · adaptive seed 2"
    assert runs[0].config["noise"] is None
    assert [run.summary.get("missing") for run in runs[2:]] == [1, 0]


def test_failures_are_marked_failed_cost_a_line_and_can_be_made_good(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_failures", tmp_path / "out", home=tmp_path / "home")
    assert ended.result == [True, False, False, False, False, False, True]
    assert len(ended.stderr.splitlines()) == 4, ended.stderr
    assert all(line.startswith("not logged to W&B: ") for line in ended.stderr.splitlines())
    crashed, broken, good = read_runs(tmp_path / "out")
    assert (crashed.exit_code, broken.exit_code, good.exit_code) == (1, 1, 0)
    assert crashed.start["display_name"] == "ifgsm eps 0.3 · vqvae 0"
    assert crashed.config["error"] == "RuntimeError: out of memory"
    assert crashed.start["run_group"] == good.start["run_group"]


def test_a_run_that_was_killed_is_written_again(processes: Processes, tmp_path: Path) -> None:
    killed = processes.run("write_and_die", tmp_path / "out", home=tmp_path / "home")
    assert killed.code == -signal.SIGKILL
    assert len(list((tmp_path / "out/wandb").glob("offline-run-*"))) == 1
    again = processes.run("write_cells", tmp_path / "out", 2, home=tmp_path / "home")
    assert again.result == [True, True]
    assert [run.exit_code for run in read_runs(tmp_path / "out")] == [0, 0]


def test_two_sweeps_at_once_log_a_cell_once(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_at_once", tmp_path / "out", home=tmp_path / "home")
    assert [sum(pair) for pair in zip(*ended.result, strict=True)] == 6 * [1], ended.stderr
    assert len(read_runs(tmp_path / "out")) == 6
    assert not list((tmp_path / "out/wandb").glob(".*.lock"))


def test_a_run_of_the_callers_own_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_beside_a_run", tmp_path, home=tmp_path / "home")
    assert ended.result == {"untouched": True}, ended.stderr
    mine = next(run for run in read_runs(tmp_path) if run.start["project"] == "mine")
    assert mine.history == [{"loss": 1}]


def test_a_server_out_of_reach_is_waited_for_once_and_the_runs_are_kept_offline(
    processes: Processes, tmp_path: Path
) -> None:
    ended = processes.run(
        "write_cells",
        *(tmp_path / "out", 3),
        home=tmp_path / "home",
        WANDB_API_KEY=40 * "a",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_INIT_TIMEOUT="1",
    )
    assert ended.result == [True, True, True]
    assert ended.stderr.count("W&B is not reached") == 1
    offline = [run for run in read_runs(tmp_path / "out") if run.folder.name.startswith("offline-run-")]
    assert [run.exit_code for run in offline] == [0, 0, 0]


@pytest.mark.parametrize(("mode", "logged", "warnings"), [("online", True, 1), ("disabled", False, 0)])
def test_a_mode_from_the_environment_is_heeded(
    processes: Processes, tmp_path: Path, mode: str, logged: bool, warnings: int
) -> None:
    ended = processes.run("write_cells", tmp_path / "out", 1, home=tmp_path / "home", WANDB_MODE=mode)
    assert ended.result == [logged]  # online without a key goes offline instead of asking for one
    assert ended.stderr.count("W&B is not reached") == warnings
    assert (tmp_path / "out/wandb").exists() == logged


def test_sync_finds_every_finished_run(sweep: Sweep, tmp_path: Path) -> None:
    import subprocess

    home = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | {"HOME": str(tmp_path)}
    command = [
        str(Path(sys.executable).with_name("wandb")),
        "sync",
        "--dry-run",
        "--verbose",
        str(sweep.outputs / "wandb"),
    ]
    said = subprocess.run(command, env=home, capture_output=True, text=True, check=True).stderr
    assert "Would sync 17 run(s)" in said
