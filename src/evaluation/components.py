"""What the data of a spec stand for once they are loaded."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from src.evaluation.spec import Component, DataSpec


@dataclass(frozen=True)
class TestSet:
    """Images (N, C, H, W), float32, in [0, 1] and labels (N,), int64, in canonical order.

    Raises:
        ValueError: they are something else.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    images: Tensor
    labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        x, y = self.images, self.labels
        if x.ndim != 4 or x.dtype != torch.float32 or y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise ValueError(
                "images must be float32 (N, C, H, W) and labels int64 (N,); "
                f"got {x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
            )
        if x.numel() and not (x.min() >= 0 and x.max() <= 1):  # false for NaN as well
            raise ValueError(f"images must be in [0, 1]; got values from {x.min():.4g} to {x.max():.4g}")
        if len(y) and not (y.min() >= 0 and y.max() < self.num_classes):
            raise ValueError(f"labels must be 0 to {self.num_classes - 1}; got {y.min()} to {y.max()}")


class Components(Protocol):
    """Loads and builds what a :class:`src.evaluation.CellSpec` names. It may keep what it has made."""

    def images(self, data: DataSpec) -> TestSet:
        """The images and labels of ``data``."""

    def classifier(self, identity: Any) -> nn.Module:
        """The classifier x -> logits that a spec names by ``identity``."""

    def build(self, component: Component | None) -> Any:
        """What ``component`` builds: an attack, a threat or a purifier. None builds the purifier that does nothing."""
