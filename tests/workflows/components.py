"""What a user might add: a defense and an attack of their own, and a defense that breaks."""

import torch
from torch import Tensor, nn


class Blur(nn.Module):
    """Mean of each pixel's 3×3 neighbourhood."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


class Broken(nn.Module):
    """Works on clean images and on a single one, and fails on a batch with grey values that no 8-bit image has."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 and (x * 255 - (x * 255).round()).abs().max() > 0.1:
            raise RuntimeError("this defense is broken")
        return x


def random_signs(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """Noise of ± eps."""
    return (x + eps * torch.randn_like(x).sign()).clamp(0, 1)
