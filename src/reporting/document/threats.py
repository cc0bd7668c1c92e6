"""One grid under several threats, side by side: what a defense keeps when the attacker knows it."""

from collections.abc import Sequence

from src.evaluation.spec import number
from src.reporting.analysis.facets import Facet, FacetGroup, grouped
from src.reporting.analysis.labels import listed, slug
from src.reporting.analysis.rates import Rate, leaders
from src.reporting.analysis.tradeoff import TradeOffs, trade_offs
from src.reporting.document.tables import Table, rate_entry
from src.reporting.document.words import worst_of

#: Falls spelled out in the sentence; the tables have all.
SPELLED_OUT = 8


class SideBySide(FacetGroup):
    """Facets that differ in their threat alone; those whose attacker knows the defense come last."""

    @property
    def threats(self) -> list[str]:
        return [facet.threat for facet in self.facets]

    @property
    def place(self) -> dict[str, str]:
        return self.facets[0].place | {"threat": listed(self.threats)}


def threat_tables(beside: SideBySide) -> list[Table]:
    """One table per attack, one row per eps and threat, one column per defense."""
    return [_table(beside, attack) for attack in beside.attacks]


def _table(beside: SideBySide, attack: str) -> Table:
    rows = []
    for eps in beside.budgets(attack):
        by_facet = [[facet.rate(attack, eps, column) for column in beside.columns] for facet in beside.facets]
        labels = [f"{number(eps)} {threat}" for threat in beside.threats]
        if not eps:  # without attack there is no threat: what any facet has
            by_facet = [[next(filter(None, rates), None) for rates in zip(*by_facet, strict=True)]]
            labels = [number(eps)]
        for label, rates in zip(labels, by_facet, strict=True):
            rows.append((label, tuple(map(rate_entry, rates, leaders(rates)))))
    return Table(beside.attack_title(attack), "eps, threat", beside.column_labels, tuple(rows))


def threat_sentences(beside: SideBySide) -> list[str]:
    """How far each defense falls from the first threat to the last."""
    first, last = (trade_offs(facet.grid) for facet in (beside.facets[0], beside.facets[-1]))
    falls = _falls(first, last)
    if not falls or first.eps is None or last.eps is None:
        return ["The threats of this grid share no defense that met every attack, so they cannot be compared yet."]
    budget = f"at eps {number(first.eps)}"
    clauses = "; ".join(falls[:SPELLED_OUT])
    more = f"; and {len(falls) - SPELLED_OUT} more in the tables" if len(falls) > SPELLED_OUT else ""
    threats = f"From {beside.threats[0]} to {beside.threats[-1]}"
    return [f"{threats}, {budget} under {worst_of(last.attacks)}: {clauses}{more}."]


def _falls(first: TradeOffs, last: TradeOffs) -> list[str]:
    """``vqvae 0.5 falls from 66.0 to 26.0 %``, for each defense that met every attack under both threats."""
    if first.eps != last.eps:
        return []
    rates = {item.column: item.attacked for item in last.defended}
    pairs = [(item, rates.get(item.column)) for item in first.defended]
    return [f"{item.label} {_moves(item.attacked, now)}" for item, now in pairs if item.attacked and now]


def _moves(before: Rate, now: Rate) -> str:
    if now.overlaps(before):
        return f"goes from {before.percent} to {now.percent} % (within the error bars)"
    verb = "falls" if now.fraction < before.fraction else "rises"
    return f"{verb} from {before.percent} to {now.percent} %"


def side_by_side(facets: Sequence[Facet]) -> list[SideBySide]:
    """The facets that differ in their threat alone, group by group; none where there is one threat."""
    parts = []
    for names, group in grouped(facets, along="threat"):
        if len({facet.threat for facet in group}) == len(group) > 1:
            ordered = sorted(group, key=lambda facet: facet.grid.informed)
            threats = listed([facet.threat for facet in ordered])
            suffix = "".join(f"-{slug(name.replace(' ', ''))}" for name in names) + "-threats"
            parts.append(SideBySide(tuple(ordered), " · ".join([*names, threats]), suffix))
    return parts
