"""The store, tested by breaking it: nothing is lost, nothing counted twice, bad files are named and made again."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.evaluation import Cell
from tests.conftest import REPO
from tests.workflows.conftest import Command

pytestmark = pytest.mark.slow

GRID = (
    *("-m", "attack=fgsm,ifgsm,mifgsm", "eps=0,0.1,0.2,0.3", "defense=none,kmeans,binarize,vqvae", "noise=0,0.5"),
    "checks.images=0",
)
ROWS, CELLS = 3 * 4 * 5, 5 + 3 * 3 * 5
KILLS = 20
USERS_OWN = f"hydra.searchpath=[file://{REPO}/tests/workflows/conf]"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(trained: Path, slice_root: Path) -> Start:
    """``start(*overrides, outputs=…)``: a sweep with the trained networks, in a process of its own."""

    def popen(*overrides: str, outputs: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "src.sweep", *overrides, "logger=none", f"paths.outputs={outputs}"]
        command += [f"paths.checkpoints={trained / 'checkpoints'}", f"data.root={slice_root}"]
        command += ["data.source=null", "data.val_size=100"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=REPO, **pipes)

    return popen


@pytest.fixture
def sweep(trained: Path, run_command: Command) -> Callable[..., str]:
    """``sweep(*overrides, outputs=…)``: what a sweep with the trained networks said, when it ended with ``status``."""

    def call(*overrides: str, outputs: Path, status: int = 0) -> str:
        checkpoints = f"paths.checkpoints={trained / 'checkpoints'}"
        done = run_command("src.sweep", *overrides, "logger=none", checkpoints, outputs=outputs, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        return said

    return call


def finished(process: subprocess.Popen[str]) -> str:
    """What a process said that must end well."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def stored(outputs: Path) -> dict[str, Cell]:
    """The cells on disk, each checked for consistency."""
    return {path.stem: Cell.from_json(json.loads(path.read_text())) for path in (outputs / "cells").glob("*.json")}


def predictions(outputs: Path) -> dict[str, list[int]]:
    return {key: cell.predictions for key, cell in stored(outputs).items()}


def accuracies(outputs: Path) -> list[str]:
    with (outputs / "report" / "grid.csv").open() as file:
        return [row["accuracy"] for row in csv.DictReader(file)]


@pytest.mark.very_slow
@pytest.mark.timeout(1200)
def test_killed_twenty_times_at_random_moments(start, tmp_path):
    expected, outputs, chance = tmp_path / "undisturbed", tmp_path / "killed", random.Random(0)
    finished(start(*GRID, outputs=expected))
    times: dict[str, int] = {}
    for _ in range(KILLS):
        process = start(*GRID, outputs=outputs)
        files = set(outputs.rglob("*"))
        while process.poll() is None and len(set(outputs.rglob("*")) - files) < chance.randint(1, 12):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = {path.stem: path.stat().st_mtime_ns for path in (outputs / "cells").glob("*.json")}
        assert {key: now[key] for key in times} == times  # nothing lost, nothing computed again
        assert stored(outputs).keys() == now.keys()  # and whatever is there is whole
        times = now
    finished(start(*GRID, outputs=outputs))
    assert predictions(outputs) == predictions(expected)
    assert len(stored(outputs)) == CELLS
    assert accuracies(outputs) == accuracies(expected)
    assert not list(outputs.glob("cells/.*.tmp")) + list(outputs.glob("adversarial/.*.tmp"))


def test_two_identical_sweeps_at_once_share_the_work(command_server, small, monkeypatch, trained, tmp_path):
    grid = ("-m", "attack=noted", "eps=0.1,0.2,0.3", "defense=none,noted", USERS_OWN)
    outputs, noted = tmp_path / "outputs", tmp_path / "noted"
    monkeypatch.setenv("NOTED", str(noted))
    checkpoints = f"paths.checkpoints={trained / 'checkpoints'}"
    command = ("src.sweep", *grid, "logger=none", checkpoints, *small("src.sweep", outputs))
    for done in command_server.run_at_once(command, command):
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(stored(outputs)) == 2 * (3 + 1)
    batches = 2  # 120 images in batches of 100
    assert len((tmp_path / "noted.attacks").read_text().splitlines()) == 3 * batches
    assert len((tmp_path / "noted.defenses").read_text().splitlines()) == (3 + 1) * batches
    assert len(list((outputs / "sweeps").glob("*/grid.json"))) == 2
    assert all(accuracies(outputs))


def test_damaged_files_are_named_and_made_again(sweep, tmp_path):
    grid = ("-m", "attack=fgsm", "eps=0,0.2", "defense=none,binarize")
    sweep(*grid, outputs=tmp_path)
    expected = predictions(tmp_path)
    (attacked,) = (
        path
        for path, cell in _cells(tmp_path)
        if cell.coordinates.eps and cell.coordinates.noise is None and cell.coordinates.defense == "none"
    )
    damaged = [attacked, *tmp_path.glob("adversarial/*.safetensors"), *tmp_path.glob("gradients/*.safetensors")]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-100])
    assert len(damaged) == 3
    said = sweep(*grid, outputs=tmp_path)
    assert all(f"{path.name} is damaged" in said for path in damaged)
    assert "1 cells to compute" in said
    assert predictions(tmp_path) == expected
    for path in damaged:
        assert len(path.read_bytes()) > 100
    assert "is damaged" not in sweep(*grid, outputs=tmp_path)


def _cells(outputs: Path) -> list[tuple[Path, Cell]]:
    return [(outputs / "cells" / f"{key}.json", cell) for key, cell in stored(outputs).items()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 900 kB: room for a gradient and an attacked set, not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_loses_nothing(sweep, tmp_path, small_disk):
    grid = ("-m", "attack=fgsm", "eps=0.1,0.2", "defense=none,binarize")
    sweep(*grid, outputs=tmp_path / "roomy")
    said = sweep(*grid, outputs=small_disk / "outputs", status=1)
    assert "cannot write" in said and "No space left" in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: ")
    kept = stored(small_disk / "outputs")  # all of them whole
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    sweep(*grid, outputs=small_disk / "outputs")
    assert predictions(small_disk / "outputs") == predictions(tmp_path / "roomy")
    assert kept.items() <= stored(small_disk / "outputs").items()
