"""What an attack may take from a model's answers: when it may leave an image alone, whether to ask again."""

import torch
from torch import Tensor, nn

#: Images, and answers to each, by which a module is seen to be random.
PROBED, PROBES = 8, 4


@torch.no_grad()
def is_random(module: nn.Module, x: Tensor) -> bool:
    """Whether ``module`` answers the same images differently when it is asked again; found out on the first few of
    ``x`` (N, C, H, W). The random streams are left as they were."""
    probed = x[:PROBED]
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        first = module(probed)
        return not all(torch.equal(first, module(probed)) for _ in range(PROBES - 1))


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
