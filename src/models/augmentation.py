"""Training images as they might have been drawn as well: moved, turned, stretched, slanted."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: What makes up for the blur of :func:`warped`: with it as many of a digit's pixels are grey (0.2 to 0.8) as before.
SHARPENED = 1.25


def shifted(x: Tensor, most: int) -> Tensor:
    """Images (N, C, H, W), each moved by up to ``most`` pixels, its own number in each direction; zeros come in."""
    if not most:
        return x
    n, channels, height, width = x.shape
    down, across = torch.randint(2 * most + 1, (2, n, 1), device=x.device)
    rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (across + torch.arange(width, device=x.device))[:, None, None, :]
    images = torch.arange(n, device=x.device)[:, None, None, None]
    return F.pad(x, (most,) * 4)[images, torch.arange(channels, device=x.device)[:, None, None], rows, columns]


def warped(x: Tensor, most: float) -> Tensor:
    """Images (N, C, H, W) in [0, 1], each turned, stretched and slanted about its centre by a matrix of its own: the
    identity, each entry off by up to ``most``; zeros come in."""
    if not most:
        return x
    n, _, height, width = x.shape
    down, across = ((2 * torch.arange(size, device=x.device) + 1) / size - 1 for size in (height, width))
    matrix = most * (2 * torch.rand(2, 2, n, 1, 1, device=x.device) - 1)
    # Written out, for a matrix product may be computed in bfloat16, which is too coarse for coordinates
    columns = across + matrix[0, 0] * across + matrix[0, 1] * down[:, None]
    rows = down[:, None] + matrix[1, 0] * across + matrix[1, 1] * down[:, None]
    images = F.grid_sample(x, torch.stack([columns, rows], -1), mode="bicubic", align_corners=False)
    return (0.5 + SHARPENED * (images - 0.5)).clamp(0, 1)
