"""What an attacker can do to an image behind thresholds, all of it, one after the other: the independent check of a
certificate. And networks and images that are small enough for it.

Nothing here comes from the code that proves. A pixel matters to the network by its bits alone, so it is enough to try,
of each pixel, one value for each pattern of bits that it can take within eps.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from src.models import CertifiedVQVAE


def small_network(*thresholds: float) -> CertifiedVQVAE:
    """An untrained network for four classes and images (1, 8, 8), in ``eval()``."""
    torch.manual_seed(0)
    shape = {"convolutions": ((4, 3, 2, 1),), "linears": (8,), "dimension": 4, "num_classes": 4, "image_size": 8}
    made = CertifiedVQVAE(thresholds=thresholds, style_codes=2, style_dimension=2, hidden=2, **shape)
    for _ in range(200):  # statistics of its own
        made.margins(made.box(torch.rand(64, 1, 8, 8), 0.0), torch.zeros(64, dtype=torch.int64))
    return made.eval().requires_grad_(False)


def nearly_black_and_white(grey: int) -> Tensor:
    """Sixty images (1, 8, 8), black and white but for 1 to ``grey`` pixels each."""
    torch.manual_seed(1)
    x = torch.randint(0, 2, (60, 1, 8, 8)).float()
    for i, image in enumerate(x):
        places = torch.randperm(64)[: 1 + i % grey]
        image.view(-1)[places] = 0.25 + 0.5 * torch.rand(len(places))
    return x


#: Images that are shown to the network at a time.
BATCH = 1000


def choices(network: CertifiedVQVAE, x: Tensor, eps: float) -> list[list[float]]:
    """For each pixel of an image ``x`` (1, H, W) values within ``eps`` and [0, 1], one for each pattern of bits that
    the network can see of it. Values are float32, tried as the network tries them."""
    found = []
    for pixel in x.flatten().tolist():
        low, high = max(0.0, pixel - eps), min(1.0, pixel + eps)
        tried = [low, high, pixel]
        for threshold in network.thresholds:
            tried += [t for t in (threshold - 1e-6, threshold, threshold + 1e-6) if low <= t <= high]
        seen = network.bits(torch.tensor(tried).view(-1, 1, 1, 1)).flatten(1)
        patterns = {tuple(bits): value for bits, value in zip(seen.tolist(), tried, strict=True)}
        found.append(list(patterns.values()))
    return found


def patterns(network: CertifiedVQVAE, x: Tensor, eps: float) -> int:
    """How many images :func:`outcomes` has to try for ``x`` (1, H, W)."""
    return math.prod(len(values) for values in choices(network, x, eps))


def outcomes(
    network: CertifiedVQVAE, predicted: Callable[[Tensor], Tensor], x: Tensor, eps: float, at_most: int
) -> set[int]:
    """All classes that ``predicted``, images (N, 1, H, W) to classes (N,), gives to what an attacker with ``eps`` can
    make of one image ``x`` (1, H, W). The image must not need more than ``at_most`` tries."""
    values = choices(network, x, eps)
    assert math.prod(map(len, values)) <= at_most
    free = [place for place, each in enumerate(values) if len(each) > 1]
    classes: set[int] = set()
    combinations = itertools.product(*(values[place] for place in free))
    while some := list(itertools.islice(combinations, BATCH)):
        tried = x.flatten().repeat(len(some), 1)
        tried[:, free] = torch.tensor(some)
        classes |= set(predicted(tried.view(-1, *x.shape)).tolist())
    return classes
