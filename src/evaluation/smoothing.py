"""Randomized smoothing: a radius around an image within which no perturbation changes what is predicted.

Cohen et al., arXiv:1902.02918. The smoothed classifier g(x) is the class that the base classifier f gives most often to
x + σ·n, n ~ N(0, I). If f gives class c with a probability of at least p > 1/2, then g is c everywhere within an L2
distance of σ Φ⁻¹(p) (theorem 1, with 1 - p as the bound on every other class's probability). f is any function at all:
with f = classifier ∘ denoiser this is denoised smoothing, Salman et al., arXiv:2003.01908.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from src.evaluation.certificates import ABSTAIN
from src.evaluation.statistics import certified_radius

Classify = Callable[[Tensor], Tensor]  #: images (N, C, H, W) -> logits (N, K)

#: Samples whose noise is drawn at a time. Part of what the random numbers are, whatever the batch.
DRAWN = 100


@dataclass(frozen=True)
class Certificate:
    """What :func:`certify` found out about one image."""

    predicted: int  #: the smoothed classifier's class, or :data:`ABSTAIN`
    radius: float  #: L2 radius in pixel units within which it predicts that class; 0 where it abstains
    count: int  #: of the n samples, those that the base classifier gave the class of the first n0
    n: int  #: samples that the bound rests on


class NoisyCopies:
    """Copies x + σ·n of one image with fresh n ~ N(0, I) each: one sequence, whatever number is taken at a time.

    The copies are not clipped to [0, 1], though no image has such pixels. The theorem is about Gaussian noise at the
    input of the base classifier; a clipped one is another distribution. A classifier or denoiser may clip its input as
    it likes: that is a part of the function being smoothed.

    Args:
        x: image (C, H, W), float.
        sigma: σ in pixel units.
        batch: the largest number taken at a time, ≥ 1.
        generator: source of the noise, on the device of ``x``.
    """

    def __init__(self, x: Tensor, sigma: float, batch: int, generator: torch.Generator) -> None:
        self.x, self.sigma, self.generator = x, sigma, generator
        # As many values whatever the batch: how a generator fills a tensor depends on the tensor's size.
        self._noise = torch.empty((DRAWN, *x.shape), dtype=x.dtype, device=x.device)
        self._used = DRAWN
        self._copies = torch.empty((batch, *x.shape), dtype=x.dtype, device=x.device)
        if x.ndim == 3:
            self._copies = self._copies.to(memory_format=torch.channels_last)

    def take(self, number: int) -> Tensor:
        """The next copies, (number, C, H, W), in memory that the next call writes over."""
        filled = 0
        while filled < number:
            if self._used == DRAWN:
                self._noise.normal_(generator=self.generator)
                self._used = 0
            size = min(number - filled, DRAWN - self._used)
            noise = self._noise[self._used : self._used + size]
            torch.add(self.x, noise, alpha=self.sigma, out=self._copies[filled : filled + size])
            self._used, filled = self._used + size, filled + size
        return self._copies[:number]


@torch.inference_mode()
def count_votes(classify: Classify, copies: NoisyCopies, n: int, batch: int) -> Tensor:
    """How often each class is given to the next ``n`` noisy copies, (K,), int64; ``batch`` of them at a time. A copy
    whose logits hold a NaN is given no class.

    Raises:
        ValueError: ``classify`` does not return logits (N, K).
    """
    votes = []
    for begin in range(0, n, batch):
        x = copies.take(min(batch, n - begin))
        logits = classify(x)
        if logits.ndim != 2 or len(logits) != len(x):
            raise ValueError(f"the classifier must return logits (N, K); got {tuple(logits.shape)} for N={len(x)}")
        classes = torch.arange(logits.shape[1], device=logits.device)
        is_number = ~logits.isnan().any(1, keepdim=True)  # argmax would take NaN for the highest
        votes.append(((logits.argmax(1, keepdim=True) == classes) & is_number).sum(0))
    return torch.stack(votes).sum(0)


def certify(
    classify: Classify,
    x: Tensor,
    sigma: float,
    *,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch: int = 100,
    generator: torch.Generator,
) -> Certificate:
    """CERTIFY of Cohen et al., section 3.2.2: ``n0`` samples choose a class, ``n`` fresh ones bound its probability.

    All ``n`` samples are always drawn: to stop once they look good enough would void the bound.

    Args:
        classify: the base classifier, (N, C, H, W) → logits (N, K); takes inputs outside [0, 1].
        x: image (C, H, W) in [0, 1], on the device of the classifier.
        sigma: σ of the noise in pixel units, > 0: exactly what is added to ``x``.
        n0: samples that choose the class, ≥ 1.
        n: samples that bound its probability, ≥ 1.
        alpha: probability that the certificate is wrong, in (0, 1); taken over the noise, for each image by itself.
        batch: samples classified at a time, ≥ 1. Changes results by no more than float rounding.
        generator: source of the noise, on the device of ``x``.

    Raises:
        ValueError: an argument out of its range, or ``classify`` does not return logits.

    Examples:
        Two classes, told apart by the mean of four pixels: above or below 1/2. Its noise has a standard deviation of
        ``sigma`` / 2, so that an image of ones is 4 of them away from the other class.

        >>> def bright(x):
        ...     mean = x.flatten(1).mean(1)
        ...     return torch.stack([0.5 - mean, mean - 0.5], 1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> certificate = certify(bright, torch.ones(1, 2, 2), sigma=0.25, n=1000, generator=generator)
        >>> certificate.predicted, round(certificate.radius, 3)  # the distance is 1
        (1, 0.616)
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma must be finite and above 0; got {sigma}")
    if min(n0, n, batch) < 1:
        raise ValueError(f"n0, n and batch must be at least 1; got {n0}, {n} and {batch}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1; got {alpha}")
    copies = NoisyCopies(x, sigma, batch, generator)
    predicted = int(count_votes(classify, copies, n0, batch).argmax())
    count = int(count_votes(classify, copies, n, batch)[predicted])
    radius = certified_radius(count, n, sigma, alpha)
    return Certificate(predicted if radius > 0 else ABSTAIN, radius, count, n)


def image_stream(seed: int, index: int, device: torch.device) -> torch.Generator:
    """The random numbers of one image: a stream of its own, so that neither the order of images nor an interruption
    nor the number of processes changes them. Kinds of devices have different streams.

    Args:
        seed: of the certification.
        index: of the image in its test set.
    """
    digest = hashlib.sha256(f"certify {seed} {index}".encode()).digest()
    # The CPU's generator would ignore all but 32 bits.
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "little"))
