"""What several rows are made of: settings, weights, data, processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

REPO = Path(__file__).resolve().parents[2]
NOISES = (0.0, 0.25, 0.5, 0.75)
CLASSIFIER = "classifier"
SPAWN = REPO / "tests" / "benchmarks" / "spawn.py"


@dataclass(frozen=True)
class Settings:
    """How a row is to be run."""

    rounds: int
    quick: bool  #: tiny sizes, to try things out
    output: Path
    checkpoints: Path  #: holds ``<data>/<model>.ckpt``
    data: Path  #: holds ``mnist/MNIST/raw``

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def checkpoint(self, model: str) -> Path:
        return self.checkpoints / "mnist" / f"{model}.ckpt"

    def overrides(self, outputs: Path) -> list[str]:
        """Makes a command write below ``outputs`` while it reads the data and weights that are there."""
        return [f"paths.outputs={outputs}", f"paths.checkpoints={self.checkpoints}", f"paths.data={self.data}"]


def vqvae_name(noise: float) -> str:
    return f"vqvae-noise{noise:g}"


VQVAES = tuple(vqvae_name(noise) for noise in NOISES)


def compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration that a command would have composed."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from src.workflows.command import CONFIG_PATH, PLUGINS, register_resolvers

    register_resolvers()
    if PLUGINS not in sys.path:
        sys.path.append(PLUGINS)
    if not GlobalHydra.instance().is_initialized():
        hydra.initialize_config_dir(CONFIG_PATH, version_base="1.3")
    return hydra.compose(name, list(overrides))


def test_images(settings: Settings, number: int) -> tuple[Any, Any]:
    """The first test images of MNIST, (number, 1, 28, 28) in [0, 1], and their labels."""
    from src.workflows.configured import data_from_config

    data = data_from_config(compose("sweep", settings.overrides(settings.output)).data)
    data.prepare_data()
    return data.test_set(number)


def ensure_weights(models: Collection[str], outputs: Path, output: Path) -> tuple[Path, str]:
    """A folder that holds ``models``: the trained ones, else small ones that are trained here.

    Returns:
        the folder, and a sentence that says which weights these are.
    """
    trained, small = outputs / "checkpoints", output / "checkpoints"
    if all((trained / "mnist" / f"{model}.ckpt").exists() for model in models):
        return trained, f"Weights: {_named(trained)}."
    for model in models:
        if not (small / "mnist" / f"{model}.ckpt").exists():
            print(f"training {model} at demo budget -> {_named(small)}", flush=True)
            _train_small(model, outputs / "data", small)
    return small, f"Weights: {_named(small)}, trained at demo budget for want of others."


def _named(folder: Path) -> str:
    return f"`{os.path.relpath(folder, REPO)}`"


def _train_small(model: str, data: Path, checkpoints: Path) -> None:
    chosen = (
        ["model=classifier"] if model == CLASSIFIER else ["model=vqvae", f"noise={model.removeprefix('vqvae-noise')}"]
    )
    with scratch(checkpoints) as outputs:
        paths = [f"paths.checkpoints={checkpoints}", f"paths.data={data}", f"paths.outputs={outputs}"]
        command = [sys.executable, "-m", "src.train", *chosen, "+experiment=demo", "logger=none", *paths]
        if run_group(command).returncode:
            raise RuntimeError(f"{' '.join(command)} failed")


@contextmanager
def scratch(near: Path) -> Iterator[Path]:
    """A fresh folder on the disk of ``near``, gone afterwards."""
    near.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=near))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Process:
    """What a command took, from its start to its exit."""

    seconds: float
    peak_mib: float  #: largest resident memory


def run_process(command: Sequence[str], **environment: str) -> Process:
    """Run ``command`` in a process of its own and measure it.

    Through a small launcher: a child's peak memory begins with that of the process it was forked from, and this one
    has PyTorch in it.

    Raises:
        RuntimeError: the command failed; with what it said.
    """
    launcher = [sys.executable, "-S", "-E", str(SPAWN), sys.executable, *command]
    done = run_group(launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return Process(**json.loads(done.stdout.splitlines()[-1]))


def run_group(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` in the repository, leaving neither child nor grandchild behind when this is interrupted."""
    with subprocess.Popen(command, cwd=REPO, text=True, start_new_session=True, **options) as process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def sweep(settings: Settings, outputs: Path, *overrides: str, **environment: str) -> Process:
    """``python -m src.sweep -m …`` into ``outputs``."""
    return run_process(["-m", "src.sweep", "-m", *overrides, *settings.overrides(outputs)], **environment)
