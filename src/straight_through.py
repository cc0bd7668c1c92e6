"""Gradients for what has none."""

from torch import Tensor


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """``value`` in the forward pass, bit for bit; the gradient of ``carrier`` in the backward pass.

    The straight-through estimator of Bengio et al. (arXiv:1308.3432), which is BPDA with the identity
    (Athalye et al., arXiv:1802.00420) when ``carrier`` is the input of a step function and ``value`` its output.
    Written as value + (carrier − carrier), which is exact; the usual carrier + (value − carrier) is off by
    a rounding error. Both tensors must be finite and of one shape.
    """
    return value.detach() + (carrier - carrier.detach())
