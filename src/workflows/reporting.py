"""What is made of a sweep's stored cells: tables, figures, page, W&B grid. Computes nothing, and needs no PyTorch."""

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from src.errors import UserError
from src.evaluation import CellStore, Grid, SweepManifest
from src.evaluation.grid import latest_sweep, next_number
from src.evaluation.sanity_checks import BROKEN, CheckReport
from src.nested import texts
from src.reporting.analysis.certified import CertifiedSet, load_certified, of_grid
from src.reporting.analysis.facets import facets
from src.reporting.index import INDEX, KEPT, write_index
from src.reporting.report import Report, copy_report, write_report
from src.reporting.terminal import print_certified, print_check_report, print_comparison, print_grid, print_title
from src.reporting.wandb.cells import log_cell
from src.reporting.wandb.grid import log_grid
from src.reporting.wandb.settings import WandbSettings
from src.training_record import TrainingRecord
from src.workflows.building import build

log = logging.getLogger(__name__)

#: Missing cells named one by one at the end of a sweep.
NAMED = 12


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
    refreshed = refresh(outputs, folder, Path(config.paths.checkpoints), compare_published)
    grid, console = refreshed.grid, Console()
    print_grid(grid, console)
    print_check_report(refreshed.checks, console)
    if refreshed.compared:
        print_comparison(grid, console)
    print_certified(refreshed.certified, console)
    if refreshed.compared or refreshed.certified or len(facets(grid)) > 1:
        print_title(grid, console)
    if config.logger.cells:
        _log_to_wandb(refreshed, Path(config.paths.checkpoints), build(config.logger.cells))
    log.info("report: %s", refreshed.written.folder / "index.html")
    log.info("all sweeps: %s", outputs / "sweeps" / INDEX)
    for finding in refreshed.checks.findings:
        if finding.name == BROKEN:
            raise UserError(finding.message)
    return grid


@dataclass(frozen=True)
class Refreshed:
    """A report as it was just written."""

    grid: Grid
    compared: bool  #: whether the published numbers stand beside it
    certified: list[CertifiedSet]  #: the certificates in it
    checks: CheckReport
    written: Report


def refresh(outputs: Path, folder: Path, checkpoints: Path, compare_published: bool | None = None) -> Refreshed:
    """Write the report of a sweep's stored cells, and of its classifier's certificates on its data. Nobody is told.

    Args:
        outputs: where cells and certificates lie. The report goes into the sweep's folder, and that of the newest
            sweep to ``outputs/report`` as well.
        folder: the sweep's.
        checkpoints: where the networks lie, with the records of their training.
        compare_published: as for :func:`report`.

    Raises:
        UserError: there is no sweep in ``folder``, or the report cannot be written.
    """
    manifest = SweepManifest.load(folder)
    compared = manifest.compare_published if compare_published is None else compare_published
    store = CellStore(outputs / "cells")
    grid, checks = manifest.judged(store)
    certified = of_grid(load_certified(outputs / "certified"), grid)
    records = _training_records(checkpoints, grid)
    newest = manifest.number + 1 >= next_number(outputs / "sweeps")
    target = outputs / "report" if newest else folder / KEPT
    written = write_report(grid, records, target, compared, checks, certified)
    if newest:
        copy_report(written, folder / KEPT)
    write_index(outputs / "sweeps", store)
    return Refreshed(grid, compared, certified, checks, written)


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


def _log_to_wandb(refreshed: Refreshed, checkpoints: Path, settings: WandbSettings) -> None:
    """Log the rows that have no run yet, and the grid as a whole with its report and the weights behind it."""
    from src.workflows.lineage import weights_behind  # here, because it needs PyTorch

    grid, written = refreshed.grid, refreshed.written
    for row in grid:
        if row.cell is not None:
            log_cell(row.cell, row.coordinates, settings)
    figures = [path for path in written.paths if path.suffix == ".png"]
    files = {path.relative_to(written.folder).as_posix(): path for path in written.paths}
    weights = weights_behind([row.cell.identity for row in grid if row.cell], checkpoints)
    log_grid(grid, figures, settings, files, weights, refreshed.checks)


def _training_records(checkpoints: Path, grid: Grid) -> list[TrainingRecord]:
    """The training records of the networks behind the grid's cells; damaged ones are named and left out."""
    identities = [row.cell.identity for row in grid if row.cell]
    fingerprints = texts(identities)
    records = []
    for data in sorted({identity["data"]["name"] for identity in identities}):
        for path in sorted((checkpoints / data).glob("*.json")):
            try:
                record = TrainingRecord.load(path)
            except (ValueError, OSError) as error:
                log.warning("%s is left out of the report: %s", path, error)
            else:
                records += [record] if record.weights in fingerprints else []
    return records
