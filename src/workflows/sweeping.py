"""A sweep: each of its jobs, and what is made of the cells at its end."""

import json
import logging
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from src.attacks import check_adversarial
from src.errors import UserError, in_a_line, in_code_of_the_users
from src.evaluation import Cell, CellSpec, CellStore, Coordinates, Grid, Request
from src.evaluation.evaluator import Evaluator
from src.evaluation.grid import latest_sweep, next_number
from src.evaluation.suspicion import BROKEN, Suspicions, probes
from src.files import write_text
from src.models.record import TrainingRecord
from src.reporting.analysis.certified import CertifiedSet, load_certified, of_grid
from src.reporting.index import INDEX, KEPT, write_index
from src.reporting.report import Report, copy_report, write_report
from src.reporting.terminal import print_certified, print_comparison, print_grid, print_suspicions
from src.reporting.wandb.cells import log_cell, log_failure
from src.reporting.wandb.grid import log_grid
from src.reporting.wandb.settings import WandbSettings
from src.workflows.cells import cell_spec, components_for, evaluator_for
from src.workflows.configured import build
from src.workflows.lineage import weights_behind
from src.workflows.planning import probing_from
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)

#: Missing cells named one by one at the end of a sweep.
NAMED = 12


def run_job(config: DictConfig) -> None:
    """A Hydra job: compute one cell, keep a copy in the job's folder, tell of it."""
    hydra = HydraConfig.get()
    begin_time = time.perf_counter()
    config = checked(config, SweepSettings)
    evaluator = evaluator_for(config)
    spec = cell_spec(config, components_for(config))
    try:
        if not _planned(hydra):
            evaluator.rehearse(spec)
        cell = evaluator(spec)
    except Exception as error:
        log.error("failed: %s: %s", spec.coordinates, " ".join(str(error).split()) or type(error).__name__)
        if not isinstance(error, UserError):
            log.exception("%s; the trace follows", _whose(error, spec))
        if config.logger.cells:
            log_failure(spec, error, build(config.logger.cells))
        raise
    write_text(Path(hydra.runtime.output_dir) / "cell.json", json.dumps(cell.to_json()) + "\n")
    progress = _progress(hydra, evaluator.cells)
    where = _place(hydra, spec)
    log.info("%s%s (%.1f s)", progress, describe(cell, where), time.perf_counter() - begin_time)
    if config.logger.cells:
        log_cell(cell, where, build(config.logger.cells))
    _probe(spec, evaluator, config)


def _whose(error: Exception, spec: CellSpec) -> str:
    """Who can mend an error: the user whose component failed or broke its promise, or we."""
    if where := in_code_of_the_users(error):
        return f"this comes from code that is no part of defense-vqvae ({where})"
    raised_in = traceback.extract_tb(error.__traceback__)[-1].name
    attacks = [spec.attack, *spec.attack.members.values()]
    targets = [str(attack.component.get("_target_")) for attack in attacks if attack.component]
    theirs = [target for target in targets if not target.startswith("src.")]
    if raised_in == check_adversarial.__name__ and theirs:
        return f"{' or '.join(theirs)}, an attack that is no part of defense-vqvae, breaks its promise"
    return "this is a bug of defense-vqvae"


def _probe(spec: CellSpec, evaluator: Evaluator, config: DictConfig) -> None:
    """Compute the cells by which this one is checked. One that fails costs a check, which the report says, and not the
    cell."""
    for probe in probes(spec, probing_from(config)):
        try:
            evaluator(probe.spec)
        except Exception as error:
            log.warning("%s is not checked (%s): %s", spec.coordinates, probe.kind, in_a_line(error))


def describe(cell: Cell, coordinates: Coordinates) -> str:
    """A cell in one line."""
    low, high = cell.interval
    return f"{coordinates}: {cell.accuracy:.2%} [{low:.2%}, {high:.2%}] of {cell.n}"


def _planned(hydra: HydraConf) -> bool:
    """Whether this job is one of a grid that our sweeper has planned, and whose components it has tried; other sweepers
    of Hydra's start jobs that stand alone."""
    return hydra.mode == RunMode.MULTIRUN and (Path(hydra.sweep.dir) / Request.FILE).exists()


def _place(hydra: HydraConf, spec: CellSpec) -> Coordinates:
    """Where a cell stands in the grid of its sweep."""
    rows = Request.load(Path(hydra.sweep.dir)).rows if _planned(hydra) else ()
    places = [where for where, key in rows if key == spec.key]
    return spec.coordinates if spec.coordinates in places or not places else places[0]


def _progress(hydra: HydraConf, store: CellStore) -> str:
    """How many cells of how many there are by now, and the time left if the others come as fast as those so far; empty
    for a single one. Counted in the store, because this process may be one of several."""
    if not _planned(hydra):
        return ""
    request = Request.load(Path(hydra.sweep.dir))
    done = max(1, request.finished(store))
    left = (time.time() - request.started) / done * (request.pending - done)
    words = f"{left / 60:.0f} min" if left >= 90 else f"{max(left, 0):.0f} s"
    return f"[{done}/{request.pending}, {words} left] "


def report(config: DictConfig, folder: Path | None, compare_published: bool | None = None) -> Grid:
    """Make tables, figures, page and W&B grid of a sweep's stored cells; computes nothing.

    Args:
        config: with ``paths`` and ``logger``.
        folder: the sweep's folder; None is the newest.
        compare_published: show the published numbers beside ours; None: as the sweep was run.

    Raises:
        UserError: there is no sweep to report on.
    """
    outputs = Path(config.paths.outputs)
    folder = folder or latest_sweep(outputs / "sweeps")
    if folder is None:
        raise UserError(f"no sweep under {outputs / 'sweeps'}; run one with: python -m src.sweep -m")
    made = refresh(outputs, folder, Path(config.paths.checkpoints), compare_published)
    grid, console = made.grid, Console()
    print_grid(grid, console)
    print_suspicions(made.suspicions, console)
    if made.compared:
        print_comparison(grid, console)
    print_certified(made.certified, console)
    if config.logger.cells:
        _log_to_wandb(grid, made.written, Path(config.paths.checkpoints), build(config.logger.cells))
    log.info("report: %s", made.written.folder / "index.html")
    log.info("all sweeps: %s", outputs / "sweeps" / INDEX)
    for finding in made.suspicions.findings:
        if finding.name == BROKEN:
            raise UserError(finding.message)
    return grid


@dataclass(frozen=True)
class Refreshed:
    """A report as it was just written."""

    grid: Grid
    compared: bool  #: whether the published numbers stand beside it
    certified: list[CertifiedSet]  #: the certificates in it
    suspicions: Suspicions
    written: Report


def refresh(outputs: Path, folder: Path, checkpoints: Path, compare_published: bool | None = None) -> Refreshed:
    """Write the report of a sweep's stored cells, and of the certificates on its data, without telling anybody.

    Args:
        outputs: where cells and certificates lie. The report goes into the sweep's folder, and that of the newest
            sweep to ``outputs/report`` as well.
        folder: the sweep's.
        checkpoints: where the networks lie, with the records of their training.
        compare_published: as for :func:`report`.

    Raises:
        UserError: there is no sweep in ``folder``, or the report cannot be written.
    """
    request = Request.load(folder)
    compared = request.compare_published if compare_published is None else compare_published
    store = CellStore(outputs / "cells")
    grid, suspicions = request.grid(store), request.suspicions(store)
    certified = of_grid(load_certified(outputs / "certified"), grid)
    records = _training_records(checkpoints, grid)
    newest = request.number + 1 >= next_number(outputs / "sweeps")
    place = outputs / "report" if newest else folder / KEPT
    written = write_report(grid, records, place, compared, suspicions, certified)
    if newest:
        copy_report(written, folder / KEPT)
    write_index(outputs / "sweeps", store)
    return Refreshed(grid, compared, certified, suspicions, written)


def collect(config: DictConfig, folder: Path) -> None:
    """Report on a sweep that has ended, well or not.

    Raises:
        UserError: cells are missing; names them.
    """
    grid = report(config, folder)
    if not grid.missing:
        return
    for row in grid.missing[:NAMED]:
        log.error("missing: %s", row.coordinates)
    if len(grid.missing) > NAMED:
        log.error("missing: … and %d more, see grid.csv", len(grid.missing) - NAMED)
    raise UserError(
        f"{len(grid.missing)} of {len(grid)} cells are missing; the same command computes them, and only them"
    )


def _log_to_wandb(grid: Grid, written: Report, checkpoints: Path, settings: WandbSettings) -> None:
    """Log the rows that have no run yet, and the grid as a whole with its report and the weights behind it."""
    for row in grid:
        if row.cell is not None:
            log_cell(row.cell, row.coordinates, settings)
    figures = [path for path in written.paths if path.suffix == ".png"]
    files = {path.relative_to(written.folder).as_posix(): path for path in written.paths}
    weights = weights_behind([row.cell.identity for row in grid if row.cell], checkpoints)
    log_grid(grid, figures, settings, files, weights)


def _training_records(checkpoints: Path, grid: Grid) -> list[TrainingRecord]:
    """The training records of the grid's data sets; damaged ones are named and left out."""
    records = []
    evaluated = {row.cell.identity["data"]["name"] for row in grid if row.cell}
    for data in sorted(evaluated):
        for path in sorted((checkpoints / data).glob("*.json")):
            try:
                records.append(TrainingRecord.load(path))
            except (ValueError, OSError) as error:
                log.warning("%s is left out of the report: %s", path, error)
    return records
