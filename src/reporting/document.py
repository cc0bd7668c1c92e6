"""What the grid says, part by part; Markdown, the page and the terminal each draw it."""

from dataclasses import dataclass

from src.evaluation.grid import Grid
from src.reporting.facets import Facet, facets
from src.reporting.published import compare, comparison_tables, comparison_words
from src.reporting.tables import Table, accuracy_tables, tradeoff_table
from src.reporting.tradeoff import TradeOffs, trade_offs
from src.reporting.words import sentences


@dataclass(frozen=True)
class Chapter:
    """One part of the grid, ready to be drawn."""

    facet: Facet
    trade_offs: TradeOffs
    sentences: tuple[str, ...]  #: the headline first
    tables: tuple[Table, ...]  #: one an attack
    tradeoff: Table | None

    @property
    def title(self) -> str:
        return self.facet.title


@dataclass(frozen=True)
class Comparison:
    """One part of the grid beside the report's tables."""

    title: str
    words: str
    tables: tuple[Table, ...]


def chapters(grid: Grid) -> list[Chapter]:
    """A chapter for each data set, threat, protocol and seed of the grid."""
    return [_chapter(facet) for facet in facets(grid)]


def _chapter(facet: Facet) -> Chapter:
    found = trade_offs(facet.grid)
    said = tuple(sentences(facet, found))
    return Chapter(facet, found, said, tuple(accuracy_tables(facet)), tradeoff_table(found))


def comparisons(grid: Grid) -> list[Comparison]:
    """Each part of the grid beside the report's 75 numbers."""
    found = []
    for facet in facets(grid):
        compared = compare(facet)
        title = f"Beside the report's tables · {facet.title}"
        found.append(Comparison(title, comparison_words(compared), tuple(comparison_tables(compared))))
    return found


def all_sentences(parts: list[Chapter]) -> list[str]:
    """The words of all chapters; with several, each sentence begins with what it is about."""
    if not parts:
        return ["The grid is empty: no cell was asked for."]
    return [
        f"{part.facet.name}: {sentence}" if part.facet.name else sentence
        for part in parts
        for sentence in part.sentences
    ]
