"""Where training runs and cells are logged."""

from pathlib import Path

from lightning.pytorch.loggers import Logger

from src.reporting.wandb_runs import WandbSettings, resolve_mode


def wandb_logger(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
) -> Logger:
    """A W&B logger that writes below ``folder``/wandb and is offline unless a key is configured."""
    from lightning.pytorch.loggers import WandbLogger

    Path(folder).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        save_dir=folder,
        project=project,
        entity=entity,
        group=group,
        tags=tags,
        notes=notes,
        job_type="train",
        offline=resolve_mode() == "offline",
    )


def wandb_settings(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
) -> WandbSettings:
    """Settings for the runs of cells and grids, from a configuration's plain types."""
    return WandbSettings(Path(folder), project, entity, group, tuple(tags or ()), notes)
