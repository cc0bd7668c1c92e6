"""Weights & Biases: a run from its start to its end.

Nothing here raises on account of W&B: a run that cannot be written costs one line of warning, never a cell.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from src.errors import in_a_line
from src.evaluation.spec import content_key
from src.reporting.wandb.settings import WandbSettings, key_configured, resolve_mode, wandb_folder

if TYPE_CHECKING:  # wandb takes half a second to import, and whoever logs nothing should not wait for it
    from wandb import Artifact, Run

log = logging.getLogger(__name__)

#: A file in the folder of every run that was written to its end. A killed process leaves a folder without it.
COMPLETE = "complete"
#: Seconds that an online run waits for the server, at its start and at its end; W&B's own are 90 and for ever.
PATIENCE = {"init_timeout": 30.0, "finish_timeout": 120.0}

#: (entity, project) pairs that did not answer this process: they are not waited for again.
_unreachable: set[tuple[str | None, str]] = set()


@dataclass(frozen=True)
class RunPlan:
    """What a run is called and where it belongs; ``content`` is what tells it from other runs."""

    content: Mapping[str, Any]
    name: str
    job_type: str
    group: str | None
    config: dict[str, Any]
    exit_code: int = 0  #: what the run is finished with; W&B shows any other as failed
    watched: bool = False  #: keep what is printed and what machine it runs on: for runs that take their time


def log_run(
    subject: str, planned: Callable[[], RunPlan], fill: Callable[["Run"], None], settings: WandbSettings
) -> bool:
    """Write a run unless it lies there already, or W&B fails; returns whether it was written."""
    with harmless(subject):
        if resolve_mode(settings.mode) == "disabled":
            return False
        plan = planned()
        # Run ids are unique within a project, so another project gets its own copy.
        destination = {"project": settings.project, "entity": settings.entity}
        run_id = content_key(dict(plan.content) | destination)[:16]
        folder = wandb_folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{run_id}.lock"):
            if any((run / COMPLETE).exists() for run in folder.glob(f"*run-*-{run_id}*")):
                return False
            with _run(run_id, plan, settings) as run:
                fill(run)
        return True
    return False


@contextmanager
def harmless(subject: str) -> Iterator[None]:
    """W&B's failures in here end here: they cost a line of warning."""
    try:
        yield
    except Exception as error:
        log.warning("not logged to W&B: %s (%s)", subject, in_a_line(error))


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
    with environment_kept(settings):
        run = start(run_id, plan, settings)
        folder = None if run.disabled else Path(run.dir).parent
        exit_code = 1
        try:
            yield run
            exit_code = plan.exit_code
        finally:
            run.finish(exit_code=exit_code)
        if folder:
            (folder / COMPLETE).touch()


def start(run_id: str, plan: RunPlan, settings: WandbSettings) -> "Run":
    """Start a run; one that cannot start online starts offline, to be uploaded later. To be called, and the run
    finished, under :func:`environment_kept`."""
    mode = resolve_mode(settings.mode)
    destination = (settings.entity, settings.project)
    if mode != "online":
        return _init(run_id, plan, settings, mode)
    if destination not in _unreachable:
        try:
            _require_key()
            # A mode that nobody named is left to W&B, which also heeds `wandb offline`.
            named_mode = settings.mode or os.environ.get("WANDB_MODE")
            return _init(run_id, plan, settings, mode if named_mode else None)
        except Exception as error:
            _unreachable.add(destination)
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
    """``wandb.init`` without git, code and system metrics, and without touching ``wandb.run``."""
    import wandb

    patience = {name: value for name, value in PATIENCE.items() if f"WANDB_{name.upper()}" not in os.environ}
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group or os.environ.get("WANDB_RUN_GROUP") or plan.group,
        tags=list(settings.tags) or None,
        notes=settings.notes,
        job_type=settings.job_type or os.environ.get("WANDB_JOB_TYPE") or plan.job_type,
        id=run_id,
        name=plan.name,
        config=plan.config,
        mode=mode,  # type: ignore[arg-type]  # a wrong one is W&B's to refuse
        settings=wandb.Settings(
            root_dir=str(wandb_folder(settings).parent),
            use_dot_wandb=False,
            reinit="create_new",
            silent=True,
            console="auto" if plan.watched else "off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_save_requirements=plan.watched,
            x_disable_meta=not plan.watched,
            x_disable_stats=True,
            x_disable_machine_info=not plan.watched,
            **patience,  # type: ignore[arg-type]
        ),
    )
    with harmless("where files lie, relative to this folder"):
        _keep_paths_relative(run)
    return run


def _keep_paths_relative(run: "Run") -> None:
    """Have the run's log name the staged files of its artifacts relative to the working directory, if they lie below
    it, so that ``wandb sync`` finds them where the outputs were copied to as well. W&B has no setting for that."""
    interface = run._interface
    if interface is None:
        return
    make_artifact = interface._make_artifact

    def relative(artifact: "Artifact") -> Any:
        record, folder = make_artifact(artifact), Path.cwd()
        for entry in record.manifest.contents:
            path = Path(entry.local_path)
            if path.is_absolute() and path.is_relative_to(folder):
                entry.local_path = path.relative_to(folder).as_posix()
        return record

    interface._make_artifact = relative  # type: ignore[method-assign]


@contextmanager
def environment_kept(settings: WandbSettings) -> Iterator[None]:
    """Leave the environment as it was, and have everything of W&B's lie below ``settings.folder`` meanwhile.

    W&B leaves the socket of its service behind in ``WANDB_SERVICE``, where a job submitted to another machine would
    inherit it. And it keeps the files of tables and artifacts below ``WANDB_DATA_DIR`` until they are uploaded: unless
    told otherwise in the user's home, which may not outlive a container.
    """
    old_values = {name: os.environ.get(name) for name in ("WANDB_SERVICE", "WANDB_DATA_DIR")}
    os.environ.setdefault("WANDB_DATA_DIR", str(wandb_folder(settings)))
    try:
        yield
    finally:
        for name, old_value in old_values.items():
            if old_value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old_value
