"""The three numbers that a grid is looked at for, and a title of one line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from src.reporting.analysis.labels import number, percent
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.tradeoff import TradeOff
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
    """Those of the first part; of several threats, of the last, whose attacker knows most. None where no defense met
    every attack, and for means over seeds, which are no single numbers."""
    if not parts or len(parts[0].facets) != len(parts[0].subject.facets):
        return None
    facet = parts[0].facets[-1]
    found = next(part.trade_offs for part in parts if part.trade_offs and part.facets[0] is facet)
    if found is None or found.undefended is None or not found.defended:
        return None
    learned, simple = _best(found.learned), _best(item for item in found.defended if not item.learned)
    figures = [_figure("undefended", found.undefended, found.strongest)]
    figures += [_figure(f"best trained: {item.label}", item.attacked, item.worst) for item in learned]
    figures += [_figure(f"best untrained: {item.label}", item.attacked, item.worst) for item in simple]
    best = found.highest(found.defended)
    bare, kept = (percent(rate.fraction) if rate else "" for rate in (found.undefended, best.attacked))
    at = f"At eps {number(found.eps or 0)}"
    title = f"{at} the strongest attack leaves {bare} % undefended, {kept} % behind {best.label}"
    return KeyFigures(title, tuple(figures), warning(facet.grid))


#: Words of a title, at most.
TITLE_WORDS = 20


def short_title(parts: Sequence[GridSection]) -> str:
    """What stands on top, in at most ``TITLE_WORDS`` words: the key figures, or else the headline if it is short, or
    else what was measured."""
    found, said = key_figures(parts), headline(parts)
    if found or len(said.split()) <= TITLE_WORDS:
        return found.title if found else said
    part = parts[0].subject
    seeds = len({row.coordinates.seed for row in part.grid})
    over = f", means over {seeds} seeds" if seeds > 1 else ""
    return f"{_counted(len(part.columns), 'defense')} under {_counted(len(part.attacks), 'attack')}{over}"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _best(items: Iterable[TradeOff]) -> list[TradeOff]:
    """The one with the highest attacked accuracy, if there is any."""
    known = [item for item in items if item.attacked]
    return [max(known, key=lambda item: item.attacked.fraction if item.attacked else 0)] if known else []


def _figure(label: str, rate: Rate | None, attack: str | None) -> KeyFigure:
    return KeyFigure(label, rate_text(rate) if rate else "", attack or "")
