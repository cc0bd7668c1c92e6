"""Attack another network, and hope: the attacker who cannot look into the model."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from src.attacks.budget import check_budget, within_budget
from src.attacks.margin import logits_of


def transfer(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, source: nn.Module, attack: Callable[..., Tensor]
) -> Tensor:
    """Images that ``attack`` makes for ``source``, whatever ``model`` is (Papernot et al., arXiv:1605.07277).

    A defense that stands an attack through its own gradient, and falls to one that knows nothing of it, has hidden its
    gradient and is not robust (Carlini et al., arXiv:1902.06705).

    Args:
        model: not used.
        x: clean images (N, C, H, W), float, in [0, 1].
        y: true labels (N,), int64.
        eps: L∞ budget in pixel units, in [0, 1]; 0 returns ``x`` itself.
        source: the network attacked instead, images → logits (N, K). It is moved to the device of ``x``.
        attack: any attack of this room, (model, x, y, eps=…) → x_adv.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Raises:
        ValueError: arguments out of range, the source answers NaN to a clean image, or what ``attack`` raises.
    """
    check_budget(x, y, eps)
    if eps == 0:
        return x
    source = source.to(x.device)
    with torch.no_grad():
        broken = int(logits_of(source, x).isnan().any(1).sum())
    if broken:  # there would be no gradient to follow, and every model would look robust
        raise ValueError(f"the source of the transfer answers NaN to {broken} of {len(x)} clean images: train it again")
    return within_budget(partial(attack, eps=eps), source, x, y, eps)
