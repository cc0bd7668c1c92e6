"""Which trainings stand behind what was computed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.models.checkpoint import read_checkpoint
from src.nested import texts
from src.reporting.wandb.artifacts import Weights
from src.training_record import TrainingRecord


def weights_behind(identities: Iterable[Mapping[str, Any]], checkpoints: Path) -> list[Weights]:
    """The weights that are named, by their fingerprints, anywhere in identities of cells or certificates.

    Args:
        identities: see :attr:`src.evaluation.Cell.identity`.
        checkpoints: the folder with a folder of checkpoints for each data set.

    Returns:
        Those that still lie there as they were used, with a record of their training, by path. A classifier of the
        user's own and a network that was trained again since are not among them.
    """
    fingerprints = texts(identities)
    records = ((path.with_suffix(".ckpt"), _record(path)) for path in sorted(checkpoints.glob("*/*.json")))
    return [
        Weights(path, record)
        for path, record in records
        if record and record.weights in fingerprints and _fingerprint(path) == record.weights
    ]


def _record(path: Path) -> TrainingRecord | None:
    """A training's record; None if it is damaged, of which the report warns."""
    try:
        return TrainingRecord.load(path)
    except (ValueError, OSError):
        return None


def _fingerprint(checkpoint: Path) -> str | None:
    """Of the weights in a checkpoint; None if there is none, or a damaged one."""
    try:
        return read_checkpoint(checkpoint, "")[1].weights
    except UserError:
        return None
