"""The one model of a table; Markdown, the page and the terminal each draw it."""

from dataclasses import dataclass
from math import isnan

from src.evaluation.grid import Grid
from src.evaluation.spec import number
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import MISSING, half_width, marked, points
from src.reporting.analysis.rates import Rate, leaders
from src.reporting.analysis.tradeoff import TradeOffs

#: Said above every table of accuracies.
LEGEND = (
    "Accuracy in percent ± half the width of its 95 % Wilson interval. Bold: the best of its row, and whatever the "
    f"error bars cannot tell from it. {MISSING} is a cell not computed."
)

#: Added where a number is marked.
DOUBT = 'A number with a "?" is not to be believed yet: see the reasons for suspicion.'


def legend(grid: Grid, usual: str = LEGEND) -> str:
    """What is said above the tables of a grid."""
    return f"{usual} {DOUBT}" if grid.doubtful else usual


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a table."""

    text: str = MISSING
    note: str = ""  #: of less weight, after the text
    heat: float | None = None  #: a fraction, shown as the colour of the background; None for no colour
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of entries under column labels."""

    title: str
    corner: str  #: label of the column of row labels
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]  #: (label, entries)


def accuracy_tables(facet: Facet) -> list[Table]:
    """One table per attack, one row per eps, one column per defense: the form of the report's tables."""
    return [_accuracy_table(facet, attack) for attack in facet.attacks]


def _accuracy_table(facet: Facet, attack: str) -> Table:
    rows = []
    for eps in facet.budgets(attack):
        rates = [facet.rate(attack, eps, column) for column in facet.columns]
        rows.append((number(eps), tuple(map(rate_entry, rates, leaders(rates)))))
    return Table(facet.attack_title(attack), "eps", facet.column_labels, tuple(rows))


def rate_entry(rate: Rate | None, strong: bool = False) -> Entry:
    """An accuracy in percent with the half-width of its interval, on its heat."""
    if rate is None:
        return Entry()
    return Entry(rate.percent, half_width(rate.low, rate.high), rate.fraction, strong)


def points_entry(difference: float | None, doubtful: bool = False) -> Entry:
    """A difference of accuracies in points."""
    return Entry() if difference is None else Entry(marked(points(difference), doubtful))


def milliseconds_entry(seconds: float | None) -> Entry:
    """The time an image takes, in milliseconds."""
    return Entry() if seconds is None else Entry(f"{1000 * seconds:.2f}")


def rate_text(rate: Rate) -> str:
    """What :func:`rate_entry` shows, on one line; a rate without an error bar has none: ``83.2 ±0.7``."""
    return rate.percent if isnan(rate.low) else f"{rate.percent} {half_width(rate.low, rate.high)}"


def tradeoff_table(tradeoffs: TradeOffs) -> Table | None:
    """What each defense pays on clean images and wins under attack; None if nothing was attacked."""
    if tradeoffs.eps is None:
        return None
    proved = any(item.proved for item in tradeoffs.items)
    budget = f"at eps {number(tradeoffs.eps)}"
    columns = ("clean", "paid", budget, *(["proved"] if proved else []), "won", "under", "ms an image")
    leading = leaders([item.attacked for item in tradeoffs.items])
    rows = []
    for item, best in zip(tradeoffs.items, leading, strict=True):
        entries = (
            rate_entry(item.clean),
            points_entry(item.price),
            rate_entry(item.attacked, best),
            *([rate_entry(item.proved)] if proved else []),
            points_entry(item.gain, item.gain_is_doubtful),
            Entry(item.worst or ""),
            milliseconds_entry(item.purify_seconds),
        )
        rows.append((item.label, entries))
    return Table(paid_and_won(tradeoffs.attacks), "defense", columns, tuple(rows))


def paid_and_won(attacks: tuple[str, ...]) -> str:
    """The title of a trade-off under these attacks."""
    worst = f"the worst of {len(attacks)} attacks" if len(attacks) > 1 else attacks[0]
    return f"Points paid on clean images and won under {worst}"
