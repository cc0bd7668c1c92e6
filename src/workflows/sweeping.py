"""A job of a sweep: one cell."""

import json
import logging
import time
import traceback
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from src.attacks import check_adversarial
from src.errors import UserError, in_a_line, in_code_of_the_users
from src.evaluation import Cell, CellSpec, CellStore, Coordinates, SweepManifest
from src.evaluation.evaluator import Evaluator
from src.evaluation.sanity_checks import probes
from src.files import write_text
from src.reporting.wandb.cells import log_cell, log_failure
from src.workflows.building import build
from src.workflows.cells import cell_spec, components_for, evaluator_for
from src.workflows.planning import probing_from
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)


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
    return hydra.mode == RunMode.MULTIRUN and (Path(hydra.sweep.dir) / SweepManifest.FILE).exists()


def _place(hydra: HydraConf, spec: CellSpec) -> Coordinates:
    """Where a cell stands in the grid of its sweep."""
    rows = SweepManifest.load(Path(hydra.sweep.dir)).rows if _planned(hydra) else ()
    places = [where for where, key in rows if key == spec.key]
    return spec.coordinates if spec.coordinates in places or not places else places[0]


def _progress(hydra: HydraConf, store: CellStore) -> str:
    """How many cells of how many there are by now, and the time left if the others come as fast as those so far; empty
    for a single one. Counted in the store, because this process may be one of several."""
    if not _planned(hydra):
        return ""
    manifest = SweepManifest.load(Path(hydra.sweep.dir))
    done = max(1, manifest.finished(store))
    left = (time.time() - manifest.started) / done * (manifest.pending - done)
    words = f"{left / 60:.0f} min" if left >= 90 else f"{max(left, 0):.0f} s"
    return f"[{done}/{manifest.pending}, {words} left] "
