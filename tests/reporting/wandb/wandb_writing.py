"""Writes W&B runs, each function in a process of its own, and says how it went; and what they are compared with."""

import csv
import io
import json
import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from src.encoded_images import encode_images
from src.evaluation import (
    AttackSpec,
    Cell,
    CellSpec,
    Coordinates,
    DataSpec,
    DefenseSpec,
    Protocol,
    ThreatSpec,
)
from src.evaluation.grid import Grid, GridRow
from src.evaluation.sanity_checks import CheckReport, Finding
from src.evaluation.spec import content_key
from src.reporting.wandb.artifacts import Weights
from src.reporting.wandb.cells import log_cell, log_failure
from src.reporting.wandb.grid import log_grid
from src.reporting.wandb.settings import WandbSettings
from src.reporting.wandb.training import training_run
from src.training_record import TrainingRecord
from tests.wandb_reading import Ended, LoggedRun

WEIGHTS = "c0ffee" + 58 * "0"
CLASSIFIER = "c0ffee00"
SUSPECT = Finding("zero-gradient", Coordinates("mnist", "pgd", 0.3, "adaptive", "vqvae", 0.5, "default", 0), "a reason")
SUSPICIOUS = CheckReport((SUSPECT,), judged=4, probed=6, asked=6)
EXAMPLES = encode_images(torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0)))


def cell_at(where: Coordinates, correct: int, n: int = 60, steps: float = 10.0) -> Cell:
    """A cell with ``correct`` of ``n`` images right, as if computed."""
    attack = {"_target_": f"src.attacks.{where.attack}", "steps": steps} if where.eps else {"_target_": None}
    identity = {
        "data": {"name": where.data, "n": float(n)},
        "classifier": WEIGHTS,
        "attack": attack,
        "eps": where.eps,
        "defense": [{"_target_": "src.defenses.KMeansCompression", "k": 20.0}],
        "noise": where.noise,
        "name": where.defense,
        "seed": float(where.seed),
    }
    return Cell(
        key=content_key(identity),
        coordinates=where,
        n=n,
        outcomes="1" * correct + "0" * (n - correct),
        predictions=[0] * n,
        clean_accuracy=0.95,
        undefended_accuracy=1 / 3,
        perturbation_l2=where.eps * 23.1,
        perturbation_linf=where.eps,
        reconstruction_mse=0.0123,
        stages={"attack": 1.5, "purify": 0.1, "classify": 0.2},
        propagations={"forward": 10 * n, "backward": 10 * n} if where.eps else {},
        identity=identity,
        examples=dict.fromkeys(("original", "attacked", "purified"), EXAMPLES)
        | {"labels": [7] * 10, "predictions": [2] * 10},
        environment={"torch": "2.14.1"},
    )


def small_grid() -> Grid:
    """2 attacks × 3 eps × 3 columns; one cell missing; at eps 0 both attacks show the same cells."""
    rows = []
    for attack in ("fgsm", "ifgsm"):
        for eps in (0.0, 0.1, 0.3):
            for i, (defense, noise) in enumerate((("none", None), ("vqvae", 0.0), ("vqvae", 0.25))):
                where = Coordinates("mnist", attack, eps, "gray_box", defense, noise, "default", 0)
                shown = where if eps else replace(where, attack="fgsm")
                cell = cell_at(shown, 57 - i - int(100 * eps) - (7 if attack == "ifgsm" and eps else 0))
                is_missing = (attack, eps, noise) == ("ifgsm", 0.3, 0.25)
                rows.append(GridRow(where, cell.key, None if is_missing else cell))
    return Grid(tuple(rows))


def settings_for(outputs: str, **changes: Any) -> WandbSettings:
    return WandbSettings(Path(outputs), **changes)


def spec_of(cell: Cell) -> CellSpec:
    """A cell's specification."""
    where = cell.coordinates
    return CellSpec(
        data=DataSpec(where.data, "fingerprint", cell.n),
        classifier=cell.identity["classifier"],
        attack=AttackSpec(where.attack, {"_target_": where.attack}),
        eps=where.eps,
        threat=ThreatSpec(where.threat, {"_target_": where.threat}),
        defense=DefenseSpec(where.defense, {"_target_": where.defense}, where.noise),
        protocol=Protocol(where.protocol),
        seed=where.seed,
    )


def write_sweep(outputs: str, figure: str) -> dict[str, Any]:
    """Log a grid and its cells twice, and say how it went."""
    grid, settings, before = small_grid(), settings_for(outputs), dict(os.environ)
    figures = [Path(figure), Path(figure).with_name("absent.png")]
    logged, seconds = [], []
    for _ in range(2):
        for row in grid:
            begin = time.perf_counter()
            if row.cell:
                logged.append(log_cell(row.cell, row.coordinates, settings))
                seconds.append(time.perf_counter() - begin)
    grids = [log_grid(grid, figures, settings) for _ in range(2)]
    first, other = grid.rows[0], settings_for(outputs, project="other")
    other_project = log_cell(first.cell, first.coordinates, other)
    recounted = log_cell(replace(first.cell, outcomes=first.cell.outcomes[::-1]), first.coordinates, other)
    import wandb

    return {
        "logged": logged,
        "grids": grids,
        "other_project": other_project,
        "recounted": recounted,
        "seconds": seconds,
        "run": wandb.run is None,
        "environment": dict(os.environ) == before,
    }


def write_named(outputs: str) -> list[bool]:
    """Log to a place that is spelled out, as a configuration gives it: the folder as text, tags as a list."""
    settings = WandbSettings(
        outputs,  # type: ignore[arg-type]
        project="p",
        entity="e",
        group="g",
        tags=["a", "b"],  # type: ignore[arg-type]
        notes="why",
        job_type="j",
    )
    cell = cell_at(Coordinates("mnist", "pgd", 0.1, "adaptive", "kmeans", None, "report", 2), 30)
    unknown = replace(cell, identity={}, examples={}, environment={})
    return [
        log_cell(cell, cell.coordinates, settings),
        log_cell(unknown, replace(unknown.coordinates, seed=3), settings),
        log_grid(Grid((GridRow(cell.coordinates, cell.key, None),)), [], settings),
        log_grid(Grid(()), [], settings),
    ]


def write_failures(outputs: str) -> list[bool]:
    """A job that crashed, cells that cannot be logged, a folder that cannot be written; then the cells as they are."""
    cell = small_grid().rows[-2].cell
    assert cell
    settings, elsewhere = settings_for(outputs), settings_for(f"{outputs}/file")
    Path(outputs).mkdir()
    Path(outputs, "file").write_text("in the way")
    broken = replace(cell, examples={"original": {"shape": [1], "uint8": "?"}})
    crash = partial(log_failure, spec_of(cell), RuntimeError("out of memory"), settings)
    return [
        crash(),
        crash(),
        log_cell(broken, broken.coordinates, settings),
        log_cell(cell, cell.coordinates, elsewhere),
        log_grid(small_grid(), [], elsewhere),
        log_cell(cell, cell.coordinates, replace(settings, mode="nonsense")),
        log_cell(cell, cell.coordinates, settings),
    ]


def write_cells(outputs: str, count: int) -> list[bool]:
    """Log the first cells of the grid."""
    rows = [row for row in small_grid() if row.cell][:count]
    return [log_cell(row.cell, row.coordinates, settings_for(outputs)) for row in rows if row.cell]


def write_at_once(outputs: str) -> list[list[bool]]:
    """Log the same cells from two processes at a time."""
    import wandb

    results = [Path(f"{outputs}.{i}") for i in range(2)]
    children = []
    for result in results:
        children.append(os.fork())
        if not children[-1]:
            try:
                result.write_text(json.dumps(write_cells(outputs, 6)))
                wandb.teardown()
            finally:
                os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads(result.read_text()) for result in results]


def write_beside_a_run(outputs: str) -> dict[str, Any]:
    """Log a cell and a grid while the caller has a run of its own open."""
    import wandb

    with wandb.init(dir=outputs, project="mine", mode="offline", settings=wandb.Settings(silent=True)) as mine:
        row = small_grid().rows[0]
        assert row.cell
        log_cell(row.cell, row.coordinates, settings_for(outputs))
        log_grid(small_grid(), [], settings_for(outputs))
        untouched = wandb.run is mine
        mine.log({"loss": 1.0})
    return {"untouched": untouched}


def write_artifacts(outputs: str) -> dict[str, Any]:
    """A training that puts out weights, and a suspicious grid that uses them, others that are gone, and puts out its
    report."""
    settings, folder = settings_for(outputs), Path(outputs, "files")
    folder.mkdir(parents=True)
    checkpoint, page = folder / "some.ckpt", folder / "index.html"
    checkpoint.write_bytes(b"weights")
    page.write_text("a page")
    trained = Weights(checkpoint, record_of("vqvae", noise=0.5, seed=1))
    gone = Weights(folder / "gone.ckpt", record_of("classifier", noise=None, seed=0))
    with training_run("a training", "mnist", {}, settings) as logger:
        assert logger
        logger.log_trained(trained.checkpoint, trained.record)
    checkpoint.chmod(0o444)
    files = {"index.html": page, "figures/none.png": folder / "none.png"}
    grids = [log_grid(small_grid(), [], settings, files, [gone, trained], SUSPICIOUS) for _ in range(2)]
    return {"grids": grids, "left": sorted(path.name for path in folder.iterdir())}


def write_artifacts_here(folder: str) -> dict[str, Any]:
    """:func:`write_artifacts`, to ``outputs`` in this folder as commands do, whose outputs are named relatively."""
    Path(folder).mkdir()
    os.chdir(folder)
    return write_artifacts("outputs")


def record_of(model: str, noise: float | None, seed: int) -> TrainingRecord:
    epochs = [{"epoch": epoch, "step": 10.0 * epoch, "val/loss": 1 / epoch} for epoch in (1, 2)]
    return TrainingRecord(model, "mnist", noise, seed, WEIGHTS, seconds=7.5, losses=[(20, 0.5)], epochs=epochs)


def write_and_die(outputs: str) -> None:
    """Be killed in the middle of writing a run."""
    import src.reporting.wandb.cells as module

    def die(cell: Cell) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    module._numbers = die
    write_cells(outputs, 1)


def csv_rows(grid: Grid) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(grid.to_csv())))


@dataclass(frozen=True)
class Sweep:
    """What :func:`write_sweep` left behind."""

    outputs: Path
    ended: Ended
    runs: list[LoggedRun]

    @property
    def cells(self) -> list[LoggedRun]:
        places = ("cell", "defense-vqvae")
        return [run for run in self.runs if (run.start["job_type"], run.start["project"]) == places]

    @property
    def grid(self) -> LoggedRun:
        (run,) = (run for run in self.runs if run.start["job_type"] == "grid")
        return run
