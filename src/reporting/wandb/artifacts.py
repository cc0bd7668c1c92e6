"""Weights & Biases: files as artifacts.

A training puts out its weights, a grid or a certification uses them and puts out its report: W&B's lineage graph
leads from one to the other. Files are copied below ``WANDB_DATA_DIR``, from where ``wandb sync`` uploads them: the
originals may be overwritten before that, and some versions of W&B delete what they have uploaded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.reporting.wandb.session import harmless

if TYPE_CHECKING:  # see wandb_session
    from wandb import Artifact, Run

    from src.training_record import TrainingRecord

#: Digits of a fingerprint that make an alias.
SHORT = 8


@dataclass(frozen=True)
class Weights:
    """Trained weights as they lie on disk."""

    checkpoint: Path
    record: "TrainingRecord"  #: of the training that ended with them

    @property
    def name(self) -> str:
        """``mnist-vqvae-noise0.5``; seeds other than 0 are named. Trained again, they are a new version of it."""
        record = self.record
        noise = "" if record.noise is None else f"-noise{record.noise:g}"
        seed = f"-seed{record.seed}" if record.seed else ""
        return artifact_name(f"{record.data}-{record.model}{noise}{seed}")

    @property
    def metadata(self) -> dict[str, Any]:
        """Where they come from, their fingerprint, and what the last epoch came to."""
        record = self.record
        coordinates = {"model": record.model, "data": record.data, "noise": record.noise, "seed": record.seed}
        return coordinates | {"weights": record.weights, "seconds": record.seconds} | dict(*record.epochs[-1:])


def log_weights(run: "Run", weights: Weights) -> None:
    """Make weights an output of this run. Their version goes by ``latest`` and the first digits of the fingerprint."""
    with harmless(f"the weights {weights.checkpoint}"):
        run.log_artifact(_artifact(weights), aliases=[weights.record.weights[:SHORT]])


def use_weights(run: "Run", used: Sequence[Weights]) -> None:
    """Make weights an input of this run.

    They are found again by their content: equal files under one name are one version of an artifact, and that of the
    training, if it is logged to the same project. ``Run.use_artifact`` refuses to do this offline, though what it
    does with an artifact that was made here works there as well: log it as nobody's output, and say that it is used.
    """
    for weights in used:
        with harmless(f"the use of the weights {weights.checkpoint}"):
            alias = weights.record.weights[:SHORT]
            run._log_artifact(_artifact(weights), aliases=[alias], is_user_created=True, use_after_commit=True)


def log_files(run: "Run", name: str, kind: str, files: Mapping[str, Path]) -> None:
    """Make files an output of this run, together.

    Args:
        name: of the artifact.
        kind: its type.
        files: by their names within the artifact; those that do not exist are left out.
    """
    import wandb

    existing_files = {inside: path for inside, path in files.items() if path.is_file()}
    if not existing_files:
        return
    with harmless(f"the files of {name}"):
        artifact = wandb.Artifact(artifact_name(name), type=kind)
        for inside, path in existing_files.items():
            artifact.add_file(str(path), name=inside, skip_cache=True)
        run.log_artifact(artifact)


def _artifact(weights: Weights) -> "Artifact":
    import wandb

    artifact = wandb.Artifact(weights.name, type="model", metadata=weights.metadata)
    artifact.add_file(str(weights.checkpoint), name="weights.ckpt", skip_cache=True)
    return artifact


def artifact_name(text: str) -> str:
    """``text`` with what W&B does not take in the name of an artifact replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:128]
