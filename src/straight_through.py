"""Gradients for what has none."""

import torch
from torch import Tensor, nn

from src.images import check_purified


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """``value`` in the forward pass, bit for bit; the gradient of ``carrier`` in the backward pass.

    The straight-through estimator of Bengio et al. (arXiv:1308.3432), which is BPDA with the identity
    (Athalye et al., arXiv:1802.00420) when ``carrier`` is the input of a step function and ``value`` its output.
    Written as value + (carrier − carrier), which is exact; the usual carrier + (value − carrier) is off by
    a rounding error. Both tensors must be finite and of one shape.

    Examples:
        >>> x = torch.tensor([0.2, 0.7], requires_grad=True)
        >>> rounded = straight_through(x.round(), x)
        >>> rounded.sum().backward()
        >>> rounded.detach(), x.grad
        (tensor([0., 1.]), tensor([1., 1.]))
    """
    return value.detach() + (carrier - carrier.detach())


class StraightThrough(nn.Module):
    """``purifier``, with the gradient of the identity in place of its own: BPDA with the identity (Athalye et al.,
    arXiv:1802.00420). For a purifier whose own gradient is of no use, such as one with a rounding in it, whose gradient
    is zero.

    Args:
        purifier: images → images of the same shape.
    """

    def __init__(self, purifier: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier

    def forward(self, x: Tensor) -> Tensor:
        """What ``purifier`` makes of ``x`` (N, C, H, W), bit for bit."""
        with torch.no_grad():
            value = self.purifier(x.clone())  # a copy: x is read again below
        check_purified(value, x)
        return straight_through(value, x) if torch.is_grad_enabled() else value


class Surrogated(nn.Module):
    """``purifier``, with the gradient of its ``surrogate``: BPDA (Athalye et al., arXiv:1802.00420, section 4).

    Args:
        purifier: x → x̂, with a method ``surrogate(x)``: a function of the same shape that is close to it and has a
            useful gradient.
    """

    def __init__(self, purifier: nn.Module) -> None:
        super().__init__()
        self.purifier = purifier

    def forward(self, x: Tensor) -> Tensor:
        """x̂, bit for bit; the surrogate is computed only where a gradient will be asked for."""
        with torch.no_grad():
            value = self.purifier(x.clone())  # a copy: x is read again below
        if not torch.is_grad_enabled():
            return value
        carrier: Tensor = self.purifier.surrogate(x)  # type: ignore[operator]
        return straight_through(value, carrier)
