"""What a training run leaves beside its checkpoint for people to look at."""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, FiniteFloat, TypeAdapter

from src.encoded_images import EncodedImages, of_one_shape
from src.files import write_text
from src.stored import read


def _beside_one_another(stacks: dict[str, EncodedImages]) -> dict[str, EncodedImages]:
    if not of_one_shape(stacks):
        raise ValueError("the images are not of one shape")
    return stacks


@dataclass(frozen=True)
class TrainingRecord:
    """Losses, metrics and, for a VQ-VAE, reconstructions of one training run; ``<checkpoint>.json``.

    The types of its fields are also the schema by which a stored record is checked.
    """

    model: str  #: "classifier", "vqvae", …
    data: str
    noise: FiniteFloat | None  #: σ of the training noise; None for a model without one
    seed: int
    weights: str  #: fingerprint of the trained weights
    seconds: FiniteFloat  #: time spent in training, interruptions excluded
    losses: list[tuple[int, FiniteFloat]]  #: (step, training loss), every few steps
    epochs: list[dict[str, FiniteFloat]]  #: metrics by name at the end of each epoch: "epoch", "step", "val/loss", …
    #: "original", "noisy", "reconstruction"; empty for a model that makes no images
    examples: Annotated[dict[str, EncodedImages], AfterValidator(_beside_one_another)] = field(default_factory=dict)
    #: of the process that ended the training, see :func:`src.environment.environment_of`; empty in older records
    environment: dict[str, str] = field(default_factory=dict)

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
            FileNotFoundError: there is none.
            DamagedError: it cannot be read, or is no training record.
        """
        return read(_schema(), path)


@cache
def _schema() -> TypeAdapter[TrainingRecord]:
    return TypeAdapter(TrainingRecord)
