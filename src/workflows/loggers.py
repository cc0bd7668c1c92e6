"""Where training runs and cells are logged."""

from pathlib import Path

from lightning.pytorch.loggers import Logger

from src.reporting.wandb_settings import WandbSettings, resolve_mode


def wandb_settings(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    notes: str | None = None,
) -> WandbSettings:
    """Settings for W&B runs, from a configuration's plain types."""
    return WandbSettings(Path(folder), project, entity, group, tuple(tags or ()), notes)


def wandb_logger(settings: WandbSettings) -> Logger:
    """A Lightning logger that writes below ``settings.folder``/wandb and is offline unless a key is configured."""
    from lightning.pytorch.loggers import WandbLogger

    settings.folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        save_dir=settings.folder,
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        tags=list(settings.tags),
        notes=settings.notes,
        job_type="train",
        offline=resolve_mode(settings.mode) == "offline",
        settings={"silent": True, "disable_git": True, "save_code": False, "x_disable_stats": True},
    )
