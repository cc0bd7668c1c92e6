"""What an attack costs on any machine: how many images went through the classifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks.verdict import probing


@dataclass
class Propagations:
    """Images that went through a network, the measure of AttackBench (Cinà et al., arXiv:2404.19460). A gradient is one
    forward and one backward; an attack that averages over 20 random answers counts all of them."""

    forward: int = 0
    backward: int = 0

    @property
    def tensor(self) -> Tensor:
        """Both as a tensor (2,), int64, to be stored."""
        return torch.tensor([self.forward, self.backward])

    @classmethod
    def of(cls, stored: Tensor) -> "Propagations":
        """What :attr:`tensor` gave.

        Raises:
            ValueError: that is not it.
        """
        if stored.shape != (2,) or stored.dtype != torch.int64 or bool((stored < 0).any()):
            raise ValueError("its number of propagations is none")
        return cls(*map(int, stored))


@contextmanager
def counted(network: nn.Module) -> Iterator[Propagations]:
    """Counts the images that go through ``network``, whoever calls it, while inside. Those that only show whether a
    model is random (:func:`src.attacks.verdict.is_random`) do not count: whoever comes first asks them, and once."""
    count = Propagations()

    def backward(gradient: Tensor) -> None:
        count.backward += len(gradient)

    def forward(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim and not probing.get():
            count.forward += len(output)
            if output.requires_grad:
                output.register_hook(backward)

    hook = network.register_forward_hook(forward)
    try:
        yield count
    finally:
        hook.remove()
