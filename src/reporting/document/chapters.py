"""What the grid says, part by part; Markdown, the page and the terminal each draw it."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import Facet, facets
from src.reporting.analysis.replicates import Replicates, average_trade_offs, replicates
from src.reporting.analysis.tradeoff import TradeOffs, trade_offs
from src.reporting.document.means import MEAN_LEGEND, mean_sentences, mean_tables, mean_tradeoff_table
from src.reporting.document.published import compare, comparison_tables, comparison_words
from src.reporting.document.tables import LEGEND, Table, accuracy_tables, tradeoff_table
from src.reporting.document.threats import SideBySide, side_by_side
from src.reporting.document.words import sentences


@dataclass(frozen=True)
class Chapter:
    """One part of the grid, ready to be drawn."""

    facet: Facet
    trade_offs: TradeOffs
    sentences: tuple[str, ...]  #: the headline first
    tables: tuple[Table, ...]  #: one an attack
    tradeoff: Table | None
    legend: str = LEGEND

    @property
    def title(self) -> str:
        return self.facet.title

    @property
    def name(self) -> str:
        """What tells it from the other chapters; empty if it is the only one."""
        return self.facet.name

    @property
    def attacks(self) -> list[str]:
        """Those of the tables, in their order."""
        return self.facet.attacks


@dataclass(frozen=True)
class Summary:
    """What several seeds of one part come to together, ready to be drawn; a chapter for each of them follows it."""

    replicates: Replicates
    sentences: tuple[str, ...]  #: the headline first
    tables: tuple[Table, ...]  #: one an attack
    tradeoff: Table | None
    legend: str = MEAN_LEGEND

    @property
    def title(self) -> str:
        return self.replicates.title

    @property
    def name(self) -> str:
        return self.replicates.name

    @property
    def attacks(self) -> list[str]:
        """Those of the tables, in their order."""
        return self.replicates.attacks


@dataclass(frozen=True)
class Comparison:
    """One part of the grid beside the report's tables."""

    title: str
    words: str
    tables: tuple[Table, ...]


Part = Chapter | Summary | SideBySide


def chapters(grid: Grid) -> list[Part]:
    """A chapter for each data set, threat, protocol and seed of the grid; where there are several seeds, first what
    they come to together; and before all, the threats side by side if there are several."""
    found = facets(grid)
    parts: list[Part] = [*side_by_side(found)]
    for replicated, group in replicates(found):
        parts += [_summary(replicated)] if replicated else []
        parts += map(_chapter, group)
    return parts


def _summary(replicated: Replicates) -> Summary:
    found = average_trade_offs(replicated)
    said = tuple(mean_sentences(replicated, found))
    return Summary(replicated, said, tuple(mean_tables(replicated)), mean_tradeoff_table(found))


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


def headline(parts: Sequence[Part]) -> str:
    """The one sentence on top. Threats side by side name themselves."""
    beside = parts and isinstance(parts[0], SideBySide)
    return parts[0].sentences[0] if beside else all_sentences(parts)[0]


def all_sentences(parts: Sequence[Part]) -> list[str]:
    """The words of all chapters; with several, each sentence begins with what it is about."""
    if not parts:
        return ["The grid is empty: no cell was asked for."]
    return [f"{part.name}: {sentence}" if part.name else sentence for part in parts for sentence in part.sentences]
