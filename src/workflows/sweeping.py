"""A sweep: what it asks for, each of its jobs, and what is made of the cells at its end."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.errors import UserError
from src.evaluation import Cell, CellSpec, CellStore, Coordinates, Grid, Request
from src.evaluation.grid import latest_sweep, next_number
from src.evaluation.suspicion import Finding, Probing, probes
from src.files import write_text
from src.models.record import TrainingRecord
from src.reporting.certified import CertifiedSet, load_certified, of_grid
from src.reporting.report import Report, write_report
from src.reporting.terminal import print_certified, print_comparison, print_findings, print_grid
from src.reporting.wandb_runs import WandbSettings, log_cell, log_failure, log_grid
from src.workflows.cells import bench_for, cell_spec
from src.workflows.composing import is_plain_value
from src.workflows.configured import build, number

log = logging.getLogger(__name__)

#: Missing cells named one by one at the end of a sweep.
NAMED = 12


@dataclass(frozen=True)
class Job:
    """One point of a sweep: its overrides, and the cell they come to."""

    overrides: tuple[str, ...]
    spec: CellSpec

    @property
    def coordinates(self) -> Coordinates:
        return self.spec.coordinates

    @property
    def key(self) -> str:
        return self.spec.key


def plan_jobs(
    points: Iterable[Sequence[str]], compose: Callable[[Sequence[str]], DictConfig], config: DictConfig
) -> list[Job]:
    """Check every point of a sweep before any is computed, and find the cell it asks for.

    A configuration is composed once for each choice of components; plain values such as eps are set in it afterwards.

    Args:
        points: the overrides of each point.
        compose: overrides → composed configuration.
        config: the sweep's own configuration.

    Raises:
        UserError: a value or checkpoint is no good, or two different cells would stand in one place of the grid.
        HydraException: a component does not exist.
    """
    bench = bench_for(config)
    composed: dict[tuple[str, ...], DictConfig] = {}
    jobs = []
    for point in points:
        values = [override for override in point if is_plain_value(override, config)]
        choice = tuple(override for override in point if override not in values)
        if choice not in composed:
            composed[choice] = compose(choice)
        for override in OverridesParser.create().parse_overrides(values):
            OmegaConf.update(composed[choice], override.get_key_element(), override.value())
        spec = cell_spec(composed[choice], bench)
        jobs.append(Job(tuple(point), spec))
    return list(_without_repetition(jobs))


def _without_repetition(jobs: Iterable[Job]) -> Iterator[Job]:
    """Drop jobs that differ only in what does not matter to them, such as the noise of a defense without noise."""
    seen: dict[Coordinates, Job] = {}
    for job in jobs:
        first = seen.setdefault(job.coordinates, job)
        if first is job:
            yield job
        elif first.key != job.key:
            differing = " ".join(sorted(set(job.overrides) - set(first.overrides)))
            raise UserError(
                f"two cells would stand in one place of the grid ({job.coordinates}), which has no column for "
                f"{differing}: sweep that separately, or name the variants with attack.name=… or defense.name=…"
            )


def begin(jobs: Sequence[Job], config: DictConfig, folder: Path) -> list[Job]:
    """Write down what the sweep asks for; returns the jobs whose cells are not stored, one for each cell, in the order
    in which they are best run.

    Raises:
        UserError: an attack or defense that is needed fails on a single image, or the folder cannot be written.
    """
    evaluator = bench_for(config).evaluator
    store = evaluator.cells
    checked = {job.key: probes(job.spec, probing_from(config)) for job in jobs}
    members = {
        job.key: [member.key for member in job.spec.members.values()] for job in jobs if store.get(job.key) is None
    }
    needed = {key: {key, *members.get(key, ()), *(probe.spec.key for probe in checked[key])} for key in checked}
    absent = {key for key in set().union(*needed.values()) if store.get(key) is None}
    rows = {job.key for job in jobs}
    pending = {job.key: job for job in reversed(jobs) if needed[job.key] & absent}
    ordered = [job for job in jobs if pending.get(job.key) is job]
    for job in _cover(ordered):
        evaluator.rehearse(job.spec)
    Request(
        rows=tuple((job.coordinates, job.key) for job in jobs),
        pending=len(absent),
        started=time.time(),
        compare_published=bool(config.compare_published),
        number=next_number(Path(config.paths.outputs) / "sweeps"),
        probes=tuple((each.of, each.kind, each.spec.key) for key in checked for each in checked[key]),
        members=tuple(dict.fromkeys(key for keys in members.values() for key in keys)),
    ).save(folder)
    others = f" and {len(absent - rows)} that they rest on or are checked by" if absent - rows else ""
    log.info("%d rows, %d cells to compute%s -> %s", len(jobs), len(absent & rows), others, folder)
    return in_order_of_need(ordered)


def probing_from(config: DictConfig) -> Probing:
    """How cells are checked, from ``checks`` of the configuration.

    Raises:
        UserError: a value out of range.
    """
    images, eps = config.checks.images, number(config.checks, "eps", 0, 1, "an eps: L∞ budget in pixel units, 0 to 1")
    if not isinstance(images, int) or isinstance(images, bool) or images < 0:
        raise UserError(f"checks.images={images} is not a whole number, 0 or more")
    return Probing(images, eps)


def _cover(jobs: Sequence[Job]) -> Iterator[Job]:
    """As few jobs as there need be to see every attack and every defense, under every threat, once."""
    seen: set[tuple[object, ...]] = set()
    for job in jobs:
        at = job.coordinates
        parts: set[tuple[object, ...]] = {("defense", at.defense, at.noise, at.threat)}
        if at.eps:  # at eps 0 no attack is called
            parts.add(("attack", at.attack, at.threat))
        if parts - seen:
            seen |= parts
            yield job


def in_order_of_need(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, those first that make what others need, so that parallel workers seldom wait for one another, and
    worst cases, which need others, last.

    First the clean cells of bare classifiers, which every cell quotes. Then the clean cells of defenses, and for each
    set of attacked images that several jobs share one job that makes it: if there is one without a defense, that one,
    whose cell the others quote as well. Then the rest. Each of the three in the order given.
    """
    sharing: dict[str, list[Job]] = {}
    for job in jobs:
        if job.coordinates.eps and not job.spec.members:
            sharing.setdefault(job.spec.adversarial_key, []).append(job)
    makers = [min(group, key=lambda job: not _is_bare(job)) for group in sharing.values() if len(group) > 1]
    making = {job.key for job in makers}

    def rank(job: Job) -> int:
        if not job.coordinates.eps:
            return 0 if _is_bare(job) else 1
        if job.spec.members:
            return 3
        return 1 if job.key in making else 2

    return sorted(jobs, key=rank)


def _is_bare(job: Job) -> bool:
    """Whether a job's cell is of the classifier without a defense."""
    return job.key == job.spec.without_defense().key


def run_job(config: DictConfig) -> None:
    """A Hydra job: compute one cell, keep a copy in the job's folder, tell of it."""
    hydra = HydraConfig.get()
    begin_time = time.perf_counter()
    bench = bench_for(config)
    spec = cell_spec(config, bench)
    try:
        if hydra.mode != RunMode.MULTIRUN:  # a sweep has done this before its first job
            bench.evaluator.rehearse(spec)
        cell = bench.evaluator(spec)
        for probe in probes(spec, probing_from(config)):
            bench.evaluator(probe.spec)
    except Exception as error:
        log.error("failed: %s: %s", spec.coordinates, " ".join(str(error).split()) or type(error).__name__)
        if not isinstance(error, UserError):
            log.exception("this is a bug; its trace follows")
        if config.logger.cells:
            log_failure(spec, error, build(config.logger.cells))
        raise
    write_text(Path(hydra.runtime.output_dir) / "cell.json", json.dumps(cell.to_json()) + "\n")
    progress = _progress(hydra, bench.evaluator.cells)
    log.info("%s%s (%.1f s)", progress, describe(cell, spec.coordinates), time.perf_counter() - begin_time)
    if config.logger.cells:
        log_cell(cell, spec.coordinates, build(config.logger.cells))


def describe(cell: Cell, coordinates: Coordinates) -> str:
    """A cell in one line."""
    low, high = cell.interval
    return f"{coordinates}: {cell.accuracy:.2%} [{low:.2%}, {high:.2%}] of {cell.n}"


def _progress(hydra: HydraConf, store: CellStore) -> str:
    """How many cells of how many there are by now, and the time left if the others come as fast as those so far; empty
    for a single one. Counted in the store, because this process may be one of several."""
    if hydra.mode != RunMode.MULTIRUN:
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
    made = refresh(outputs, folder, compare_published)
    grid, console = made.grid, Console()
    print_grid(grid, console)
    print_findings(made.suspicions, console)
    if made.compared:
        print_comparison(grid, console)
    print_certified(made.certified, console)
    if config.logger.cells:
        figures = [path for path in made.written.paths if path.suffix == ".png"]
        _log_to_wandb(grid, figures, build(config.logger.cells))
    log.info("report: %s", outputs / "report" / "index.html")
    return grid


@dataclass(frozen=True)
class Refreshed:
    """A report as it was just written."""

    grid: Grid
    compared: bool  #: whether the published numbers stand beside it
    certified: list[CertifiedSet]  #: the certificates in it
    suspicions: list[Finding]  #: reasons not to believe the grid
    written: Report


def refresh(outputs: Path, folder: Path, compare_published: bool | None = None) -> Refreshed:
    """Write the report of a sweep's stored cells, and of the certificates on its data, without telling anybody.

    Args:
        outputs: where cells, certificates and checkpoints lie, and where the report goes.
        folder: the sweep's.
        compare_published: as for :func:`report`.

    Raises:
        UserError: there is no sweep in ``folder``, or the report cannot be written.
    """
    request = Request.load(folder)
    compared = request.compare_published if compare_published is None else compare_published
    store = CellStore(outputs / "cells")
    grid, suspicions = request.grid(store), request.findings(store)
    certified = of_grid(load_certified(outputs / "certified"), grid)
    records = _training_records(outputs / "checkpoints", grid)
    written = write_report(grid, records, outputs / "report", compared, suspicions, certified)
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


def _log_to_wandb(grid: Grid, figures: list[Path], settings: WandbSettings) -> None:
    """Log the rows that have no run yet, and the grid as a whole."""
    for row in grid:
        if row.cell is not None:
            log_cell(row.cell, row.coordinates, settings)
    log_grid(grid, figures, settings)


def _training_records(checkpoints: Path, grid: Grid) -> list[TrainingRecord]:
    """The training records of the grid's data sets; damaged ones are named and left out."""
    records = []
    for data in grid.values("data"):
        for path in sorted((checkpoints / data).glob("*.json")):
            try:
                records.append(TrainingRecord.load(path))
            except (ValueError, OSError) as error:
                log.warning("%s is left out of the report: %s", path, error)
    return records
