"""Error bars, and the radius that a count of votes certifies. Reports use them without PyTorch."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

from scipy.special import bdtrc, betaincinv, ndtri  # not scipy.stats, which takes a second to import


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), as fractions.

    Args:
        correct: successes, 0 ≤ correct ≤ n.
        n: trials, ≥ 1.
        confidence: in (0, 1).

    Examples:
        >>> low, high = wilson_interval(95, 100)
        >>> round(low, 4), round(high, 4)
        (0.8882, 0.9785)
    """
    z, p = float(ndtri(0.5 + 0.5 * confidence)), correct / n
    scale = 2 * (n + z**2)
    centre, half = (2 * n * p + z**2) / scale, z / scale * sqrt(4 * n * p * (1 - p) + z**2)
    return (centre - half if correct else 0.0), (centre + half if correct < n else 1.0)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1 in the denominator), in the unit of the values.

    Args:
        values: one or more; a single one has no deviation, which is None then.

    Examples:
        >>> mean_and_deviation([0.5, 0.75])
        (0.625, 0.1767766952966369)
    """
    return fmean(values), stdev(values) if len(values) > 1 else None


def certified_radius(count: int, n: int, sigma: float, alpha: float) -> float:
    """The L2 radius of theorem 1 of Cohen et al., arXiv:1902.02918: σ Φ⁻¹(p), p the lower bound of :func:`lower_bound`;
    0 if p is not above 1/2, where nothing is certified.

    Args:
        count: votes for the class, 0 ≤ count ≤ n.
        n: votes, ≥ 1.
        sigma: σ of the noise in pixel units; the radius has its unit.
        alpha: probability that the bound is wrong, in (0, 1).

    Examples:
        >>> round(certified_radius(count=990, n=1000, sigma=0.5, alpha=0.001), 3)
        0.989
        >>> certified_radius(count=510, n=1000, sigma=0.5, alpha=0.001)
        0.0
    """
    p = lower_bound(count, n, alpha)
    return sigma * float(ndtri(p)) if p > 0.5 else 0.0


def lower_bound(count: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: with a probability of at least 1 - alpha it lies below the probability of which
    ``count`` of ``n`` trials were successes (Clopper & Pearson 1934)."""
    return float(betaincinv(count, n - count + 1, alpha)) if count else 0.0


def sign_test(count: int, n: int) -> float:
    """One-sided p-value of the exact sign test: the probability of ``count`` or more heads in ``n`` tosses of a coin.

    Args:
        count: 0 ≤ count ≤ n.
        n: ≥ 0; without a toss the p-value is 1.

    Examples:
        >>> sign_test(4, 4)
        0.0625
    """
    return float(bdtrc(count - 1, n, 0.5)) if count else 1.0
