"""The purifiers of a grid ranked by what an attacker who knows them leaves."""

from dataclasses import dataclass

from src.evaluation.cell import Cell
from src.evaluation.spec import Column, number
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import MISSING, column_label
from src.reporting.analysis.rates import Rate, leaders
from src.reporting.analysis.tradeoff import TradeOff, trade_offs
from src.reporting.document.tables import Entry, Table, milliseconds_entry, points_entry, rate_entry
from src.reporting.document.threats import SideBySide


@dataclass(frozen=True)
class _Place:
    """A purifier under two threats; an item is None where the grid has no such column."""

    column: Column  #: defense and noise
    blind: TradeOff | None
    informed: TradeOff | None

    @property
    def counted(self) -> TradeOff | None:
        """What ranks it: the lower of the two, as an attacker who knows the defense can do all that others can. None
        unless that attacker tried all attacks."""
        if self.informed is None or self.informed.attacked is None:
            return None
        blind = self.blind
        lower = blind and blind.attacked and blind.attacked.fraction < self.informed.attacked.fraction
        return blind if lower else self.informed

    @property
    def rank(self) -> float:
        rate = _rate(self.counted)
        return rate.fraction if rate else -1.0


def board_table(beside: SideBySide) -> Table | None:
    """One row per purifier, at the largest eps: clean accuracy and its price, accuracy under the blind and the informed
    attacker, the attack that set the rank, its time, and what was claimed of it. The highest first; purifiers without
    an informed attacker come last, with a dash.

    Returns:
        None unless one threat knows the defense and another does not.
    """
    blind = next((facet for facet in beside.facets if not facet.grid.informed), None)
    informed = next((facet for facet in beside.facets if facet.grid.informed), None)
    if blind is None or informed is None:
        return None
    blind_tradeoffs, informed_tradeoffs = trade_offs(blind.grid), trade_offs(informed.grid)
    eps = informed_tradeoffs.eps
    if eps is None or eps != blind_tradeoffs.eps:
        return None
    informed_items, blind_items = (
        {item.column: item for item in tradeoffs.items} for tradeoffs in (informed_tradeoffs, blind_tradeoffs)
    )
    places = [
        _Place(column, blind_items.get(column), informed_items.get(column)) for column in blind_items | informed_items
    ]
    places.sort(key=lambda place: place.rank, reverse=True)
    claims = {row.coordinates.column: row.claim for row in beside.grid if row.claim}
    leading = leaders([_rate(place.counted) for place in places])
    rows = [
        (column_label(*place.column), _entries(place, _set_by(place, blind, informed, eps), best, claims))
        for place, best in zip(places, leading, strict=True)
    ]
    columns = ("clean", "paid", blind.threat, informed.threat, "set by", "proved", "ms an image", "claimed")
    title = f"Ranked by {informed.threat} accuracy at eps {number(eps)}, or {blind.threat} where that is lower"
    return Table(title, "purifier", columns, tuple(rows))


def _entries(place: _Place, set_by: str, best: bool, claims: dict[Column, str]) -> tuple[Entry, ...]:
    blind, informed, counted = place.blind, place.informed, place.counted
    item = blind or informed
    assert item is not None, "a column is one of the two grids'"
    return (
        rate_entry(item.clean),
        points_entry(item.price),
        rate_entry(_rate(blind), best and counted is blind),
        rate_entry(_rate(informed), best and counted is informed),
        Entry(set_by),
        rate_entry(informed.proved if informed else None),
        milliseconds_entry(item.purify_seconds),
        Entry(claims.get(place.column, "")),
    )


def _rate(item: TradeOff | None) -> Rate | None:
    return item.attacked if item else None


def _set_by(place: _Place, blind: Facet, informed: Facet, eps: float) -> str:
    """The attack that set the rank, and its threat where it is not the informed one."""
    counted = place.counted
    if counted is None or counted.worst is None:
        return MISSING
    facet = informed if counted is place.informed else blind
    name = _least(facet.cell(counted.worst, eps, place.column))
    return name if facet is informed else f"{name} ({blind.threat})"


def _least(cell: Cell | None) -> str:
    """The member of a suite that leaves least; without a suite the attack itself."""
    if cell is None:
        return MISSING
    return min(cell.members, key=lambda name: cell.members[name]["correct"], default=cell.coordinates.attack)
