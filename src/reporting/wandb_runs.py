"""Weights & Biases: a run for every cell, and one run that holds the whole grid.

Runs go to ``<folder>/wandb`` and, unless an API key is configured, stay there until ``wandb sync <folder>/wandb``.
Nothing here raises on account of W&B: a run that cannot be written costs one line of warning, never a cell.
"""

import logging
import netrc
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock

from src.errors import in_a_line
from src.evaluation.cell import Cell, CellSpec, Coordinates, content_key
from src.evaluation.grid import COLUMNS, Grid
from src.images import decode_images
from src.reporting.facets import Facet, facets
from src.reporting.labels import column_label

if TYPE_CHECKING:  # wandb takes half a second to import, and whoever logs nothing should not wait for it
    from wandb import Run

log = logging.getLogger(__name__)

#: Hosts of the public server; ``wandb login`` writes one of them to the netrc file.
PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
#: Older names that ``WANDB_MODE`` still accepts.
MODES = {"dryrun": "offline", "run": "online"}
#: The threat that the names of runs leave out.
USUAL_THREAT = "gray_box"
#: A file in the folder of every run that was written to its end. A killed process leaves a folder without it.
COMPLETE = "complete"
#: Seconds that an online run waits for the server, at its start and at its end; W&B's own are 90 and for ever.
PATIENCE = {"init_timeout": 30.0, "finish_timeout": 120.0}

#: (entity, project) pairs that did not answer this process: they are not waited for again.
_unreachable: set[tuple[str | None, str]] = set()


@dataclass(frozen=True)
class WandbSettings:
    """Where runs go and what they have in common."""

    folder: Path  #: usually ``outputs``; W&B writes to ``outputs/wandb``
    project: str = "defense-vqvae"
    entity: str | None = None
    group: str | None = None  #: None: ``WANDB_RUN_GROUP``, or named after data, protocol and classifier
    tags: tuple[str, ...] = ()
    notes: str | None = None
    mode: str | None = None  #: "online", "offline" or "disabled"; None: see :func:`resolve_mode`


def log_cell(cell: Cell, coordinates: Coordinates, settings: WandbSettings) -> bool:
    """Log a cell as one run: where it stands and what it was made from as config, its numbers as metrics and summary.

    Args:
        cell: what was computed.
        coordinates: the row of the grid; several rows can show one cell, and each has a run.
        settings: where to.

    Returns:
        Whether a run was written: False if there already is one for this row and cell, or if W&B failed.
    """

    def fill(run: "Run") -> None:
        examples = {"examples": _mosaic(cell.examples)} if cell.examples else {}
        run.log(_numbers(cell) | examples)

    def planned() -> RunPlan:
        environment = {f"environment/{name}": value for name, value in cell.environment.items()}
        return RunPlan(
            content={"coordinates": asdict(coordinates), "key": cell.key},
            name=_name(coordinates),
            job_type="cell",
            group=_group(coordinates, cell.identity),
            config=_config(coordinates, cell.identity) | environment | {"n": cell.n, "key": cell.key},
        )

    return log_run(str(coordinates), planned, fill, settings)


def log_failure(spec: CellSpec, error: BaseException, settings: WandbSettings) -> bool:
    """Log that a cell could not be computed, as a run that W&B shows as failed.

    It has an id of its own, so it does not keep the cell from being logged once it is computed.

    Args:
        spec: the cell that is missing.
        error: why.
        settings: where to.

    Returns:
        Whether a run was written: False if this very failure is already logged, or if W&B failed.
    """
    reason = f"{type(error).__name__}: {error}"

    def planned() -> RunPlan:
        return RunPlan(
            content={"coordinates": asdict(spec.coordinates), "key": spec.key, "failure": reason},
            name=_name(spec.coordinates),
            job_type="cell",
            group=_group(spec.coordinates, spec.identity),
            config=_config(spec.coordinates, spec.identity) | {"key": spec.key, "error": reason},
            exit_code=1,
        )

    return log_run(str(spec.coordinates), planned, lambda run: None, settings)


def log_grid(grid: Grid, figures: list[Path], settings: WandbSettings) -> bool:
    """Log a grid as one run: its table, its accuracy-vs-eps lines, and the figures.

    The lines are there twice: as one W&B chart an attack under ``curves/``, and as metrics ``<attack>/<defense>``
    over ``eps``, which native panels draw.

    Args:
        grid: the rows, computed or missing.
        figures: image files; those that do not exist are left out.
        settings: where to.

    Returns:
        Whether a run was written: False if this very grid is already logged, or if W&B failed.
    """

    def fill(run: "Run") -> None:
        curves = [curve for facet in facets(grid) for curve in _curves(facet)] if len(grid) else []
        with environment_kept(WANDB_DATA_DIR=str(wandb_folder(settings))):
            run.log({"grid": _table(grid)} | _charts(curves))
        _log_lines(run, curves)
        if pictures := images_of(figures):
            run.log(pictures)
        run.summary.update(_summary(grid, curves))

    def planned() -> RunPlan:
        first = next((row for row in grid if row.cell), next(iter(grid), None))
        return RunPlan(
            content={"grid": grid.to_csv()},
            name=f"grid of {len(grid)} cells",
            job_type="grid",
            group=_group(first.coordinates, first.cell.identity if first.cell else {}) if first else None,
            config=_shared_config(grid),
        )

    return log_run("the grid", planned, fill, settings)


def resolve_mode(requested: str | None = None, environment: Mapping[str, str] | None = None) -> str:
    """The mode runs are logged in: ``requested``, else ``WANDB_MODE``, else "online" if an API key is configured, else
    "offline", because W&B refuses to start online without a key.

    Args:
        requested: a mode from the configuration; None to choose.
        environment: environment variables; None: those of this process.
    """
    environment = os.environ if environment is None else environment
    mode = requested or environment.get("WANDB_MODE")
    if mode:
        return MODES.get(mode, mode)
    return "online" if key_configured(environment) else "offline"


def key_configured(environment: Mapping[str, str]) -> bool:
    """Whether these variables, or the netrc file that they lead to, hold credentials for W&B's server."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = _netrc_file(environment)
    server = urlsplit(environment.get("WANDB_BASE_URL", "")).netloc
    hosts = PUBLIC_HOSTS if server in ("", *PUBLIC_HOSTS) else (server,)
    try:
        logins = netrc.netrc(path).hosts if path else {}
    except (netrc.NetrcParseError, OSError):
        return False
    return any(logins[host][2] for host in hosts if host in logins)


def _netrc_file(environment: Mapping[str, str]) -> Path | None:
    """The netrc file that W&B reads, if there is one."""
    home = environment.get("HOME") or str(Path.home())
    named = environment.get("NETRC")
    candidates = [Path(named).expanduser()] if named else [Path(home, ".netrc"), Path(home, "_netrc")]
    return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class RunPlan:
    """What a run is called and where it belongs; ``content`` is what tells it from other runs."""

    content: Mapping[str, Any]
    name: str
    job_type: str
    group: str | None
    config: dict[str, Any]
    exit_code: int = 0  #: what the run is finished with; W&B shows any other as failed


def log_run(
    subject: str, planned: Callable[[], RunPlan], fill: Callable[["Run"], None], settings: WandbSettings
) -> bool:
    """Write a run unless it lies there already. The border at which W&B's failures end."""
    try:
        if resolve_mode(settings.mode) == "disabled":
            return False
        plan = planned()
        # Run ids are unique within a project, so another project gets its own copy.
        where = {"project": settings.project, "entity": settings.entity}
        run_id = content_key(dict(plan.content) | where)[:16]
        folder = wandb_folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{run_id}.lock"):
            if any((run / COMPLETE).exists() for run in folder.glob(f"*run-*-{run_id}*")):
                return False
            with _run(run_id, plan, settings) as run:
                fill(run)
        return True
    except Exception as error:
        log.warning("not logged to W&B: %s (%s)", subject, in_a_line(error))
        return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from writing the same run now; they find it written when their turn comes."""
    with FileLock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _run(run_id: str, plan: RunPlan, settings: WandbSettings) -> Iterator["Run"]:
    """A run that is finished in any case: one left open would swallow what is logged next."""
    with environment_kept():
        run = _started(run_id, plan, settings)
        folder = None if run.disabled else Path(run.dir).parent
        exit_code = 1
        try:
            yield run
            exit_code = plan.exit_code
        finally:
            run.finish(exit_code=exit_code)
        if folder:
            (folder / COMPLETE).touch()


def _started(run_id: str, plan: RunPlan, settings: WandbSettings) -> "Run":
    """Start a run; one that cannot start online starts offline, to be uploaded later."""
    mode = resolve_mode(settings.mode)
    place = (settings.entity, settings.project)
    if mode != "online":
        return _init(run_id, plan, settings, mode)
    if place not in _unreachable:
        try:
            _require_key()
            # A mode that nobody named is left to W&B, which also heeds `wandb offline`.
            named = settings.mode or os.environ.get("WANDB_MODE")
            return _init(run_id, plan, settings, mode if named else None)
        except Exception as error:
            _unreachable.add(place)
            advice = f"logging offline, upload with: wandb sync {wandb_folder(settings)}"
            log.warning("W&B is not reached (%s); %s", in_a_line(error), advice)
        run_id += "-offline"  # the attempt still holds the other id
    return _init(run_id, plan, settings, "offline")


def _require_key() -> None:
    """Refuse to go online without a key: W&B would ask for one at the terminal and hold up the sweep."""
    import wandb

    if not key_configured(os.environ) and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key is configured, see: wandb login")


def _init(run_id: str, plan: RunPlan, settings: WandbSettings, mode: str | None) -> "Run":
    """``wandb.init`` without console capture, git, code and system metrics, and without touching ``wandb.run``."""
    import wandb

    patience = {name: value for name, value in PATIENCE.items() if f"WANDB_{name.upper()}" not in os.environ}
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group or os.environ.get("WANDB_RUN_GROUP") or plan.group,
        tags=list(settings.tags) or None,
        notes=settings.notes,
        job_type=plan.job_type,
        id=run_id,
        name=plan.name,
        config=plan.config,
        mode=mode,  # type: ignore[arg-type]  # a wrong one is W&B's to refuse
        settings=wandb.Settings(
            root_dir=str(wandb_folder(settings).parent),
            use_dot_wandb=False,
            reinit="create_new",
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_save_requirements=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            **patience,  # type: ignore[arg-type]
        ),
    )


@contextmanager
def environment_kept(**temporary: str) -> Iterator[None]:
    """Set variables that the user has not set, and leave the environment as it was.

    W&B leaves the socket of its service behind in ``WANDB_SERVICE``, where a job submitted to another machine would
    inherit it. And it keeps the files of tables below ``WANDB_DATA_DIR`` until they are uploaded: unless told
    otherwise in the user's home, which may not outlive a container.
    """
    before = {name: os.environ.get(name) for name in ("WANDB_SERVICE", *temporary)}
    for name, value in temporary.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def wandb_folder(settings: WandbSettings) -> Path:
    return Path(settings.folder).absolute() / "wandb"


def _name(coordinates: Coordinates) -> str:
    """``ifgsm eps 0.3 · vqvae 0.25``; other threats and seeds are named."""
    return str(coordinates).replace(f" · {USUAL_THREAT}", "")


def _group(coordinates: Coordinates, identity: Mapping[str, Any]) -> str:
    """The same for all cells of one data set, protocol and classifier, in whichever sweep they were computed."""
    classifier = identity.get("classifier")
    weights = classifier.get("weights") if isinstance(classifier, Mapping) else classifier
    short = [weights[:8]] if isinstance(weights, str) and weights else []
    return "-".join([coordinates.data, coordinates.protocol, *short])


def _config(coordinates: Coordinates, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Flat, so that every part can be filtered by: coordinates by their names, the rest of the identity by its
    path, such as ``attack/steps``."""
    return {name: value for name, value in _flat(identity) if value is not None} | asdict(coordinates)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists by their paths."""
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(inner, Mapping):
        for key, each in inner.items():
            yield from _flat(each, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


def _shared_config(grid: Grid) -> dict[str, Any]:
    """Each coordinate's value, or the list of its values where they differ."""
    values = {name: grid.values(name) for name in Coordinates.__dataclass_fields__} if len(grid) else {}
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _numbers(cell: Cell) -> dict[str, float]:
    low, high = cell.interval
    return {
        "accuracy": cell.accuracy,
        "ci_low": low,
        "ci_high": high,
        "n": cell.n,
        "correct": cell.correct,
        "clean_accuracy": cell.clean_accuracy,
        "undefended_accuracy": cell.undefended_accuracy,
        "recovered": cell.accuracy - cell.undefended_accuracy,
        "perturbation_l2": cell.perturbation_l2,
        "perturbation_linf": cell.perturbation_linf,
        "reconstruction_mse": cell.reconstruction_mse,
        "seconds": cell.seconds,
    } | {f"seconds/{stage}": seconds for stage, seconds in cell.stages.items()}


def _mosaic(examples: Mapping[str, Any]) -> Any:
    """A cell's example images as one: a column an image, what was done to it from top to bottom."""
    import wandb

    stages = [name for name in ("original", "attacked", "purified") if name in examples]
    rows = [np.concatenate(list(decode_images(examples[name])), axis=2) for name in stages]  # (C, H, N * W)
    picture = (np.concatenate(rows, axis=1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    taken_for = zip(examples.get("labels", ()), examples.get("predictions", ()), strict=False)
    caption = f"{', '.join(stages)}; " + " ".join(f"{label}→{guess}" for label, guess in taken_for)
    return wandb.Image(picture.squeeze(2) if picture.shape[2] == 1 else picture, caption=caption)


@dataclass(frozen=True)
class _Curve:
    """Accuracy over eps of one column of the grid under one attack, as far as it is computed."""

    attack: str
    label: str
    points: list[tuple[float, float]]  #: (eps, accuracy), by eps

    @property
    def metric(self) -> str:
        """``ifgsm/vqvae_0_25``. W&B takes dots for nesting, and its queries know no blanks."""
        return "/".join(identifier(part) for part in (self.attack, self.label))


def identifier(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _curves(facet: Facet) -> Iterator[_Curve]:
    for attack in facet.attacks:
        for column in facet.columns:
            cells = [(eps, facet.cell(attack, eps, column)) for eps in facet.budgets(attack)]
            points = [(float(eps), cell.accuracy) for eps, cell in cells if cell]
            label = f"{column_label(*column)} {facet.suffix.strip('-')}".rstrip()
            if points:
                yield _Curve(attack, label, points)


def line_metrics(facet: Facet) -> dict[str, list[str]]:
    """Under which names :func:`log_grid` logs the lines of a part of a grid, by attack; each over ``eps``."""
    names: dict[str, list[str]] = {}
    for curve in _curves(facet):
        names.setdefault(curve.attack, []).append(curve.metric)
    return names


def _table(grid: Grid) -> Any:
    """``grid.csv`` as a W&B table: what is missing is None."""
    import wandb

    rows = [row.columns() for row in grid]
    return wandb.Table(columns=list(COLUMNS), data=[[row[name] for name in COLUMNS] for row in rows])


def _charts(curves: list[_Curve]) -> dict[str, Any]:
    """One chart an attack, a line a defense."""
    import wandb

    charts = {}
    for attack in dict.fromkeys(curve.attack for curve in curves):
        lines = [curve for curve in curves if curve.attack == attack]
        charts[f"curves/{identifier(attack)}"] = wandb.plot.line_series(
            xs=[[eps for eps, _ in line.points] for line in lines],
            ys=[[accuracy for _, accuracy in line.points] for line in lines],
            keys=[line.label for line in lines],
            title=f"accuracy under {attack}",
            xname="eps",
        )
    return charts


def _log_lines(run: "Run", curves: list[_Curve]) -> None:
    """The curves as metrics with eps for a step, so that W&B's own panels draw them."""
    run.define_metric("eps", hidden=True)
    for curve in curves:
        run.define_metric(curve.metric, step_metric="eps")
    for eps in sorted({eps for curve in curves for eps, _ in curve.points}):
        here = {curve.metric: dict(curve.points)[eps] for curve in curves if eps in dict(curve.points)}
        run.log({"eps": eps} | here)


def images_of(figures: list[Path]) -> dict[str, Any]:
    import wandb

    found = [Path(figure) for figure in figures if Path(figure).is_file()]
    return {figure_key(figure.name): wandb.Image(str(figure)) for figure in found}


def figure_key(name: str) -> str:
    """Under which name a figure is logged: ``figures/accuracy_ifgsm`` for ``accuracy-ifgsm.png``."""
    return f"figures/{identifier(Path(name).stem)}"


def _summary(grid: Grid, curves: list[_Curve]) -> dict[str, float]:
    """How much of the grid is there, and for each column the least that any attack of the grid left of it."""
    numbers: dict[str, float] = {"cells": len(grid), "missing": len(grid.missing)}
    accuracies = [row.cell.accuracy for row in grid if row.cell]
    if accuracies:
        numbers |= {"best_accuracy": max(accuracies), "worst_accuracy": min(accuracies)}
    for label in dict.fromkeys(curve.label for curve in curves):
        worst = min(accuracy for curve in curves if curve.label == label for _, accuracy in curve.points)
        numbers[f"worst/{identifier(label)}"] = worst
    return numbers
