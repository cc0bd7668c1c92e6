"""Our numbers beside the report's."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean

from src.evaluation.cell import Cell
from src.evaluation.spec import Column, number
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import MISSING, column_label, listed, marked, percent, points
from src.reporting.analysis.rates import Rate
from src.reporting.document.tables import Entry, Table

#: Tables 10, 11 and 12 of the report; noise empty for no defense.
PUBLISHED = Path(__file__).with_name("published.csv")

#: Said above the comparison.
COMPARISON_LEGEND = "Accuracy in percent: ours / the report's / difference (ours minus the report's, in points)."


@dataclass(frozen=True)
class Published:
    """A number of the report's tables."""

    attack: str
    eps: float
    column: Column
    percent: float


@dataclass(frozen=True)
class Compared:
    """A number of the report and the cell at its place; None if it is missing."""

    published: Published
    cell: Cell | None

    @property
    def difference(self) -> float | None:
        """Ours minus the report's, in points."""
        return 100 * self.cell.accuracy - self.published.percent if self.cell else None


@cache
def published() -> tuple[Published, ...]:
    """The report's 75 numbers, in its order."""
    with PUBLISHED.open(encoding="utf-8", newline="") as lines:
        return tuple(
            Published(
                row["attack"],
                float(row["eps"]),
                (row["defense"], float(row["noise"]) if row["noise"] else None),
                float(row["accuracy_percent"]),
            )
            for row in csv.DictReader(lines)
        )


def compare(facet: Facet) -> list[Compared]:
    """Every number of the report with the facet's cell at its place."""
    return [Compared(theirs, facet.cell(theirs.attack, theirs.eps, theirs.column)) for theirs in published()]


def comparison_tables(compared: Sequence[Compared]) -> list[Table]:
    """One table per attack, in the form of the report's: ours / the report's / difference."""
    columns = list(dict.fromkeys(pair.published.column for pair in compared))
    tables = []
    for attack in dict.fromkeys(pair.published.attack for pair in compared):
        by_place = {
            (pair.published.eps, pair.published.column): pair for pair in compared if pair.published.attack == attack
        }
        rows = tuple(
            (number(eps), tuple(_entry(by_place[eps, column]) for column in columns))
            for eps in dict.fromkeys(eps for eps, _ in by_place)
        )
        labels = tuple(column_label(*column) for column in columns)
        tables.append(Table(f"{attack}, ours / report / difference", "eps", labels, rows))
    return tables


def _entry(compared: Compared) -> Entry:
    theirs = f"{compared.published.percent:.2f}"
    if compared.cell is None or compared.difference is None:
        return Entry(MISSING, f"/ {theirs} / {MISSING}")
    accuracy = compared.cell.accuracy
    return Entry(
        marked(percent(accuracy, 2), compared.cell.doubtful), f"/ {theirs} / {points(compared.difference, 2)}", accuracy
    )


def comparison_words(compared: Sequence[Compared]) -> str:
    """How far ours are from the report's, in two or three sentences."""
    differences = {pair.published: pair.difference for pair in compared if pair.difference is not None}
    words = [f"{len(differences)} of the report's {len(compared)} numbers have a cell here."]
    if differences:
        gaps: dict[Column, list[float]] = {}
        for theirs, difference in differences.items():
            gaps.setdefault(theirs.column, []).append(abs(difference))
        by_column = listed([f"{mean(gaps[column]):.1f} for {column_label(*column)}" for column in gaps])
        words.append(f"They differ by {mean(map(abs, differences.values())):.1f} points on average: {by_column}.")
        worst = max(differences, key=lambda theirs: abs(differences[theirs]))
        rates = [(Rate.of(pair.cell), pair.published.percent / 100) for pair in compared if pair.cell]
        within = sum(rate.low <= share <= rate.high for rate, share in rates)
        words.append(
            f"The largest difference is {points(differences[worst])} points at {worst.attack}, "
            f"eps {number(worst.eps)}, {column_label(*worst.column)}; "
            f"{within} of the report's numbers lie inside our 95 % intervals."
        )
    return " ".join(words)
