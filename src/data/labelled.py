"""A labelled image set as tensors, and how its shape is said."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


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


def shown_size(sizes: Sequence[int]) -> str:
    """``3 × 32 × 32``."""
    return " × ".join(str(size) for size in sizes)
