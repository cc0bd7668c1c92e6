"""Random noise, size and position."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomResizePad(nn.Module):
    """x̂ is x + σ·n, n ~ N(0, I), clipped to [0, 1], made smaller by a random factor and put at a random place on black.

    Xie et al., arXiv:1711.01991, enlarge images before they pad them; here the shape must stay, so the image shrinks.
    Factor and place are drawn for each image from torch's global stream. Sampling is bilinear. The gradient is its own;
    an attacker who knows the defense averages over its answers (``eot_samples``).

    Args:
        noise: σ, in pixel units, ≥ 0.
        smallest: least side of the image, as a share of its side, in (0, 1]; 1 leaves it as it is.
    """

    def __init__(self, noise: float = 0.05, smallest: float = 0.8) -> None:
        super().__init__()
        if not 0 <= noise < float("inf") or not 0 < smallest <= 1:
            raise ValueError(f"noise must be finite and at least 0, smallest in (0, 1]; got {noise} and {smallest}")
        self.noise, self.smallest = noise, smallest

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape of ``x`` (N, C, H, W)."""
        if self.noise:
            x = (x + self.noise * torch.randn_like(x)).clamp(0, 1)
        if self.smallest == 1:
            return x
        numbers = torch.rand(3, len(x), dtype=x.dtype, device=x.device)
        scale = self.smallest + (1 - self.smallest) * numbers[0]
        room = 1 - scale  # how far the center may be from the middle, in units of half an image
        right, down = (room * (2 * number - 1) for number in numbers[1:])
        zero = torch.zeros_like(scale)
        # The point of x that a pixel of the result comes from: (position − center) / scale
        rows = ([1 / scale, zero, -right / scale], [zero, 1 / scale, -down / scale])
        theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
