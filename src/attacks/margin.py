"""By how much a model is wrong: the loss of attacks that compare images by its value.

Cross-entropy serves where only its gradient is followed. Its value does not serve for comparing: of a confident network
it is the same float32 number for many images. The margin of the logits does not saturate, and its sign is the verdict
(Carlini & Wagner, arXiv:1608.04644, section V.A).
"""

import torch
from torch import Tensor, nn


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """``model(x)``, if that can be logits.

    Args:
        model: images → logits (N, K), K ≥ 2.
        x: images (N, C, H, W).

    Raises:
        ValueError: the model's output is not (N, K) with K ≥ 2.
    """
    logits = model(x)
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(f"the model must return logits (N, K), K ≥ 2; got {tuple(logits.shape)} for N={len(x)}")
    return logits


def margin_of(logits: Tensor, y: Tensor, rivals: Tensor | None = None) -> Tensor:
    """max over k ≠ y of z_k, minus z_y, for logits z (N, K) and labels y (N,): positive where they are wrong; (N,).

    Args:
        rivals: classes k (N,), none of them y, that take the place of the highest other.
    """
    true = y.unsqueeze(1)
    if rivals is None:
        return logits.scatter(1, true, float("-inf")).amax(1) - logits.gather(1, true).squeeze(1)
    return logits.gather(1, rivals.unsqueeze(1)).squeeze(1) - logits.gather(1, true).squeeze(1)


def margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """:func:`margin_of` the logits of ``model`` at ``x`` (N, C, H, W); without a gradient."""
    with torch.no_grad():
        return margin_of(logits_of(model, x), y)


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
