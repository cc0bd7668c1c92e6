"""An attack on smoothed classifiers, to hold their certificates against."""

from collections.abc import Callable

import torch
from torch import Tensor


def l2_pgd(
    classify: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    sigma: float,
    radius: float,
    steps: int = 10,
    draws: int = 32,
) -> Tensor:
    """PGD in the L2 ball on the smoothed classifier, Salman et al. (arXiv:1906.04584), equation 7: it descends the
    logarithm of the mean softmax over noisy copies. Pixels may leave [0, 1], because a certificate holds there, too.

    Args:
        classify: the base classifier, (N, C, H, W) → logits.
        x: images (N, C, H, W).
        y: labels (N,).
        draws: noisy copies of each image, the same at every step.

    Returns:
        Images within ``radius`` of ``x``.
    """
    noise = sigma * torch.randn(draws, *x.shape, generator=torch.Generator().manual_seed(1))
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_(True)
        logits = classify((x + delta + noise).flatten(0, 1))
        likely = logits.log_softmax(1).view(draws, len(x), -1)[:, torch.arange(len(x)), y].logsumexp(0)
        gradient = torch.autograd.grad(likely.sum(), delta)[0].flatten(1)
        unit = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
        moved = delta.detach().flatten(1) - 2.5 * radius / steps * unit
        shrink = (radius / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        delta = (moved * shrink).view_as(x)
    return x + delta


@torch.no_grad()
def majority(classify: Callable[[Tensor], Tensor], x: Tensor, sigma: float, draws: int = 200) -> Tensor:
    """The smoothed classifier's class for images (N, C, H, W), by a vote of ``draws`` noisy copies; (N,)."""
    generator = torch.Generator().manual_seed(2)
    votes: Tensor | int = 0
    for _ in range(draws):
        logits = classify(x + sigma * torch.randn(x.shape, generator=generator))
        votes = votes + torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
    assert isinstance(votes, Tensor)
    return votes.argmax(1)
