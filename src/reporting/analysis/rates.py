"""An accuracy with its error bar, and when one accuracy may be called better than another."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.evaluation.cell import Cell
from src.evaluation.statistics import wilson_interval
from src.reporting.analysis.labels import marked, percent


@dataclass(frozen=True)
class Rate:
    """An accuracy and the ends of its error bar, usually its 95 % Wilson interval, as fractions."""

    fraction: float
    low: float
    high: float
    doubtful: bool = False  #: whether a check found a reason not to believe it

    @staticmethod
    def of(cell: Cell) -> "Rate":
        """A cell's accuracy."""
        return Rate(cell.accuracy, *cell.interval, doubtful=cell.doubtful)

    @property
    def percent(self) -> str:
        """``83.2``, or ``83.2?`` where it is doubtful."""
        return marked(percent(self.fraction), self.doubtful)

    @staticmethod
    def quoted(accuracy: float, n: int, doubtful: bool = False) -> "Rate":
        """An accuracy that a cell quotes of another one, over the same ``n`` images."""
        correct = round(accuracy * n)
        return Rate(correct / n, *wilson_interval(correct, n), doubtful)

    def overlaps(self, other: "Rate") -> bool:
        """Whether the error bars touch, so that neither may be called better.

        Cautious on purpose: the cells of a grid share their images, and a paired test would tell more of them apart.
        But this is what a reader sees in the figures and can check from ``grid.csv``.
        """
        return self.low <= other.high and other.low <= self.high

    def above(self, other: "Rate") -> bool:
        """Whether the whole error bar lies above the other's."""
        return self.low > other.high


def leaders(rates: Sequence[Rate | None]) -> list[bool]:
    """Which of the rates are the best, or cannot be told apart from it. None stands for a missing one."""
    computed_rates = [rate for rate in rates if rate is not None]
    if not computed_rates:
        return [False] * len(rates)
    best = max(computed_rates, key=lambda rate: rate.fraction)
    return [rate is not None and rate.overlaps(best) for rate in rates]
