"""What a model's answers say: whether an image fools it, and whether the next answer may be another."""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from src.attacks.margin import logits_of
from src.randomness import random_streams_kept

#: Images, and answers to each, by which a module is tested for randomness.
PROBED, PROBES = 8, 4

#: Whether :func:`is_random` is running: its forward passes are no part of an attack's cost.
probing: ContextVar[bool] = ContextVar("probing", default=False)


@torch.no_grad()
def is_random(module: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether ``module`` answers the same images differently when it is asked again, tested on the first few of
    ``x`` (N, C, H, W). Two answers of NaN are the same answer. The random streams and ``x`` are left as they were.

    Of a ``defense`` before a ``classifier``, such as :class:`src.defended.DefendedClassifier` has, the defense is asked
    as well: the classifier may hide its differences in these few images.
    """
    images, asked = x[:PROBED], [module]
    defense = getattr(module, "defense", None)
    if isinstance(defense, nn.Module) and hasattr(module, "classifier"):
        asked.append(defense)
    token = probing.set(True)
    try:
        with random_streams_kept():
            return any(_differs(part, images) for part in asked)
    finally:
        probing.reset(token)


def _differs(module: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    first, *others = (module(images.clone()) for _ in range(PROBES))
    return not all(torch.allclose(first, other, rtol=0, atol=0, equal_nan=True) for other in others)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Which images ``model`` gets wrong; (N,), bool."""
    with torch.no_grad():
        return wrong(logits_of(model, x_adv), y)


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Which answers (N, K) are not the class ``y`` (N,); (N,), bool. One with a NaN is no answer, and wrong."""
    return (logits.argmax(1) != y) | logits.isnan().any(1)
