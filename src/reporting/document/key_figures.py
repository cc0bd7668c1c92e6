"""The three numbers that a grid is looked at for, and a title of one line."""

from collections.abc import Sequence
from dataclasses import dataclass

from src.evaluation.spec import number
from src.reporting.analysis.rates import Rate
from src.reporting.document.sections import GridSection, headline
from src.reporting.document.tables import rate_text
from src.reporting.document.words import warning


@dataclass(frozen=True)
class KeyFigure:
    """An accuracy, large."""

    label: str
    text: str  #: in percent, with half the width of its interval
    note: str  #: the attack that set it


@dataclass(frozen=True)
class KeyFigures:
    """What the first part of a grid comes to at its largest eps."""

    title: str
    figures: tuple[KeyFigure, ...]  #: undefended, the best trained defense, the best that learns nothing
    warning: str  #: what these numbers are worth


def key_figures(parts: Sequence[GridSection]) -> KeyFigures | None:
    """The figures of the first part; of several threats the last, whose attacker knows most. None where no defense met
    every attack, and for means over seeds, which are no single numbers."""
    if not parts or len(parts[0].facets) != len(parts[0].subject.facets):
        return None
    facet = parts[0].facets[-1]
    tradeoffs = next(part.trade_offs for part in parts if part.trade_offs and part.facets[0] is facet)
    if tradeoffs is None or tradeoffs.undefended is None or not tradeoffs.defended:
        return None
    untrained = [item for item in tradeoffs.defended if not item.learned]
    figures = [_figure("undefended", tradeoffs.undefended, tradeoffs.strongest)]
    for kind, items in (("trained", tradeoffs.learned), ("untrained", untrained)):
        if items:
            item = tradeoffs.highest(items)
            figures.append(_figure(f"best {kind}: {item.label}", item.attacked, item.worst))
    best = tradeoffs.highest(tradeoffs.defended)
    undefended, defended = (rate.percent if rate else "" for rate in (tradeoffs.undefended, best.attacked))
    budget = f"eps {number(tradeoffs.eps or 0)}"
    where = f"{facet.name}: at {budget}" if facet.name else f"At {budget}"
    title = f"{where} the strongest attack leaves {undefended} % without a defense, {defended} % behind {best.label}"
    return KeyFigures(title, tuple(figures), warning(facet.grid))


#: Words of a title, at most.
TITLE_WORDS = 20


def short_title(parts: Sequence[GridSection]) -> str:
    """The title, in at most ``TITLE_WORDS`` words: the key figures, or else the headline if it is short, or else what
    was measured."""
    figures, sentence = key_figures(parts), headline(parts)
    if figures or len(sentence.split()) <= TITLE_WORDS:
        return figures.title if figures else sentence
    part = parts[0].subject
    seeds = len({row.coordinates.seed for row in part.grid})
    seeds_note = f", means over {seeds} seeds" if seeds > 1 else ""
    return f"{_counted(len(part.columns), 'defense')} under {_counted(len(part.attacks), 'attack')}{seeds_note}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _figure(label: str, rate: Rate | None, attack: str | None) -> KeyFigure:
    return KeyFigure(label, rate_text(rate) if rate else "", attack or "")
