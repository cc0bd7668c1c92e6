"""The report section by section; Markdown, the page and the terminal each draw the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import Facet, facets
from src.reporting.analysis.replicates import Replicates, average_trade_offs, replicates
from src.reporting.analysis.tradeoff import TradeOffs, trade_offs
from src.reporting.document.board import board_table
from src.reporting.document.means import MEAN_LEGEND, mean_sentences, mean_tables, mean_tradeoff_table
from src.reporting.document.published import COMPARISON_LEGEND, compare, comparison_tables, comparison_words
from src.reporting.document.tables import LEGEND, Table, accuracy_tables, legend, tradeoff_table
from src.reporting.document.threats import SideBySide, side_by_side, threat_sentences, threat_tables
from src.reporting.document.words import sentences

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Section(Generic[Subject]):
    """A section of the report, ready to be drawn: what is said of its subject, in sentences and in tables."""

    subject: Subject
    title: str
    sentences: tuple[str, ...]  #: of the grid the headline first
    tables: tuple[Table, ...]  #: of the grid one an attack
    legend: str = LEGEND  #: said above the tables
    name: str = ""  #: what tells it from the other sections of the grid; empty if it is the only one
    facets: tuple[Facet, ...] = ()  #: whose cells are shown one by one: of several seeds the first stands for all
    lines: tuple[Facet | Replicates, ...] = ()  #: whose accuracies are drawn; several stand side by side
    tradeoff: Table | None = None
    trade_offs: TradeOffs | None = None  #: of a facet
    note: str = ""  #: said of the cells that are shown


#: A part of the grid: a facet, several seeds of one, or several threats side by side.
GridSection = Section[Facet | Replicates | SideBySide]


def sections(grid: Grid) -> list[GridSection]:
    """A section for each data set, threat, protocol and seed of the grid. Several threats side by side come
    before all of them, the means of several seeds before these seeds."""
    all_facets = facets(grid)
    parts = [_of_threats(beside) for beside in side_by_side(all_facets)]
    for replicated, group in replicates(all_facets):
        parts += [_of_seeds(replicated)] if replicated else []
        parts += map(_of_facet, group)
    return parts


def _of_threats(beside: SideBySide) -> GridSection:
    return Section(
        beside,
        beside.title,
        tuple(threat_sentences(beside)),
        tuple(threat_tables(beside)),
        legend(beside.grid),
        name=beside.name,
        facets=beside.facets,
        lines=beside.facets,
        tradeoff=board_table(beside),
    )


def _of_seeds(over: Replicates) -> GridSection:
    averages = average_trade_offs(over)
    return Section(
        over,
        over.title,
        tuple(mean_sentences(over, averages)),
        tuple(mean_tables(over)),
        legend(over.grid, MEAN_LEGEND),
        name=over.name,
        facets=over.facets[:1],
        lines=(over,),
        tradeoff=mean_tradeoff_table(averages),
        note="first seed",
    )


def _of_facet(facet: Facet) -> GridSection:
    tradeoffs = trade_offs(facet.grid)
    return Section(
        facet,
        facet.title,
        tuple(sentences(facet, tradeoffs)),
        tuple(accuracy_tables(facet)),
        legend(facet.grid),
        name=facet.name,
        facets=(facet,),
        lines=(facet,),
        tradeoff=tradeoff_table(tradeoffs),
        trade_offs=tradeoffs,
    )


def comparisons(grid: Grid) -> list[Section[Facet]]:
    """Each part of the grid beside the report's 75 numbers."""
    compared_sections = []
    for facet in facets(grid):
        compared = compare(facet)
        title, words = f"Beside the report's tables · {facet.title}", comparison_words(compared)
        compared_sections.append(Section(facet, title, (words,), tuple(comparison_tables(compared)), COMPARISON_LEGEND))
    return compared_sections


def headline(parts: Sequence[GridSection]) -> str:
    """The one sentence on top. Threats side by side name themselves."""
    several = parts and len(parts[0].lines) > 1
    return parts[0].sentences[0] if several else all_sentences(parts)[0]


def all_sentences(parts: Sequence[GridSection]) -> list[str]:
    """The words of all sections; with several, each sentence begins with what it is about."""
    if not parts:
        return ["The grid is empty: no cell was asked for."]
    return [f"{part.name}: {sentence}" if part.name else sentence for part in parts for sentence in part.sentences]
