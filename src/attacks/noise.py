"""Noise: what accuracy costs without an adversary, and the least that every attack has to beat."""

import torch
from torch import Tensor, nn

from src.attacks.budget import check_adversarial, check_budget, project
from src.attacks.margin import Best, margin


def uniform(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, samples: int = 10) -> Tensor:
    """The worst of ``samples`` draws of uniform noise in [−eps, eps] at every pixel, clipped to [0, 1].

    Which draw is the worst of an image is decided by the margin of ``model``; there is no gradient in it. The draws
    come from torch's global stream.

    Args:
        model: images → logits (N, K).
        x: clean images (N, C, H, W), float, in [0, 1].
        y: true labels (N,), int64.
        eps: L∞ budget in pixel units, in [0, 1]; 0 returns ``x`` itself.
        samples: draws an image, ≥ 1.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Examples:
        >>> import torch
        >>> x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
        >>> noisy = uniform(torch.nn.Flatten(), x, y, eps=0.1)
        >>> bool((noisy - x).abs().max() <= 0.1)
        True

    Raises:
        ValueError: arguments out of range, or a model whose output is not (N, K).
    """
    check_budget(x, y, eps)
    if samples < 1:
        raise ValueError(f"samples must be at least 1; got {samples}")
    if eps == 0:
        return x
    best = Best(x)
    for _ in range(samples):
        noisy = project(x + eps * (2 * torch.rand_like(x) - 1), x, eps)
        best.offer(noisy, margin(model, noisy, y))
    return check_adversarial(best.images, x, eps)
