"""Error bars, and the radius that a count of votes certifies. Reports use them without PyTorch."""

from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.stats import beta, binomtest, norm


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), as fractions.

    Args:
        correct: successes, 0 ≤ correct ≤ n.
        n: trials, ≥ 1.
        confidence: in (0, 1).
    """
    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n − 1 in the denominator), in the unit of the values.

    Args:
        values: one or more; a single one has no deviation, which is None then.
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
    """
    p = lower_bound(count, n, alpha)
    return sigma * float(norm.ppf(p)) if p > 0.5 else 0.0


def lower_bound(count: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: with a probability of at least 1 - alpha it lies below the probability of which
    ``count`` of ``n`` trials were successes (Clopper & Pearson 1934)."""
    return float(beta.ppf(alpha, count, n - count + 1)) if count else 0.0
