"""What an attack may take from a model's answers: when it may leave an image alone, whether to ask again."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from src.attacks.margin import logits_of

#: Images, and answers to each, by which a module is seen to be random.
PROBED, PROBES = 8, 4


@torch.no_grad()
def is_random(module: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether ``module`` answers the same images differently when it is asked again; found out on the first few of
    ``x`` (N, C, H, W). Two answers of NaN are the same answer. The random streams and ``x`` are left as they were."""
    probed = x[:PROBED]
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        first, *others = (module(probed.clone()) for _ in range(PROBES))
        return not all(torch.allclose(first, other, rtol=0, atol=0, equal_nan=True) for other in others)


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
        return wrong(logits_of(model, x_adv), y)


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Which answers (N, K) are not the class ``y`` (N,); (N,), bool. One with a NaN is no answer, and wrong."""
    return (logits.argmax(1) != y) | logits.isnan().any(1)
