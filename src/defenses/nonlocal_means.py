"""Non-local means."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NonLocalMeans(nn.Module):
    """x̂ᵢ = Σⱼ wᵢⱼ xⱼ / Σⱼ wᵢⱼ with wᵢⱼ = exp(−d²ᵢⱼ / h²), over the pixels j of a window around i.

    d²ᵢⱼ is the mean squared difference, over channels and pixels, of the patches around i and j (Buades, Coll & Morel,
    CVPR 2005). As a defense: Xu et al., arXiv:1704.01155, section III.B. Outside the image its outermost pixels repeat.
    The gradient is its own.

    Args:
        strength: h, in pixel units, > 0.
        window: side of the window in pixels, odd.
        patch: side of a patch in pixels, odd.
    """

    def __init__(self, strength: float = 0.1, window: int = 11, patch: int = 3) -> None:
        super().__init__()
        if not 0 < strength < float("inf"):
            raise ValueError(f"strength must be finite and positive, in pixel units; got {strength}")
        if any(side < 1 or side % 2 != 1 for side in (window, patch)):
            raise ValueError(f"window and patch must be odd numbers of pixels; got {window} and {patch}")
        self.strength, self.window, self.patch = strength, int(window), int(patch)

    def forward(self, x: Tensor) -> Tensor:
        """Smoothed images of the shape of ``x`` (N, C, H, W)."""
        height, width = x.shape[2:]
        reach, border = self.window // 2, self.patch // 2
        padded = F.pad(x, [reach + border] * 4, mode="replicate")
        # What a patch around a pixel of x needs: x with ``border`` more pixels on each side
        rows, columns = height + 2 * border, width + 2 * border
        center = padded[:, :, reach : reach + rows, reach : reach + columns]
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for down in range(self.window):
            for right in range(self.window):
                shifted = padded[:, :, down : down + rows, right : right + columns]
                difference = (shifted - center).square().mean(1, keepdim=True)
                weight = (-F.avg_pool2d(difference, self.patch, stride=1) / self.strength**2).exp()
                total = total + weight * shifted[:, :, border : border + height, border : border + width]
                weights = weights + weight
        return total / weights
