"""By how much a model is wrong: the loss of attacks that compare images by its value.

Cross-entropy serves where only its gradient is followed. Its value does not serve for comparing: of a confident network
it is the same float32 number for many images. The margin of the logits does not saturate, and its sign is the verdict
(Carlini & Wagner, arXiv:1608.04644, section V.A).
"""

import torch
from torch import Tensor, nn


def margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """max over k ≠ y of z_k(x), minus z_y(x): positive where ``model`` is wrong; shape (N,).

    Args:
        model: images → logits z, (N, K), K ≥ 2.
        x: images (N, C, H, W).
        y: true labels (N,), int64.

    Raises:
        ValueError: the model's output is not (N, K) with K ≥ 2.
    """
    logits = model(x)
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(f"the model must return logits (N, K), K ≥ 2; got {tuple(logits.shape)} for N={len(x)}")
    true = y.unsqueeze(1)
    return logits.scatter(1, true, float("-inf")).amax(1) - logits.gather(1, true).squeeze(1)


def margin_and_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`margin`, (N,), and its gradient with respect to each image by itself, of the shape of ``x``.

    Zero where the model has no gradient. Works under ``torch.no_grad()`` too, but not under ``torch.inference_mode()``.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = margin(model, x, y)
        gradient = torch.autograd.grad(value.sum(), x, allow_unused=True)[0] if value.requires_grad else None
    return value.detach(), torch.zeros_like(x).detach() if gradient is None else gradient


class Best:
    """For each image the attacked version with the largest margin among those offered; at first ``x`` itself.

    The first offer is taken whatever its margin, a later one only if its margin is larger.
    """

    def __init__(self, x: Tensor) -> None:
        self.images = x
        self.margins = torch.full((len(x),), float("-inf"), device=x.device, dtype=x.dtype)

    def offer(self, x_adv: Tensor, margins: Tensor) -> None:
        """Take from ``x_adv`` (N, C, H, W) the images whose ``margins`` (N,) are larger than the best so far."""
        better = margins > self.margins
        self.images = torch.where(better.view(-1, 1, 1, 1), x_adv, self.images)
        self.margins = torch.where(better, margins, self.margins)
