"""From what is stored to a W&B workspace that shows it."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from src.errors import UserError, in_a_line
from src.evaluation import CellStore, Grid, SweepManifest
from src.evaluation.grid import latest_sweep
from src.files import write_text
from src.reporting.analysis.certified import load_certified, of_grid
from src.reporting.wandb.settings import WandbSettings, key_configured, resolve_mode, wandb_folder
from src.reporting.wandb.workspace import Logged, logged, to_json, workspace
from src.workflows.building import build
from src.workflows.schema import DashboardSettings
from src.workflows.settings import checked

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

log = logging.getLogger(__name__)

INSTALL = "pip install --editable '.[dashboards]' --constraint constraints.txt"


def publish(config: DictConfig) -> Path:
    """Write the workspace to ``<outputs>/dashboard/workspace.json`` and, if a key is configured, save it on W&B.

    Args:
        config: ``conf/dashboard.yaml`` with the command line's changes.

    Returns:
        The file.

    Raises:
        UserError: the logger is not W&B, the package is missing, the sweep or the name is no good, the file cannot be
            written, or W&B did not take the workspace.
    """
    config = checked(config, DashboardSettings)
    if not config.logger.cells:
        raise UserError("the dashboard belongs to W&B and shows its runs; leave logger=… out, or say logger=wandb")
    settings: WandbSettings = build(config.logger.cells)
    outputs = Path(config.paths.outputs)
    board = _built(settings, config.name, _logged(outputs, config.sweep))
    path = outputs / "dashboard" / "workspace.json"
    has_key = key_configured(os.environ)
    if has_key and resolve_mode(settings.mode) == "online":
        board.entity = settings.entity or _own_entity()
        write_text(path, to_json(board))
        _save(board, path, settings)
    else:
        write_text(path, to_json(board))
        _tell_how(path, settings, has_key)
    return path


def _tell_how(path: Path, settings: WandbSettings, has_key: bool) -> None:
    """How to publish what was written."""
    reason = "WANDB_MODE is not online" if has_key else "no W&B key is configured"
    log.info("%s, so the workspace is in %s; to publish it, after its runs:", reason, path)
    log.info("  %s", "unset WANDB_MODE" if has_key else "wandb login")
    log.info("  wandb sync %s/offline-run-*", wandb_folder(settings))
    log.info("  python -m src.dashboard   (with the arguments of now)")


def _logged(outputs: Path, sweep: str) -> Logged:
    """What the runs of a sweep, or without any sweep those of all certifications, have logged."""
    certified = load_certified(outputs / "certified")
    folder = latest_sweep(outputs / "sweeps") if sweep == "latest" else Path(sweep)
    if folder is None:
        log.warning("no sweep under %s, so there is no panel of accuracy against eps; sweep, then repeat this", outputs)
        return logged(Grid(()), certified)
    grid, checks = SweepManifest.load(folder).judged(CellStore(outputs / "cells"))
    return logged(grid, of_grid(certified, grid), checks)


def _built(settings: WandbSettings, name: str, runs: Logged) -> "Workspace":
    try:
        return workspace(settings, name, runs)
    except ImportError as error:
        raise UserError(f"the dashboard needs the package wandb-workspaces ({error}): {INSTALL}") from error
    except ValueError as error:
        raise UserError(f"name={name} is no name for a workspace: {' '.join(str(error).split())}") from error


def _own_entity() -> str:
    """Who the key belongs to: where runs go for which no entity is named."""
    import wandb

    try:
        entity = wandb.Api().default_entity
    except Exception as error:
        raise UserError(f"W&B does not say whose key this is: {in_a_line(error)}") from error
    if not entity:
        raise UserError("W&B does not say whose key this is; name the user or team: logger.entity=…")
    return str(entity)


def _save(board: "Workspace", path: Path, settings: WandbSettings) -> None:
    """Save the workspace on W&B, whose failures are of many kinds and none of ours."""
    try:
        board.save()
        log.info("workspace: %s", board.url)
    except Exception as error:
        raise UserError(
            f"W&B did not take the workspace, which is in {path}: {in_a_line(error)}; "
            f"if {board.entity}/{board.project} has no runs yet: wandb sync {wandb_folder(settings)}/offline-run-*"
        ) from error
