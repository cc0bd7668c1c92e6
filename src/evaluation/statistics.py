"""Error bars."""

from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.stats import binomtest


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
