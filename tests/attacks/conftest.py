"""Models that attacks are tried on."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn


class Asked(nn.Module):
    """``model``. Keeps the number of images that it was asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.model(x)


class Brightness(nn.Module):
    """No parameters: two classes by the mean brightness of the upper and of the lower half."""

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = x.chunk(2, dim=2)
        return torch.stack([upper.flatten(1).mean(1), lower.flatten(1).mean(1)], 1)


@pytest.fixture
def asked() -> type[Asked]:
    return Asked


@pytest.fixture
def parameterless() -> nn.Module:
    return Brightness().eval()


@pytest.fixture
def undisturbed() -> Callable[[], object]:
    """``with undisturbed():`` the random streams of Python and NumPy must come out as they went in."""

    @contextmanager
    def watch() -> Iterator[None]:
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        yield
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002

    return watch


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()
