"""Fewer grey levels."""

from torch import Tensor, nn

from src.straight_through import straight_through


class BitDepth(nn.Module):
    """x̂ = round(x · m) / m with m = 2ᵇ − 1: the nearest of 2ᵇ equally spaced levels from 0 to 1.

    Feature squeezing by bit depth (Xu et al., arXiv:1704.01155, section III.A). One bit is thresholding at 0.5. The
    gradient passes straight through.

    Args:
        bits: b, a whole number from 1 to 8.

    Examples:
        >>> import torch
        >>> BitDepth(bits=2)(torch.tensor([[[[0.1, 0.3, 0.6, 0.95]]]]))
        tensor([[[[0.0000, 0.3333, 0.6667, 1.0000]]]])
    """

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        if bits not in range(1, 9):
            raise ValueError(f"bits must be a whole number from 1 to 8; got {bits}")
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Images of 2ᵇ levels a channel, of the shape of ``x`` (N, C, H, W)."""
        highest = 2**self.bits - 1
        return straight_through((x * highest).round() / highest, x)
