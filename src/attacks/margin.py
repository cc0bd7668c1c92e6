"""By how much a model is wrong: the loss of attacks that compare images by its value.

The value of cross-entropy does not serve for that: of a confident network it is the same float32 number for many
images. The margin of the logits does not saturate, and its sign is the verdict (Carlini & Wagner, arXiv:1608.04644,
section V.A).
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from src.attacks.budget import check_labels


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """``model(x)``, if that can be logits. The model gets a copy: one that writes into its input cannot reach ``x``.

    Args:
        model: images → logits (N, K), K ≥ 2.
        x: images (N, C, H, W).

    Raises:
        ValueError: the model's output is not one tensor (N, K) with K ≥ 2, or its batch normalization is in training
            mode: an answer would depend on the other images, and the statistics would follow the attacked ones.
    """
    if isinstance(model, nn.Module) and any(isinstance(part, _BatchNorm) and part.training for part in model.modules()):
        raise ValueError("the model is in training mode, in which its batch normalization mixes images: call eval()")
    logits = model(x.clone())
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model must return logits (N, K); got a {type(logits).__name__}: wrap it in a module that returns its "
            "logits alone"
        )
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(f"the model must return logits (N, K), K ≥ 2; got {tuple(logits.shape)} for N={len(x)}")
    return logits


def margin_of(logits: Tensor, y: Tensor, rivals: Tensor | None = None) -> Tensor:
    """Max over k ≠ y of z_k, minus z_y, for logits z (N, K) and labels y (N,): positive where they are wrong; (N,).

    An image with a logit that is NaN has a margin of +inf: no answer is a wrong answer. Infinite logits count as large
    ones, so that every other margin is finite. Half precision is compared in float32.

    Args:
        rivals: classes k (N,), none of them y, that take the place of the highest other.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = torch.finfo(z.dtype).max / 4
    z, true = z.clamp(-largest, largest), y.unsqueeze(1)
    others = z.scatter(1, true, float("-inf"))
    other = others.amax(1) if rivals is None else z.gather(1, rivals.unsqueeze(1)).squeeze(1)
    return (other - z.gather(1, true).squeeze(1)).masked_fill(logits.isnan().any(1), float("inf"))


def margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """:func:`margin_of` the logits of ``model`` at ``x`` (N, C, H, W); without a gradient.

    Raises:
        ValueError: the model's output is not (N, K) with K ≥ 2, or a label is not one of its classes.
    """
    with torch.no_grad():
        logits = logits_of(model, x)
    check_labels(y, logits.shape[1])
    return margin_of(logits, y)


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
