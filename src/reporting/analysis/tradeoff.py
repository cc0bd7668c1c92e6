"""What each defense costs on clean images and wins back under attack, and which to take."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from src.evaluation.cell import Cell
from src.evaluation.grid import Grid
from src.evaluation.spec import Column
from src.reporting.analysis.labels import column_label
from src.reporting.analysis.rates import Rate

#: Cells by (attack, eps, column); only those that are computed.
Cells = dict[tuple[str, float, Column], Cell]


@dataclass(frozen=True)
class TradeOff:
    """One column of the grid: a defense and the noise that it was trained with. None stands for what is missing."""

    defense: str
    noise: float | None
    clean: Rate | None  #: accuracy without attack
    attacked: Rate | None  #: the worst over all attacks at the largest eps; None unless all of them are computed
    price: float | None  #: clean accuracy lost against no defense, in points
    gain: float | None  #: attacked accuracy won over no defense, worst case against worst case, in points
    purify_seconds: float | None  #: time an image in the purifier, median over the column's cells
    worst: str | None  #: the attack that leaves least of it
    defended: bool  #: whether there is a defense
    learned: bool  #: whether it was trained, as opposed to one that learns nothing
    proved: Rate | None  #: share of the images that no attack at the largest eps can change; None: not asked

    @property
    def column(self) -> Column:
        return self.defense, self.noise

    @property
    def label(self) -> str:
        return column_label(*self.column)

    @property
    def gain_is_doubtful(self) -> bool:
        return self.attacked is not None and self.attacked.doubtful


@dataclass(frozen=True)
class Choice:
    """The column to take, and those whose attacked accuracy cannot be told apart from the best one's."""

    item: TradeOff
    tied: tuple[TradeOff, ...]


@dataclass(frozen=True)
class TradeOffs:
    """All columns of a grid, compared at its largest eps."""

    eps: float | None  #: None if nothing was attacked
    attacks: tuple[str, ...]  #: those whose worst is meant
    strongest: str | None  #: the attack that leaves least of the undefended classifier
    undefended_clean: Rate | None
    undefended: Rate | None  #: what the strongest attack leaves without a defense
    items: tuple[TradeOff, ...]

    @property
    def defended(self) -> list[TradeOff]:
        """The columns with a defense that met every attack."""
        return [item for item in self.items if item.defended and item.attacked]

    @property
    def learned(self) -> list[TradeOff]:
        return [item for item in self.defended if item.learned]

    def raising(self, among: Iterable[TradeOff]) -> list[TradeOff]:
        """Those that keep more under attack than the undefended classifier does, beyond the error bars."""
        bare = self.undefended
        return [item for item in among if bare and item.attacked and item.attacked.above(bare)]

    @staticmethod
    def highest(among: Iterable[TradeOff]) -> TradeOff:
        """The column with the highest attacked accuracy, whatever it pays; of equals the cleanest.

        Raises:
            ValueError: there is no column.
        """
        return max(among, key=lambda item: (_attacked(item), _clean(item)))

    def best_for_floor(self, floor: float, among: Iterable[TradeOff] | None = None) -> Choice | None:
        """The column to take if at least ``floor`` (a fraction) of the clean images must be classified correctly.

        Of the columns whose measured clean accuracy reaches the floor it is the one with the highest attacked
        accuracy. Where error bars overlap there is no highest: then the one among those that keeps most clean
        accuracy, and of equals the first.

        Args:
            among: columns to choose from; all of them by default, no defense included.

        Returns:
            None if no column reaches the floor.
        """
        items = self.items if among is None else among
        threshold = floor - 1e-9  # 98.4 / 100 is not quite 0.984
        eligible = [item for item in items if item.clean and item.attacked and item.clean.fraction >= threshold]
        if not eligible:
            return None
        top = max(eligible, key=_attacked).attacked
        group = [item for item in eligible if top and item.attacked and item.attacked.overlaps(top)]
        best = max(group, key=_clean)
        return Choice(best, tuple(item for item in group if item is not best))

    def frontier(self, among: Iterable[TradeOff] | None = None) -> list[tuple[float, Choice]]:
        """Every choice that some floor leads to, with the highest such floor (a fraction), highest floor first."""
        items = tuple(self.items if among is None else among)
        steps: list[tuple[float, Choice]] = []
        for floor in sorted({item.clean.fraction for item in items if item.clean}, reverse=True):
            choice = self.best_for_floor(floor, items)
            if choice and not (steps and steps[-1][1].item is choice.item):
                steps.append((floor, choice))
        return steps


def _attacked(item: TradeOff) -> float:
    return item.attacked.fraction if item.attacked else -1.0


def _clean(item: TradeOff) -> float:
    return item.clean.fraction if item.clean else -1.0


def trade_offs(grid: Grid) -> TradeOffs:
    """Compare the columns of a grid.

    What the grid has no cell for is taken, where possible, from what its other cells quote: each knows the accuracy
    of its defense without attack, and of its attack without defense. Proofs are no attacks, and stand beside them.

    Args:
        grid: rows of one data set, threat, protocol and seed; see :func:`src.reporting.analysis.facets.facets`.
    """
    proofs = {(row.coordinates.eps, row.coordinates.column): row.cell for row in grid.proofs}
    grid = grid.without_proofs
    pairs = [(row.coordinates, row.cell) for row in grid]
    cells = {(place.attack, place.eps, place.column): cell for place, cell in pairs if cell}
    eps, attacks = _arena(grid, cells)
    bare, learned = grid.bare, grid.learned
    strongest, undefended = _least(_undefended(cells, eps, attacks, bare), attacks)
    undefended_clean = next((rate for column in bare if (rate := _clean_rate(cells, column))), None)

    def compared(column: Column) -> TradeOff:
        clean, (worst, attacked) = _clean_rate(cells, column), _worst(cells, column, eps, attacks)
        proof = proofs.get((eps, column)) if eps else None
        column_cells = [cell for (*_, other), cell in cells.items() if other == column]
        times = [cell.stages["purify"] / cell.n for cell in column_cells if "purify" in cell.stages]
        return TradeOff(
            *column,
            clean=clean,
            attacked=attacked,
            price=100 * (undefended_clean.fraction - clean.fraction) if undefended_clean and clean else None,
            gain=100 * (attacked.fraction - undefended.fraction) if undefended and attacked else None,
            purify_seconds=median(times) if times else None,
            worst=worst,
            defended=column not in bare,
            learned=column in learned,
            proved=Rate.of(proof) if proof else None,
        )

    items = tuple(map(compared, grid.columns()))
    return TradeOffs(eps, attacks, strongest, undefended_clean, undefended, items)


def _arena(grid: Grid, cells: Cells) -> tuple[float | None, tuple[str, ...]]:
    """The largest eps at which some defense met every attack (else the largest asked for), and the attacks there."""
    bare, members = grid.bare, {member["key"] for cell in cells.values() for member in cell.members.values()}
    arenas = []
    for eps in sorted((eps for eps in grid.values("eps") if eps > 0), reverse=True):
        rows = grid.where(eps=eps)
        # A suite's worst case speaks for its members.
        standalone = Grid(tuple(row for row in rows if row.cell is None or row.key not in members))
        attacks = tuple(attack for attack in rows.values("attack") if attack in standalone.values("attack"))
        arenas.append((eps, attacks))
        if any(_worst(cells, c, eps, attacks)[1] for c in rows.columns() if c not in bare):
            return eps, attacks
    return arenas[0] if arenas else (None, ())


def _worst(cells: Cells, column: Column, eps: float | None, attacks: tuple[str, ...]) -> tuple[str | None, Rate | None]:
    """:func:`_least` of a column."""
    found = {attack: cells.get((attack, eps, column)) for attack in attacks if eps is not None}
    return _least({attack: Rate.of(cell) for attack, cell in found.items() if cell}, attacks)


def _least(rates: dict[str, Rate], attacks: tuple[str, ...]) -> tuple[str | None, Rate | None]:
    """The attack that leaves the lowest accuracy, and this accuracy; None unless all attacks are computed, as the worst
    of fewer is no match for the worst of all."""
    if not rates or len(rates) < len(attacks):
        return None, None
    return min(rates.items(), key=lambda pair: pair[1].fraction)


def _undefended(cells: Cells, eps: float | None, attacks: tuple[str, ...], bare: list[Column]) -> dict[str, Rate]:
    """What each attack leaves without a defense, measured or quoted."""
    rates: dict[str, Rate] = {}
    for (attack, budget, column), cell in cells.items():
        if budget == eps and attack in attacks:
            if column in bare:
                rates[attack] = Rate.of(cell)
            else:
                rates.setdefault(attack, Rate.quoted(cell.undefended_accuracy, cell.n, cell.doubtful))
    return rates


def _clean_rate(cells: Cells, column: Column) -> Rate | None:
    """A column's accuracy without attack, measured or quoted."""
    by_eps = [(eps, cell) for (_, eps, other), cell in cells.items() if other == column]
    measured = next((Rate.of(cell) for eps, cell in by_eps if eps == 0), None)
    return measured or next((Rate.quoted(cell.clean_accuracy, cell.n) for _, cell in by_eps), None)
