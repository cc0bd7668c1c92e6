"""A small world on disk: a slice of real MNIST, and the real commands run on it."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_server import CommandServer, StartedCommand
from tests.conftest import REPO
from tests.shared_work import made_once, shared_folder

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., StartedCommand]

#: Without the extra runs by which a grid is checked; test_adaptive.py has them.
GRID = ("-m", "attack=fgsm,ifgsm", "eps=0,0.2", "noise=0,0.5", "checks.images=0")
USERS_OWN = f"hydra.searchpath=[file://{REPO}/tests/workflows/conf]"


def read_grid(outputs: Path) -> list[dict[str, str]]:
    with (outputs / "report" / "grid.csv").open() as file:
        return list(csv.DictReader(file))


def cells(outputs: Path) -> dict[str, int]:
    """Names and times of the stored cells: a cell that is computed again gets another time."""
    return {path.stem: path.stat().st_mtime_ns for path in (outputs / "cells").glob("*.json")}


def copy_of(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    return folder


Small = Callable[[str, Path], list[str]]


@pytest.fixture(scope="session")
def small(slice_root: Path) -> Small:
    """``small("src.train", outputs)``: overrides that put a command on the slice of MNIST."""

    def overrides(module: str, outputs: Path) -> list[str]:
        data = [f"data.root={slice_root}", "data.source=null", "data.val_size=100"]
        return [*([] if module in ("src.report", "src.pack") else data), f"paths.outputs={outputs}"]

    return overrides


@pytest.fixture(scope="session")
def run_command(small: Small, command_server: CommandServer) -> Command:
    """``run_command("src.train", "model=classifier", outputs=…)``: a real command, in a fork of the command server."""

    def run(module: str, *arguments: str, outputs: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = command_server.run(module, *arguments, *small(module, outputs))
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def start_command(small: Small, command_server: CommandServer) -> Start:
    """As ``run_command``, without waiting for the end: a process that can be killed."""

    def start(module: str, *arguments: str, outputs: Path) -> StartedCommand:
        return command_server.start(module, *arguments, *small(module, outputs))

    return start


@pytest.fixture(scope="session")
def run_process(small: Small) -> Command:
    """As ``run_command``, in a process that starts from nothing. It takes seconds longer."""

    def run(module: str, *arguments: str, outputs: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments, *small(module, outputs)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def trained(run_command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a classifier and two VQ-VAEs, all badly trained and quickly. The networks are trained once
    for all test processes; each has a copy."""

    def train(outputs: Path) -> None:
        quick = ("model.epochs=1", "logger=none", "+experiment=demo")
        narrow = ("model.module.hidden=32", "model.module.residual_hidden=8", "model.module.num_embeddings=64")
        run_command("src.train", "model=classifier", *quick, outputs=outputs)
        for noise in ("0", "0.5"):
            run_command("src.train", "model=vqvae", f"noise={noise}", *quick, *narrow, outputs=outputs)

    trained = made_once(shared_folder(tmp_path_factory) / "trained", train)
    return copy_of(trained, tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="session")
def swept(trained: Path, run_command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An outputs folder after a sweep, and what the sweep said. One sweep for all test processes; each has a copy."""
    shared = shared_folder(tmp_path_factory)

    def sweep(said: Path) -> None:
        outputs = copy_of(trained, shared / "swept")
        said.write_text(run_command("src.sweep", *GRID, outputs=outputs).stdout)

    said = made_once(shared / "swept.said", sweep).read_text()
    outputs = tmp_path_factory.mktemp("swept") / "outputs"
    shutil.copytree(shared / "swept", outputs, symlinks=True)
    return outputs, said
