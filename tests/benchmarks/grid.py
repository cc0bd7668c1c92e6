"""The report's 90 cells through ``src.sweep``, against the loop a user would write around torchattacks."""

import csv
import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.harness import Contender, Measurement, Task, Timed, compete
from tests.benchmarks.parts import CLASSIFIER, VQVAES, Settings, run_process, scratch, sweep

NEEDS = (CLASSIFIER, *VQVAES)
ABOUT = (
    "90 cells: FGSM, I-FGSM and MI-FGSM (10 steps, the gradient recomputed at each) × eps 0, 0.001, 0.005, 0.2, 0.3 × no "
    "defense, K-means and four VQ-VAEs, with the report's protocol otherwise (noise at inference, no clipping, images "
    "that the bare classifier gets wrong count as wrong), on the first 200 test images. Ours: `python -m src.sweep -m "
    "+experiment=report …` into an empty folder, with its report, without W&B. Theirs: a script that attacks with "
    "torchattacks for each cell anew, then runs scikit-learn's K-means on one image after the other or the VQ-VAE, in "
    "batches of 100. Whole processes, imports included. Result: mean accuracy over the cells."
)
Accuracies = Mapping[tuple[str, float, str, float | None], float]
SOUND = ("iterative.refresh_gradient=true", "iterative.steps=10", "iterative.rel_step=null")


def measure(settings: Settings) -> Iterator[Measurement]:
    """The comparison, then how far the two sides' accuracies are apart."""
    limit = settings.size(200, 10)
    seen: dict[str, Accuracies] = {}
    settings.output.mkdir(parents=True, exist_ok=True)
    with scratch(settings.output) as folder:
        sides = [
            Contender(
                name,
                lambda side=side: lambda: side(settings, folder, limit),
                warm_up=lambda side=side: side(settings, folder, 2),  # files and byte code into the cache
            )
            for name, side in (("ours", _ours), ("user's loop", _users_loop))
        ]

        def remember(name: str, side: Contender) -> Contender:
            def prepare() -> Callable[[], Timed]:
                run = side.prepare()

                def recorded() -> Timed:
                    outcome: Timed = run()
                    seen[name] = outcome.result
                    return outcome

                return recorded

            return Contender(side.name, prepare, side.warm_up)

        task = Task("grid", f"90 cells, {limit} images", "s", 1.0, _mean_accuracy)
        ours, peer = (remember(side.name, side) for side in sides)
        yield from compete(task, ours, [peer], settings.rounds)
    if len(seen) == 2:
        yield _agreement(seen["ours"], seen["user's loop"], limit)


def _mean_accuracy(accuracies: Accuracies, seconds: float) -> str:
    return f"{statistics.mean(accuracies.values()):.1%}"


def _ours(settings: Settings, folder: Path, limit: int) -> Timed:
    outputs = folder / "ours"
    shutil.rmtree(outputs, ignore_errors=True)
    grid = ("+experiment=report", "defense=none,kmeans,vqvae", f"limit={limit}", "logger=none", *SOUND)
    process = sweep(settings, outputs, *grid)
    with (outputs / "report" / "grid.csv").open(encoding="utf-8", newline="") as file:
        return Timed(process.seconds, _by_cell(csv.DictReader(file)))


def _users_loop(settings: Settings, folder: Path, limit: int) -> Timed:
    written = folder / "users.json"
    arguments = ["--checkpoints", str(settings.checkpoints / "mnist"), "--data", str(settings.data / "mnist")]
    command = ["-m", "tests.benchmarks.users_loop", *arguments, "--limit", str(limit), "--output", str(written)]
    process = run_process(command)
    return Timed(process.seconds, _by_cell(json.loads(written.read_text(encoding="utf-8"))))


def _by_cell(rows: Any) -> Accuracies:
    def noise(row: Mapping[str, Any]) -> float | None:
        return None if row["noise"] in ("", None) else float(row["noise"])

    return {(row["attack"], float(row["eps"]), row["defense"], noise(row)): float(row["accuracy"]) for row in rows}


def _agreement(ours: Accuracies, theirs: Accuracies, limit: int) -> Measurement:
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"the two sides computed different cells: {sorted(map(str, ours.keys() ^ theirs.keys()))}")
    apart = [abs(ours[cell] - theirs[cell]) * 100 for cell in ours]
    mean, largest = statistics.mean(apart), max(apart)
    note = f"largest {largest:.1f}; one image is {100 / limit:g} points; the VQ-VAEs draw noise at inference"
    return Measurement("grid", f"mean difference of {len(apart)} accuracies", "points", mean, note=note)
