"""What a user might add: a defense and an attack of their own, and a defense that breaks."""

import torch
from torch import Tensor, nn


class Blur(nn.Module):
    """Mean of each pixel's 3×3 neighbourhood."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


class Broken(nn.Module):
    """Fails on attacked images and works on clean ones."""

    def forward(self, x: Tensor) -> Tensor:
        if x.unique().numel() > 400:
            raise RuntimeError("this defense is broken")
        return x


def random_signs(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """Noise of ± eps."""
    return (x + eps * torch.randn_like(x).sign()).clamp(0, 1)
