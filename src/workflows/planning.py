"""What a sweep is going to do: its points checked, the cells it asks for, and the order in which they are best run."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.evaluation import CellSpec, Coordinates, SweepManifest
from src.evaluation.grid import next_number
from src.evaluation.sanity_checks import Probe, Probing, probes
from src.files import clear_temporaries
from src.workflows.cells import components_for, evaluator_for, spec_of, unsearched_thresholds
from src.workflows.component_cache import ComponentCache
from src.workflows.composing import choice_and_values, parsed
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked, unread
from src.workflows.variants import labels

log = logging.getLogger(__name__)

#: What this process has planned, by the sweep's folder and a job's overrides less those of Hydra. Empty in a worker.
_planned: dict[tuple[str, tuple[str, ...]], "Job"] = {}


@dataclass(frozen=True)
class Job:
    """One point of a sweep: its overrides, and the cell they come to."""

    overrides: tuple[str, ...]
    spec: CellSpec
    coordinates: Coordinates  #: those of the spec, unless they have to tell apart values of one argument
    probes: tuple[Probe, ...] = ()  #: cells by which it is checked

    @property
    def key(self) -> str:
        return self.spec.key


def planned(folder: str, overrides: Sequence[str]) -> Job | None:
    """The job of a sweep with these overrides, if this process has planned it: its configuration is checked."""
    return _planned.get((folder, tuple(overrides)))


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
    components = components_for(checked(config, SweepSettings))
    composed: dict[tuple[str, ...], DictConfig] = {}
    points, specs, checks = list(points), [], []
    for point in points:
        choice, values = choice_and_values(point, config)
        if choice not in composed:
            composed[choice] = compose(choice)
        for override in parsed(values):
            OmegaConf.update(composed[choice], override.get_key_element(), override.value())
        job_config = checked(composed[choice], SweepSettings)
        specs.append(spec_of(job_config, components))
        checks.append(tuple(probes(specs[-1], probing_from(job_config))))
    warn_of_settings(dict.fromkeys(chain.from_iterable(points)), composed.values(), specs, components)
    jobs = map(Job, map(tuple, points), specs, labels(points, specs), checks)
    return list(_without_repetition(jobs))


def warn_of_settings(
    overrides: Iterable[str], configs: Iterable[DictConfig], specs: Iterable[CellSpec], components: ComponentCache
) -> None:
    """Name overrides that no component reads, and thresholds of a defense that a threshold search leaves out."""
    for line in unread(overrides, configs):
        log.warning("%s has no effect: no attack, defense or threat reads it here", line)
    lines = (unsearched_thresholds(spec, components.build) for spec in specs)
    for line in filter(None, dict.fromkeys(lines)):
        log.warning(line)


def _without_repetition(jobs: Iterable[Job]) -> Iterator[Job]:
    """Drop jobs that differ only in what does not matter to them, such as the noise of a defense without noise."""
    firsts: dict[Coordinates, Job] = {}
    for job in jobs:
        first = firsts.setdefault(job.coordinates, job)
        if first is job:
            yield job
        elif first.key != job.key:
            differing = " ".join(sorted(set(job.overrides) - set(first.overrides)))
            raise UserError(
                f"two cells would stand in one place of the grid ({job.coordinates}), which has no column for "
                f"{differing}: sweep that separately"
            )


def begin(jobs: Sequence[Job], config: DictConfig, folder: Path, arguments: Sequence[str] = ()) -> list[Job]:
    """Write down what the sweep asks for; returns the jobs whose cells are not stored, one for each cell, in the order
    in which they are best run.

    Args:
        arguments: of the command line, to be shown beside the report.

    Raises:
        UserError: an attack or defense that is needed fails on a single image, or the folder cannot be written.
    """
    config = checked(config, SweepSettings)
    evaluator = evaluator_for(config)
    store = evaluator.cells
    sweeps = Path(config.paths.outputs) / "sweeps"
    for path in {folder, *sweeps.glob("*"), *sweeps.glob("*/*")}:
        clear_temporaries(path)
    probing = {job.key: job.probes for job in jobs}
    members = {
        job.key: [member.key for member in job.spec.members.values()] for job in jobs if store.get(job.key) is None
    }
    needed = {key: {key, *members.get(key, ()), *(probe.spec.key for probe in probing[key])} for key in probing}
    absent = {key for key in set().union(*needed.values()) if store.get(key) is None}
    rows = {job.key for job in jobs}
    pending = {job.key: job for job in reversed(jobs) if needed[job.key] & absent}
    ordered = [job for job in jobs if pending.get(job.key) is job]
    for job in _cover(ordered):
        evaluator.rehearse(job.spec)
    SweepManifest(
        rows=tuple((job.coordinates, job.key) for job in jobs),
        pending=len(absent),
        started=time.time(),
        compare_published=config.compare_published,
        number=next_number(sweeps),
        command=" ".join(["python -m src.sweep -m", *arguments]),
        probes=tuple((probe.of, probe.kind, probe.spec.key) for key in probing for probe in probing[key]),
        members=tuple(dict.fromkeys(key for keys in members.values() for key in keys)),
        bare=tuple(dict.fromkeys(job.coordinates.defense for job in jobs if job.spec.is_bare)),
        learned=tuple(dict.fromkeys(job.coordinates.defense for job in jobs if job.spec.defense.learned)),
        claims={job.coordinates.defense: job.spec.defense.claim for job in jobs if job.spec.defense.claim},
        certificates=tuple(dict.fromkeys(job.coordinates.attack for job in jobs if job.spec.attack.is_certificate)),
        informed=tuple(dict.fromkeys(job.coordinates.threat for job in jobs if job.spec.threat.knows_defense)),
    ).save(folder)
    others = f" and {len(absent - rows)} that they rest on or are checked by" if absent - rows else ""
    log.info("%d rows, %d cells to compute%s -> %s", len(jobs), len(absent & rows), others, folder)
    _planned.clear()
    for job in ordered:
        overrides = tuple(override for override in job.overrides if not parsed([override])[0].is_hydra_override())
        _planned[str(folder), overrides] = job
    return in_order_of_need(ordered)


def probing_from(config: DictConfig) -> Probing:
    """How cells are checked, from ``checks`` of a configuration that fits its schema."""
    return Probing(config.checks.images, float(config.checks.eps))


def _cover(jobs: Sequence[Job]) -> Iterator[Job]:
    """As few jobs as there need be to see every attack and every defense, under every threat, once."""
    covered: set[tuple[object, ...]] = set()
    for job in jobs:
        coordinates = job.coordinates
        parts: set[tuple[object, ...]] = {("defense", coordinates.defense, coordinates.noise, coordinates.threat)}
        if coordinates.eps:  # at eps 0 no attack is called
            parts.add(("attack", coordinates.attack, coordinates.threat))
        if parts - covered:
            covered |= parts
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
            sharing.setdefault(job.spec.attacked_key, []).append(job)
    makers = [min(group, key=lambda job: not job.spec.is_bare) for group in sharing.values() if len(group) > 1]
    making = {job.key for job in makers}

    def rank(job: Job) -> int:
        if not job.coordinates.eps:
            return 0 if job.spec.is_bare else 1
        if job.spec.members:
            return 3
        return 1 if job.key in making else 2

    return sorted(jobs, key=rank)
