"""The purifiers of a grid ranked by what an attacker who knows them leaves."""

from src.evaluation.cell import Cell
from src.reporting.analysis.facets import Column, Facet
from src.reporting.analysis.labels import MISSING, column_label, number, points
from src.reporting.analysis.rates import Rate, leaders
from src.reporting.analysis.tradeoff import TradeOff, trade_offs
from src.reporting.document.tables import Entry, Table, rate_entry
from src.reporting.document.threats import SideBySide


def board_table(beside: SideBySide) -> Table | None:
    """A row a purifier, at the largest eps: clean accuracy and its price, what attackers leave who do not and who do
    know it, the attack that set the second number, its time, and what was claimed of it. The highest first; purifiers
    that no informed attacker was tried on come last.

    Returns:
        None unless one threat knows the defense and another does not.
    """
    blind = next((facet for facet in beside.facets if not facet.grid.informed), None)
    informed = next((facet for facet in beside.facets if facet.grid.informed), None)
    if blind is None or informed is None:
        return None
    before, after = trade_offs(blind.grid), trade_offs(informed.grid)
    if before.eps is None or before.eps != after.eps:
        return None
    known = {(item.defense, item.noise): item for item in after.items}
    claims = {(row.coordinates.defense, row.coordinates.noise): row.claim for row in beside.grid if row.claim}
    rows = [(item, known.get((item.defense, item.noise))) for item in before.items]
    rows.sort(key=lambda pair: _attacked(pair[1]), reverse=True)
    strong = leaders([_rate(item) for _, item in rows])
    entries = [
        (column_label(item.defense, item.noise), _entries(item, other, informed, after.eps, best, claims))
        for (item, other), best in zip(rows, strong, strict=True)
    ]
    columns = ("clean", "paid", blind.threat, informed.threat, "set by", "ms an image", "claimed")
    return Table(
        f"Ranked by {informed.threat} accuracy at eps {number(after.eps)}", "purifier", columns, tuple(entries)
    )


def _rate(item: TradeOff | None) -> Rate | None:
    return item.attacked if item else None


def _attacked(item: TradeOff | None) -> float:
    rate = _rate(item)
    return rate.fraction if rate else -1.0


def _entries(
    item: TradeOff, other: TradeOff | None, informed: Facet, eps: float, best: bool, claims: dict[Column, str]
) -> tuple[Entry, ...]:
    seconds = item.purify_seconds
    return (
        rate_entry(item.clean),
        Entry() if item.price is None else Entry(points(item.price)),
        rate_entry(item.attacked),
        rate_entry(_rate(other), best),
        Entry(
            _set_by(informed.cell(other.worst, eps, (other.defense, other.noise)) if other and other.worst else None)
        ),
        Entry() if seconds is None else Entry(f"{1000 * seconds:.2f}"),
        Entry(claims.get((item.defense, item.noise), "")),
    )


def _set_by(cell: Cell | None) -> str:
    """The attack that set a number: of a suite the member that leaves least."""
    if cell is None:
        return MISSING
    return min(cell.members, key=lambda name: cell.members[name]["correct"], default=cell.coordinates.attack)
