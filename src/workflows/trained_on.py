"""Which images a network was trained on, and whether it may be used beside others."""

from pathlib import Path

from src.data import ImageDataModule
from src.errors import UserError
from src.models.checkpoint import Provenance


def trained_on(data: ImageDataModule, split: str, found: Provenance, path: Path, remedy: str) -> Provenance:
    """``found``, if it was trained on ``data``, and on none of the images of ``split``.

    Raises:
        UserError: it was not.
    """
    if found.data_fingerprint != data.fingerprint or found.image_shape != list(data.image_shape):
        raise UserError(
            f"{path} was trained on {found.data} {found.image_shape}, not on {data.name} {list(data.image_shape)}; "
            f"train it with: {remedy}"
        )
    # The validation images are the first val_size of an order that depends on split_seed alone.
    kept_out = found.split_seed == data.split_seed and found.val_size >= data.val_size
    if split == "val" and not kept_out:
        raise UserError(
            f"{path} was trained on some of these validation images: its training set {found.val_size} images aside by "
            f"split_seed {found.split_seed}; use data.split_seed={found.split_seed} data.val_size={found.val_size}, or "
            f"train it for this split: {remedy} data.split_seed={data.split_seed} data.val_size={data.val_size}"
        )
    return found
