"""A job of a sweep: one cell."""

import json
import logging
import time
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.attacks import check_adversarial
from src.errors import UserError, in_a_line, in_code_of_the_users
from src.evaluation import Cell, CellSpec, CellStore, Coordinates, SweepManifest
from src.evaluation.evaluator import Evaluator
from src.evaluation.sanity_checks import Probe, evidence_of, findings, probes
from src.files import write_text
from src.reporting.wandb.cells import log_cell, log_failure
from src.workflows.building import build
from src.workflows.cells import components_for, evaluator_for, spec_of
from src.workflows.planning import planned, probing_from, warn_of_settings
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)


def run_job(config: DictConfig) -> None:
    """A Hydra job: compute one cell, keep a copy in the job's folder, tell of it."""
    hydra = HydraConfig.get()
    begin_time = time.perf_counter()
    manifest = _manifest(hydra)
    job = planned(hydra.sweep.dir, hydra.overrides.task) if manifest else None
    if job is None:
        config = checked(config, SweepSettings)
    evaluator = evaluator_for(config)
    spec = job.spec if job else spec_of(config, components_for(config))
    try:
        if manifest is None:
            warn_of_settings(hydra.overrides.task, [config], [spec], components_for(config))
            evaluator.rehearse(spec)
        cell = evaluator(spec)
    except Exception as error:
        if hydra.mode == RunMode.MULTIRUN or not isinstance(error, UserError):  # else the last line says it
            log.error("failed: %s: %s", spec.coordinates, " ".join(str(error).split()) or type(error).__name__)
        if not isinstance(error, UserError):
            log.exception("%s; the trace follows", _whose(error, spec))
        if config.logger.cells:
            log_failure(spec, error, build(config.logger.cells))
        raise
    write_text(Path(hydra.runtime.output_dir) / "cell.json", json.dumps(cell.to_json()) + "\n")
    progress = _progress(manifest, evaluator.cells) if manifest else ""
    coordinates = _place(manifest, spec) if manifest else spec.coordinates
    log.info("%s%s (%.1f s)", progress, describe(cell, coordinates), time.perf_counter() - begin_time)
    if config.logger.cells:
        log_cell(cell, coordinates, build(config.logger.cells))
    checked_by = job.probes if job else probes(spec, probing_from(config))
    _probe(spec, checked_by, evaluator)
    if manifest is None and spec.eps and not spec.is_proof:  # a grid's report has them all
        _warn(cell, checked_by, evaluator.cells)


def _whose(error: Exception, spec: CellSpec) -> str:
    """Who can mend an error: the user whose component failed or broke its promise, or we."""
    if location := in_code_of_the_users(error):
        return f"this comes from code that is no part of defense-vqvae ({location})"
    raised_in = traceback.extract_tb(error.__traceback__)[-1].name
    attacks = [spec.attack, *spec.attack.members.values()]
    targets = [str(attack.component.get("_target_")) for attack in attacks if attack.component]
    foreign = [target for target in targets if not target.startswith("src.")]
    if raised_in == check_adversarial.__name__ and foreign:
        return f"{' or '.join(foreign)}, an attack that is no part of defense-vqvae, breaks its promise"
    return "this is a bug of defense-vqvae"


def _probe(spec: CellSpec, checked_by: Sequence[Probe], evaluator: Evaluator) -> None:
    """Compute the cells by which this one is checked. One that fails costs a check, which the report says, and not the
    cell."""
    for probe in checked_by:
        try:
            evaluator(probe.spec)
        except Exception as error:
            log.warning("%s is not checked (%s): %s", spec.coordinates, probe.kind, in_a_line(error))


def _warn(cell: Cell, checked_by: Sequence[Probe], store: CellStore) -> None:
    """Say what makes a single cell suspicious."""
    probed: dict[str, dict[str, Cell]] = {}
    for probe in checked_by:
        if probe_cell := store.get(probe.spec.key):
            probed.setdefault(probe.of, {})[probe.kind] = probe_cell
    for evidence in evidence_of([cell], probed, store.get):
        for finding in findings(evidence):
            log.warning("suspicious, see docs/checks.md: %s: %s", finding.name, finding.message)


def describe(cell: Cell, coordinates: Coordinates) -> str:
    """A cell in one line."""
    low, high = cell.interval
    return f"{coordinates}: {cell.accuracy:.2%} [{low:.2%}, {high:.2%}] of {cell.n}"


def _manifest(hydra: HydraConf) -> SweepManifest | None:
    """Of the sweep, if this job is one of a grid that our sweeper has planned, and whose components it has tried; other
    sweepers of Hydra's start jobs that stand alone."""
    file = Path(hydra.sweep.dir) / SweepManifest.FILE
    if hydra.mode != RunMode.MULTIRUN or not file.exists():
        return None
    return _read_manifest(file.parent, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_manifest(folder: Path, written: int) -> SweepManifest:
    """The manifest of a sweep, read once for all jobs of this process."""
    return SweepManifest.load(folder)


def _place(manifest: SweepManifest, spec: CellSpec) -> Coordinates:
    """Where a cell stands in the grid of its sweep."""
    places = [coordinates for coordinates, key in manifest.rows if key == spec.key]
    return spec.coordinates if spec.coordinates in places or not places else places[0]


def _progress(manifest: SweepManifest, store: CellStore) -> str:
    """How many cells of how many there are by now, and the time left if the others come as fast as those so far.
    Counted in the store, because this process may be one of several."""
    done = max(1, manifest.finished(store))
    remaining = (time.time() - manifest.started) / done * (manifest.pending - done)
    words = f"{remaining / 60:.0f} min" if remaining >= 90 else f"{max(remaining, 0):.0f} s"
    return f"[{done}/{manifest.pending}, {words} left] "
