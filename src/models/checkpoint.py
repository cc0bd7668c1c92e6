"""Checkpoints: Lightning's files plus what is needed to trust them later.

A checkpoint holds plain types and tensors only, loads with ``weights_only=True``, and carries under
:data:`PROVENANCE` which data and configuration it came from and a fingerprint of its weights.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import LightningModule
from torch import Tensor

from src.errors import UserError
from src.files import write_bytes

PROVENANCE = "defense_vqvae"

#: Version of what a checkpoint holds. It goes up when networks of a published configuration change, or what is stored
#: beside them: 2 has biases in residual blocks, and the split of the training data.
SCHEMA = 2

#: Arguments that an earlier version had under another name; "dimension" only beside "codes".
RENAMED = {
    "codes": "num_embeddings",
    "dimension": "embedding_dim",
    "revive_below": "dead_code_threshold",
    "commitment": "commitment_cost",
}

Module = TypeVar("Module", bound=LightningModule)


class OutdatedError(UserError):
    """A checkpoint is one of ours, and of another :data:`SCHEMA`."""


def weights_fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of all tensors in ``state``, independent of their order."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint's weights come from."""

    model: str  #: name of the model's configuration, such as "vqvae"
    data: str  #: name of the training data
    data_fingerprint: str
    image_shape: list[int]  #: [C, H, W]
    split_seed: int = field(kw_only=True)  #: with val_size: which of the data's training images it was trained on
    val_size: int = field(kw_only=True)  #: how many were kept for validation
    seed: int
    epochs: int  #: epochs trained so far
    planned_epochs: int
    noise: float | None = None  #: σ of the training noise; None for a model without one
    config: dict[str, Any] = field(default_factory=dict)  #: arguments of the model and its training
    weights: str = ""  #: fingerprint, filled in by :func:`stamp`


def stamp(checkpoint: dict[str, Any], provenance: Provenance) -> None:
    """Add ``provenance``, with the fingerprint of the weights and the :data:`SCHEMA`, to a Lightning checkpoint."""
    weights = weights_fingerprint(checkpoint["state_dict"])
    checkpoint[PROVENANCE] = asdict(provenance) | {"weights": weights, "schema": SCHEMA}


def read_checkpoint(path: Path, remedy: str) -> tuple[dict[str, Any], Provenance]:
    """Read and verify a checkpoint.

    Args:
        path: the file.
        remedy: the command that makes a good one; part of every error message.

    Raises:
        OutdatedError: the file is of another version of this program.
        UserError: the file is missing, unreadable, truncated, altered, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}; train it with: {remedy}")
    return _verified(path, path, remedy)


def parse_checkpoint(content: bytes, name: str, remedy: str) -> tuple[dict[str, Any], Provenance]:
    """The same for the content of a file that is not stored, or not yet.

    Args:
        content: of the whole file.
        name: what error messages call it.
        remedy: as for :func:`read_checkpoint`.

    Raises:
        UserError: as :func:`read_checkpoint`.
    """
    return _verified(io.BytesIO(content), name, remedy)


def _renamed(arguments: Any) -> Any:
    """A module's arguments, or a mapping that holds some, with those of earlier versions under the names of today."""
    if not isinstance(arguments, dict):
        return arguments
    names = RENAMED if "codes" in arguments else {name: RENAMED[name] for name in RENAMED if name != "dimension"}
    return {names.get(name, name): _renamed(value) for name, value in arguments.items()}


def _verified(source: Path | io.BytesIO, name: object, remedy: str) -> tuple[dict[str, Any], Provenance]:
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
        stored = checkpoint[PROVENANCE]
        schema = int(stored.get("schema", 1))
        if schema != SCHEMA:
            age = "an older" if schema < SCHEMA else "a newer"
            raise OutdatedError(f"{name} is of {age} version (schema {schema}, not {SCHEMA}); train again: {remedy}")
        entries = {f.name: stored[f.name] for f in fields(Provenance)}
        provenance = Provenance(**entries | {"config": _renamed(entries["config"])})
        if arguments := checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY):
            checkpoint[LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] = _renamed(arguments)
        intact = weights_fingerprint(checkpoint["state_dict"]) == provenance.weights
    except (
        RuntimeError,
        EOFError,
        OSError,
        pickle.UnpicklingError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise UserError(f"{name} is truncated or no checkpoint of ours ({reason}); train again: {remedy}") from error
    if not intact:
        raise UserError(f"the weights in {name} are not those that were saved; train it again with: {remedy}")
    return checkpoint, provenance


def load_module(cls: type[Module], path: Path, remedy: str) -> tuple[Module, Provenance]:
    """Rebuild a frozen ``cls`` in eval mode from a checkpoint.

    Raises:
        UserError: as :func:`read_checkpoint`, or the weights do not fit ``cls``.
    """
    checkpoint, provenance = read_checkpoint(path, remedy)
    try:
        module = cls(**checkpoint[LightningModule.CHECKPOINT_HYPER_PARAMS_KEY])
        module.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, KeyError) as error:
        if f"model={provenance.model} " not in f"{remedy} ":
            raise UserError(f"{path} was trained with model={provenance.model}: it is no {cls.__name__}") from error
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} does not fit {cls.__name__} ({reason}); train again: {remedy}") from error
    return module.eval().requires_grad_(False), provenance


def load_trained(cls: type[Module], path: Path, noise: float | None, remedy: str) -> Module:
    """As :func:`load_module`, of a network that was trained with ``noise``; None for one without.

    Raises:
        UserError: as :func:`load_module`, or it was trained with another.
    """
    module, provenance = load_module(cls, path, remedy)
    if provenance.noise != noise:
        raise UserError(f"{path} was trained with noise {provenance.noise}, not {noise}: {remedy}")
    return module


def save_weights_only(source: dict[str, Any], path: Path) -> None:
    """Write, atomically, what inference needs of a Lightning checkpoint: no optimizer, loop or callback state.

    Raises:
        UserError: the folder cannot be written.
    """
    entries = {
        key: source[key]
        for key in (
            "state_dict",
            "pytorch-lightning_version",
            "epoch",
            "global_step",
            LightningModule.CHECKPOINT_HYPER_PARAMS_KEY,
            PROVENANCE,
        )
    }
    content = io.BytesIO()  # torch.save on a path turns a full disk into a RuntimeError of its own
    torch.save(entries, content)
    write_bytes(path, content.getvalue())
