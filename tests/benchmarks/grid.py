"""The report's 90 cells through ``src.sweep``, against the loop a user would write around torchattacks."""

import csv
import json
import shutil
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Contender, Measurement, Task, Timed, compete
from tests.benchmarks.parts import CLASSIFIER, VQVAES, Settings, run_process, scratch, sweep

NEEDS = (CLASSIFIER, *VQVAES)
ABOUT = (
    "90 cells: FGSM, I-FGSM and MI-FGSM (10 steps, the gradient recomputed at each) × eps 0, 0.001, 0.005, 0.2, "
    "0.3 × no defense, K-means and four VQ-VAEs, with the report's protocol otherwise (noise at inference, no "
    "clipping, images that the bare classifier gets wrong count as wrong), on the first 150 test images. Ours: "
    "`python -m src.sweep -m +experiment=report …` into an empty folder, with its report, without W&B. Theirs: a "
    "script that attacks with torchattacks for each cell anew, then runs scikit-learn's K-means on one image after "
    "the other or the VQ-VAE, in batches of 100. Whole processes, imports included. Result: mean accuracy over the "
    "cells."
)
EPS = (0, 0.001, 0.005, 0.2, 0.3)
Accuracies = Mapping[tuple[str, float, str, float | None], float]
SOUND = ("iterative.refresh_gradient=true", "iterative.steps=10", "iterative.rel_step=null")


def measure(settings: Settings) -> Iterator[Measurement]:
    """The comparison, then how far the two sides' accuracies are apart."""
    eps, limit = ((0.3,), 10) if settings.quick else (EPS, 150)
    settings.output.mkdir(parents=True, exist_ok=True)
    with scratch(settings.output) as folder:
        ours = _Ours("ours", settings, folder, eps)
        loop = _UsersLoop("user's loop", settings, folder, eps)
        task = Task("grid", f"{18 * len(eps)} cells, {limit} images", "s", 1.0, _mean_accuracy)
        yield from compete(task, ours.contender(limit), [loop.contender(limit)], settings.rounds)
    if ours.seen and loop.seen:
        yield from _agreement(ours.seen, loop.seen, limit)


def _mean_accuracy(accuracies: Accuracies, seconds: float) -> str:
    return f"{statistics.mean(accuracies.values()):.1%}"


@dataclass
class _Side(ABC):
    """One of the two programs, and the accuracies that it found last."""

    name: str
    settings: Settings
    folder: Path  #: for what it writes
    eps: Sequence[float]
    seen: Accuracies = field(default_factory=dict)

    def contender(self, limit: int) -> Contender:
        return Contender(self.name, lambda: self.prepare(limit), warm_up=lambda: self.run(2))

    def prepare(self, limit: int) -> Callable[[], Timed]:
        return lambda: self.run(limit)

    @abstractmethod
    def run(self, limit: int) -> Timed:
        """Compute all cells on the first ``limit`` images in a process of its own."""


class _Ours(_Side):
    def run(self, limit: int) -> Timed:
        outputs = self.folder / "ours"
        shutil.rmtree(outputs, ignore_errors=True)
        grid = ("+experiment=report", "eps=" + ",".join(map(str, self.eps)), "defense=none,kmeans,vqvae", *SOUND)
        process = sweep(self.settings, outputs, *grid, f"limit={limit}", "logger=none")
        with (outputs / "report" / "grid.csv").open(encoding="utf-8", newline="") as file:
            self.seen = _by_cell(csv.DictReader(file))
        return Timed(process.seconds, self.seen)


class _UsersLoop(_Side):
    def prepare(self, limit: int) -> Callable[[], Timed]:
        import torchattacks  # noqa: F401  # whether it is there

        return super().prepare(limit)

    def run(self, limit: int) -> Timed:
        written, held = self.folder / "users.json", self.settings
        paths = ["--checkpoints", str(held.checkpoints / "mnist"), "--data", str(held.data / "mnist")]
        sizes = ["--eps", *map(str, self.eps), "--limit", str(limit), "--output", str(written)]
        process = run_process(["-m", "tests.benchmarks.users_loop", *paths, *sizes])
        self.seen = _by_cell(json.loads(written.read_text(encoding="utf-8")))
        return Timed(process.seconds, self.seen)


def _by_cell(rows: Any) -> Accuracies:
    def noise(row: Mapping[str, Any]) -> float | None:
        return None if row["noise"] in ("", None) else float(row["noise"])

    return {(row["attack"], float(row["eps"]), row["defense"], noise(row)): float(row["accuracy"]) for row in rows}


def _agreement(ours: Accuracies, theirs: Accuracies, limit: int) -> Iterator[Measurement]:
    """How far the accuracies are apart: of all cells, and of those where chance has a part in it and has none."""
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"the two sides computed different cells: {sorted(map(str, ours.keys() ^ theirs.keys()))}")
    noisy = {cell for cell in ours if cell[3]}
    groups = {"all": set(ours), "without noise at inference": ours.keys() - noisy, "with noise at inference": noisy}
    for name, cells in groups.items():
        apart = [abs(ours[cell] - theirs[cell]) * 100 for cell in cells]
        note = f"largest {max(apart):.1f}; one image is {100 / limit:.2g} points"
        what = f"mean difference of {len(cells)} accuracies ({name})"
        yield Measurement("grid", what, "points", statistics.mean(apart), note=note)
