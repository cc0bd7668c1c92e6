"""What the grid says, section by section; Markdown, the page and the terminal each draw it."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import Facet, facets
from src.reporting.analysis.replicates import Replicates, average_trade_offs, replicates
from src.reporting.analysis.tradeoff import TradeOffs, trade_offs
from src.reporting.document.board import board_table
from src.reporting.document.means import MEAN_LEGEND, mean_sentences, mean_tables, mean_tradeoff_table
from src.reporting.document.published import compare, comparison_tables, comparison_words
from src.reporting.document.tables import LEGEND, Table, accuracy_tables, tradeoff_table
from src.reporting.document.threats import SideBySide, side_by_side, threat_sentences, threat_tables
from src.reporting.document.words import sentences


@dataclass(frozen=True)
class Section:
    """One part of the grid, ready to be drawn: a facet, several seeds of one, or several threats side by side."""

    subject: Facet | Replicates | SideBySide
    sentences: tuple[str, ...]  #: the headline first
    tables: tuple[Table, ...]  #: one an attack
    facets: tuple[Facet, ...]  #: those whose cells are shown one by one: of several seeds the first stands for all
    lines: tuple[Facet | Replicates, ...]  #: whose accuracies are drawn; several stand side by side
    tradeoff: Table | None = None
    trade_offs: TradeOffs | None = None  #: of a facet
    legend: str = LEGEND
    note: str = ""  #: said of the cells that are shown

    @property
    def title(self) -> str:
        return self.subject.title

    @property
    def name(self) -> str:
        """What tells it from the other sections; empty if it is the only one."""
        return self.subject.name

    @property
    def attacks(self) -> list[str]:
        """Those of the tables, in their order."""
        return self.subject.attacks


@dataclass(frozen=True)
class Comparison:
    """One part of the grid beside the report's tables."""

    title: str
    words: str
    tables: tuple[Table, ...]


def sections(grid: Grid) -> list[Section]:
    """A section for each data set, threat, protocol and seed of the grid; where there are several seeds, first what
    they come to together; and before all, the threats side by side if there are several."""
    found = facets(grid)
    parts = [_of_threats(beside) for beside in side_by_side(found)]
    for replicated, group in replicates(found):
        parts += [_of_seeds(replicated)] if replicated else []
        parts += map(_of_facet, group)
    return parts


def _of_threats(beside: SideBySide) -> Section:
    said, tables = tuple(threat_sentences(beside)), tuple(threat_tables(beside))
    return Section(beside, said, tables, facets=beside.facets, lines=beside.facets, tradeoff=board_table(beside))


def _of_seeds(over: Replicates) -> Section:
    found = average_trade_offs(over)
    return Section(
        over,
        tuple(mean_sentences(over, found)),
        tuple(mean_tables(over)),
        facets=over.facets[:1],
        lines=(over,),
        tradeoff=mean_tradeoff_table(found),
        legend=MEAN_LEGEND,
        note="first seed",
    )


def _of_facet(facet: Facet) -> Section:
    found = trade_offs(facet.grid)
    said, tables = tuple(sentences(facet, found)), tuple(accuracy_tables(facet))
    return Section(facet, said, tables, (facet,), (facet,), tradeoff_table(found), found)


def comparisons(grid: Grid) -> list[Comparison]:
    """Each part of the grid beside the report's 75 numbers."""
    found = []
    for facet in facets(grid):
        compared = compare(facet)
        title = f"Beside the report's tables · {facet.title}"
        found.append(Comparison(title, comparison_words(compared), tuple(comparison_tables(compared))))
    return found


def headline(parts: Sequence[Section]) -> str:
    """The one sentence on top. Threats side by side name themselves."""
    beside = parts and len(parts[0].lines) > 1
    return parts[0].sentences[0] if beside else all_sentences(parts)[0]


def all_sentences(parts: Sequence[Section]) -> list[str]:
    """The words of all sections; with several, each sentence begins with what it is about."""
    if not parts:
        return ["The grid is empty: no cell was asked for."]
    return [f"{part.name}: {sentence}" if part.name else sentence for part in parts for sentence in part.sentences]
