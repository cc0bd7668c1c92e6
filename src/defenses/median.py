"""Median smoothing."""

from torch import Tensor, nn
from torch.nn import functional as F


class MedianFilter(nn.Module):
    """x̂ᵢ is the median of the ``size`` × ``size`` pixels around i, in each channel by itself.

    Feature squeezing by local smoothing (Xu et al., arXiv:1704.01155, section III.B). Outside the image its outermost
    pixels repeat. Of an even number of pixels the upper one of the middle two is taken, and the window reaches one
    pixel further up and left, as in SciPy's ``median_filter``. The gradient is the filter's own: that of the pixel
    that is the median.

    Args:
        size: side of the window in pixels, ≥ 1; 1 changes nothing.

    Examples:
        >>> import torch
        >>> MedianFilter(size=3)(torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]]))
        tensor([[[[0., 0., 0., 0.]]]])
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        if size < 1 or size != int(size):
            raise ValueError(f"size must be a whole number of pixels from 1; got {size}")
        self.size = int(size)

    def forward(self, x: Tensor) -> Tensor:
        """Smoothed images of the shape of ``x`` (N, C, H, W)."""
        size = self.size
        before, after = size // 2, size - 1 - size // 2
        padded = F.pad(x, (before, after, before, after), mode="replicate")
        windows = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)  # (N, C, H, W, size²)
        return windows.kthvalue(size**2 // 2 + 1, dim=4).values
