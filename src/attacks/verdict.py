"""When an attack may leave an image alone."""

import torch
from torch import Tensor, nn


def may_stop(model: nn.Module, x: Tensor) -> bool:
    """Whether an image that fools ``model`` needs no further work.

    True only if the model says so itself, by a method ``verdict_counts(x) -> bool``: then what it says of an image is
    what will be counted. Of a bare classifier another model, the defended one, will be asked afterwards, and of a
    random one the next answer may be another.

    Args:
        model: x → logits.
        x: the images that are attacked, (N, C, H, W).
    """
    verdict_counts = getattr(model, "verdict_counts", None)
    return verdict_counts is not None and bool(verdict_counts(x))


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Which images ``model`` gets wrong; (N,), bool."""
    with torch.no_grad():
        return model(x_adv).argmax(1) != y
