"""A grid cut into parts of which each fits a table: one data set, threat, protocol and seed each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from src.evaluation import Cell, Coordinates
from src.evaluation.grid import Grid, GridRow
from src.evaluation.spec import Column
from src.nested import leaves
from src.reporting.analysis.labels import column_label, slug
from src.reporting.analysis.rates import Rate

DIMENSIONS = ("data", "threat", "protocol", "seed")


class GridPart(ABC):
    """What every part of a grid can read off its rows."""

    grid: Grid

    @property
    @abstractmethod
    def place(self) -> dict[str, str]:
        """Where it stands, dimension by dimension, and its settings."""

    @property
    def title(self) -> str:
        """``mnist · gray_box · default protocol · seed 0``."""
        protocol = f"{self.place['protocol']} protocol"
        parts = (self.place["data"], self.place["threat"], protocol, self.seeds, self.place["settings"])
        return " · ".join(filter(None, parts))

    @property
    def seeds(self) -> str:
        return f"seed {self.place['seed']}"

    def bars(self, attack: str) -> str:
        """What a figure's caption has to say of its error bars, if they are not the usual intervals."""
        return ""

    @property
    def attacks(self) -> list[str]:
        return self.grid.values("attack")

    @property
    def columns(self) -> list[Column]:
        return self.grid.columns()

    def budgets(self, attack: str) -> list[float]:
        """The eps values asked for with this attack, ascending, in pixel units."""
        return sorted(self.grid.where(attack=attack).values("eps"))

    @property
    def column_labels(self) -> tuple[str, ...]:
        """``vqvae 0.5``, for each column."""
        return tuple(column_label(*column) for column in self.columns)

    def attack_title(self, attack: str) -> str:
        """``pgd, 10,000 images``, or a range of them; the attack alone if no cell is computed."""
        counts = {row.cell.n for row in self.grid.where(attack=attack) if row.cell}
        if not counts:
            return attack
        return f"{attack}, {'–'.join(f'{n:,}' for n in sorted({min(counts), max(counts)}))} images"


@dataclass(frozen=True)
class Facet(GridPart):
    """The rows of one data set, threat, protocol and seed, no two of them at the same place."""

    data: str
    threat: str
    protocol: str
    seed: int
    settings: str  #: what else tells its cells from another facet's at the same coordinates; usually empty
    name: str  #: what tells it from the grid's other facets, such as ``adaptive``; empty if it is the only one
    suffix: str  #: the same for file names, such as ``-adaptive``
    grid: Grid

    @property
    def facets(self) -> "tuple[Facet, ...]":
        return (self,)

    @property
    def place(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in (*DIMENSIONS, "settings")}

    def cell(self, attack: str, eps: float, column: Column) -> Cell | None:
        """The cell at a place; None if it is missing or was not asked for."""
        return self._cells.get((attack, eps, column))

    def rate(self, attack: str, eps: float, column: Column) -> Rate | None:
        """The accuracy at a place with its interval; None like :meth:`cell`."""
        cell = self.cell(attack, eps, column)
        return Rate.of(cell) if cell else None

    @cached_property
    def _cells(self) -> dict[tuple[str, float, Column], Cell | None]:
        pairs = ((row.coordinates, row.cell) for row in self.grid)
        return {(place.attack, place.eps, place.column): cell for place, cell in pairs}


@dataclass(frozen=True)
class FacetGroup(GridPart):
    """Facets that stand together, two or more."""

    facets: tuple[Facet, ...]
    name: str  #: what tells it from the grid's other parts, such as ``adaptive · mean of 3 seeds``
    suffix: str  #: the same for file names, such as ``-adaptive-seeds``

    @cached_property
    def grid(self) -> Grid:  # type: ignore[override]  # computed, where a facet was given its own
        """The rows of all of them."""
        return Grid(tuple(row for facet in self.facets for row in facet.grid))


def facets(grid: Grid) -> list[Facet]:
    """The parts of a grid, in order of first appearance.

    Cells can share all coordinates and still differ, as after sweeping ``attack.steps=5,10``: every such setting is
    a facet of its own, and cells that do not depend on it are in each.
    """
    parts: dict[tuple[str, str, str, int], list[GridRow]] = {}
    for row in grid:
        parts.setdefault(attrgetter(*DIMENSIONS)(row.coordinates), []).append(row)
    values_by_part = _differing([dict(zip(DIMENSIONS, map(str, key), strict=True)) for key in parts])
    all_facets: list[Facet] = []
    for (key, rows), values in zip(parts.items(), values_by_part, strict=True):
        for settings, variant in _variants(rows):
            names = [*values, *filter(None, [settings])]
            suffix = "".join(f"-{slug(name.replace('seed ', 'seed'))}" for name in names)
            if any(other.suffix == suffix for other in all_facets):  # their names were cut to the same
                suffix += f"-{len(all_facets) + 1}"
            all_facets.append(Facet(*key, settings, " · ".join(names), suffix, Grid(tuple(variant))))
    return all_facets


def grouped(facets: Sequence[Facet], along: str) -> list[tuple[list[str], list[Facet]]]:
    """The facets in groups that differ along one dimension alone, in order of first appearance. Each group comes with
    what tells it from the others."""
    groups: dict[tuple[tuple[str, str], ...], list[Facet]] = {}
    for facet in facets:
        key = tuple((name, value) for name, value in facet.place.items() if name != along)
        groups.setdefault(key, []).append(facet)
    return list(zip(_differing([dict(key) for key in groups]), groups.values(), strict=True))


def _differing(places: Sequence[dict[str, str]]) -> list[list[str]]:
    """Of each place what tells it from the others, such as ``adaptive`` and ``seed 1``."""
    varying = [name for name in (places[0] if places else ()) if len({place[name] for place in places}) > 1]
    return [
        [f"seed {place[name]}" if name == "seed" else place[name] for name in varying if place[name]]
        for place in places
    ]


def _variants(rows: list[GridRow]) -> Iterator[tuple[str, list[GridRow]]]:
    """The rows with one cell per place, once for every setting that their coordinates do not show."""
    places: dict[Coordinates, list[GridRow]] = {}
    for row in rows:
        places.setdefault(row.coordinates, []).append(row)
    count = max(map(len, places.values()))
    for i in range(count):
        settings = "" if count == 1 else _settings([group for group in places.values() if len(group) == count], i)
        yield settings, [group[min(i, len(group) - 1)] for group in places.values()]


def _settings(groups: list[list[GridRow]], i: int) -> str:
    """What tells the i-th cells of these groups from the others, such as ``attack.steps=5``."""
    differing: dict[str, str] = {}
    for group in groups:
        identities = [dict(leaves(row.cell.identity, separator=".")) if row.cell else {} for row in group]
        for name, value in identities[i].items():
            if any(other and other.get(name) != value for other in identities):
                differing.setdefault(name, str(value)[:16])
    text = ", ".join(f"{name}={value}" for name, value in list(differing.items())[:3])
    return text or f"settings {i + 1}"
