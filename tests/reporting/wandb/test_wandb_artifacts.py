"""Artifacts, read back from the runs that put them out and use them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from src.reporting.document.findings import check_sentences
from src.reporting.wandb.artifacts import Weights, artifact_name
from tests.reporting.wandb.wandb_writing import CLASSIFIER, SUSPECT, SUSPICIOUS, WEIGHTS, record_of
from tests.wandb_reading import Ended, LoggedRun, Processes, read_runs
from tests.wandb_server import serving


@pytest.fixture(scope="module")
def written(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("artifacts")
    ended = processes.run("write_artifacts", folder / "out", home=folder / "home")
    assert ended.code == 0, ended.stderr
    return folder, ended


@pytest.fixture(scope="module")
def runs(written: tuple[Path, Ended]) -> tuple[LoggedRun, LoggedRun]:
    """The training and the grid."""
    training, grid = read_runs(written[0] / "out")
    return training, grid


def artifacts(run: LoggedRun, kind: str) -> list[dict[str, Any]]:
    return [each for each in run.of("artifact") if each["type"] == kind]


def synced(runs: Sequence[LoggedRun], address: str, folder: Path, home: Path) -> None:
    """``wandb sync`` of these runs to a server, called in a folder."""
    keyed = {"WANDB_API_KEY": 40 * "a", "WANDB_BASE_URL": address, "HOME": str(home)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | keyed
    command = [str(Path(sys.executable).with_name("wandb")), "sync", *(str(run.folder) for run in runs)]
    subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=60, check=True)


def test_a_grid_uses_the_very_version_that_the_training_put_out(runs: tuple[LoggedRun, LoggedRun]) -> None:
    (made,), (used,) = (artifacts(run, "model") for run in runs)
    assert made["name"] == used["name"] == "mnist-vqvae-noise0.5-seed1"
    assert made["digest"] == used["digest"]
    assert set(made["aliases"]) == set(used["aliases"]) == {CLASSIFIER, "latest"}
    assert (made.get("use_after_commit", False), used["use_after_commit"]) == (False, True)
    for each in (made, used):
        metadata = json.loads(each["metadata"])
        assert (metadata["weights"], metadata["epoch"], metadata["val/loss"]) == (WEIGHTS, 2, 0.5)


def test_a_grid_says_what_makes_it_suspicious(runs: tuple[LoggedRun, LoggedRun]) -> None:
    grid = runs[1]
    assert (grid.summary["suspicious"], grid.summary["checks"]) == (1, check_sentences(SUSPICIOUS)[0])
    (row,) = grid.table("findings")
    assert row == {"check": SUSPECT.name, "cell": str(SUSPECT.where), "reason": SUSPECT.message}


def test_a_grid_puts_out_its_report(runs: tuple[LoggedRun, LoggedRun]) -> None:
    (report,) = artifacts(runs[1], "grid")
    assert report["name"] == f"grid-mnist-default-{CLASSIFIER}"
    (entry,) = report["manifest"]["contents"]
    assert entry["path"] == "index.html"
    assert Path(entry["local_path"]).read_text() == "a page"
    assert runs[1].config["classifier"] == WEIGHTS


def test_what_is_uploaded_later_is_copied_below_the_outputs(
    written: tuple[Path, Ended], runs: tuple[LoggedRun, LoggedRun]
) -> None:
    """A checkpoint may be overwritten before that, and some versions of W&B delete what they have uploaded."""
    entries = [entry for run in runs for each in run.of("artifact") for entry in each["manifest"]["contents"]]
    staging = written[0] / "out" / "wandb" / "artifacts" / "staging"
    assert {Path(entry["local_path"]).parent for entry in entries} == {staging}
    assert len([entry for entry in entries if entry["path"] == "weights.ckpt"]) == 2
    assert [path.read_bytes() for path in staging.iterdir()].count(b"weights") == 2
    assert not list((written[0] / "home").glob(".local/**/*"))


def test_weights_that_are_gone_cost_a_line_and_not_the_run(
    written: tuple[Path, Ended], runs: tuple[LoggedRun, LoggedRun]
) -> None:
    ended = written[1]
    (line,) = ended.stderr.splitlines()
    assert line.startswith("not logged to W&B: the use of the weights ")
    assert "gone.ckpt" in line
    assert ended.result["grids"] == [True, False]
    assert ended.result["left"] == ["index.html", "some.ckpt"]
    assert [run.exit_code for run in runs] == [0, 0]


def test_a_sync_uploads_the_weights_and_tells_that_the_grid_uses_them(
    written: tuple[Path, Ended], runs: tuple[LoggedRun, LoggedRun], tmp_path: Path
) -> None:
    training, grid = (run.start["run_id"] for run in runs)
    with serving() as server:
        synced(runs, server.address, tmp_path, tmp_path)
    made = [each["input"] for each in server.told("CreateArtifact") if each["input"]["artifactTypeName"] == "model"]
    assert {each["runName"] for each in made} == {training, None}  # who uses weights has not made them
    assert len({(each["artifactCollectionName"], each["digest"]) for each in made}) == 1
    (used,) = (each["input"] for each in server.told("UseArtifact"))
    assert (used["runName"], used["artifactID"]) == (grid, made[0]["digest"])
    assert server.uploads["weights.ckpt"] == b"weights"
    assert server.uploads["index.html"] == b"a page"


@pytest.mark.slow
def test_outputs_can_be_synced_from_where_they_were_copied_to(processes: Processes, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert processes.run("write_artifacts_here", first, home=tmp_path / "home").code == 0
    first.rename(second)
    runs = read_runs(second / "outputs")
    entries = [entry for run in runs for each in run.of("artifact") for entry in each["manifest"]["contents"]]
    assert {Path(entry["local_path"]).parent for entry in entries} == {Path("outputs/wandb/artifacts/staging")}
    with serving() as server:
        synced(runs, server.address, second, tmp_path / "home")
    assert server.uploads["weights.ckpt"] == b"weights"
    assert server.uploads["index.html"] == b"a page"
    assert any(name.endswith(".table.json") for name in server.uploads)


def test_names_are_those_of_checkpoints_and_such_that_wandb_takes() -> None:
    assert Weights(Path("x"), record_of("classifier", None, 0)).name == "mnist-classifier"
    assert Weights(Path("x"), record_of("vqvae", 0.0, 0)).name == "mnist-vqvae-noise0"
    assert artifact_name("grid-my data/β") == "grid-my-data-"
