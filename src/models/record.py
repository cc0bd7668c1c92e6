"""What a training run leaves beside its checkpoint for people to look at."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from src.files import write_text


@dataclass(frozen=True)
class TrainingRecord:
    """Losses, metrics and, for a VQ-VAE, reconstructions of one training run; ``<checkpoint>.json``."""

    model: str  #: "classifier", "vqvae", …
    data: str
    noise: float | None  #: σ of the training noise; None for a model without one
    seed: int
    weights: str  #: fingerprint of the trained weights
    seconds: float  #: time spent in training, interruptions excluded
    losses: list[tuple[int, float]]  #: (step, training loss), every few steps
    epochs: list[dict[str, float]]  #: metrics by name at the end of each epoch: "epoch", "step", "val/loss", …
    examples: dict[str, Any] = field(default_factory=dict)  #: encoded images "original", "noisy", "reconstruction"

    @staticmethod
    def path(checkpoint: Path) -> Path:
        """Where the record of a checkpoint lies."""
        return checkpoint.with_suffix(".json")

    def save(self, checkpoint: Path) -> None:
        """Write the record beside its checkpoint, atomically."""
        write_text(self.path(checkpoint), json.dumps(asdict(self), allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "TrainingRecord":
        """Read a record.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            losses = [(int(step), float(loss)) for step, loss in stored.pop("losses")]
            return cls(losses=losses, **stored)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no training record: {error!r}") from error
