"""A labelled image set as tensors, what its user should know of it, and how its shape is said."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from src.errors import UserError


class Labelled(NamedTuple):
    """Images uint8 (N, C, H, W) and their labels uint8 (N,)."""

    images: Tensor
    labels: Tensor


class LabelledSet(NamedTuple):
    """A data set as it was read from files of another form."""

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]  #: names, by label; empty where there are none
    notes: tuple[str, ...]  #: what its user should know, a sentence each


def check_range(images: Tensor, name: str) -> None:
    """Check that images, uint8, are of the range 0 to 255.

    Args:
        images: all of a part, of any shape.
        name: what the error calls them.

    Raises:
        UserError: no value exceeds 1, as in images from 0 to 1 that were cast; nearly all would be black.
    """
    if images.numel() and images.max() <= 1:
        raise UserError(f"{name}: images never exceed 1 of 255; multiply them by 255, before they are made uint8")


def notes_on(train: Labelled, test: Labelled) -> list[str]:
    """What a user should know of two parts that are to be different images of the same classes; nothing if they are."""
    notes = []
    seen = set(_hashes(train.images))
    if copies := sum(each in seen for each in _hashes(test.images)):
        said = "is a copy of a training image" if copies == 1 else "are copies of training images"
        notes.append(f"{copies:,} of {len(test.labels):,} test images {said}")
    known, tested = (set(part.labels.tolist()) for part in (train, test))
    if known - tested:
        notes.append(f"the test images have {len(known & tested)} of {len(known)} classes")
    return notes


def _hashes(images: Tensor) -> Iterator[bytes]:
    """16 bytes for each image that stand for its values; equal images have equal ones."""
    for values in images.flatten(1).contiguous().numpy():
        yield hashlib.blake2b(values, digest_size=16).digest()


def shown_size(sizes: Sequence[int]) -> str:
    """``3 × 32 × 32``."""
    return " × ".join(str(size) for size in sizes)
