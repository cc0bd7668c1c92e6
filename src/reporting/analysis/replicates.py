"""A grid trained and evaluated with several seeds: the mean of each of its numbers, and how far the seeds spread."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from statistics import fmean

from src.evaluation.spec import Column
from src.evaluation.statistics import mean_and_deviation
from src.reporting.analysis.facets import Facet, FacetGroup, grouped
from src.reporting.analysis.labels import column_label, marked, percent, slug
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.tradeoff import TradeOff, TradeOffs, trade_offs

#: Seeds named one by one in a title.
NAMED = 8


@dataclass(frozen=True)
class Average:
    """A number over seeds, in its own unit: accuracies are fractions, differences of accuracies are points."""

    mean: float
    deviation: float | None  #: sample standard deviation over the seeds; None of a single one
    seeds: int  #: how many have the number
    of: int  #: how many were asked for
    half_width: float | None = None  #: half of one seed's 95 % Wilson interval, mean over the seeds; of accuracies only
    doubtful: bool = False  #: whether it rests on an accuracy that is

    @property
    def percent(self) -> str:
        """A mean accuracy, marked as :attr:`Rate.percent` is."""
        return marked(percent(self.mean), self.doubtful)

    @property
    def complete(self) -> bool:
        return self.seeds == self.of

    @property
    def bar(self) -> Rate:
        """An accuracy with the ends of mean ± deviation in place of an interval's; NaN where there is no deviation."""
        deviation = nan if self.deviation is None else self.deviation
        return Rate(self.mean, self.mean - deviation, self.mean + deviation, self.doubtful)


def average(values: Sequence[float | None]) -> Average | None:
    """Mean and deviation of a number over the seeds that have it; None if none has. A missing number is None."""
    numbers = [value for value in values if value is not None]
    return Average(*mean_and_deviation(numbers), len(numbers), len(values)) if numbers else None


def average_rate(rates: Sequence[Rate | None]) -> Average | None:
    """The same of an accuracy, with what its seeds' binomial intervals come to."""
    summary = average([rate.fraction if rate else None for rate in rates])
    if summary is None:
        return None
    known = [rate for rate in rates if rate]
    half_width = fmean((rate.high - rate.low) / 2 for rate in known)
    return replace(summary, half_width=half_width, doubtful=any(rate.doubtful for rate in known))


class Replicates(FacetGroup):
    """Facets that differ in their seed alone."""

    @property
    def seeds(self) -> str:
        """``mean of 3 seeds (0, 1, 2)``."""
        seeds = [str(facet.seed) for facet in self.facets]
        seed_list = ", ".join(seeds) if len(seeds) <= NAMED else f"{seeds[0]} … {seeds[-1]}"
        return f"mean of {len(seeds)} seeds ({seed_list})"

    @property
    def threat(self) -> str:
        return self.facets[0].threat

    @property
    def place(self) -> dict[str, str]:
        return self.facets[0].place | {"seed": f"mean of {len(self.facets)}"}

    def bars(self, attack: str) -> str:
        fewer = ", some seeds missing" if any(place[0] == attack for place in self.incomplete) else ""
        return f"{fewer}, bars: standard deviation"

    def accuracy(self, attack: str, eps: float, column: Column) -> Average | None:
        """The accuracy at a place over the seeds; None if it is computed for none of them."""
        return average_rate([facet.rate(attack, eps, column) for facet in self.facets])

    def rate(self, attack: str, eps: float, column: Column) -> Rate | None:
        """The same as a point with an error bar: the mean, the deviation over seeds."""
        accuracy = self.accuracy(attack, eps, column)
        return accuracy.bar if accuracy else None

    @property
    def places(self) -> list[tuple[str, float, Column]]:
        """Every (attack, eps, column) that was asked for with some seed."""
        coordinates = [row.coordinates for row in self.grid]
        return list(dict.fromkeys((place.attack, place.eps, place.column) for place in coordinates))

    @property
    def one_classifier(self) -> bool:
        """Whether the cells of all seeds are of the same classifier: then no seed is another training of it."""
        known = [{repr(row.cell.identity["classifier"]) for row in facet.grid if row.cell} for facet in self.facets]
        return all(known) and len(set[str]().union(*known)) == 1

    @property
    def incomplete(self) -> list[tuple[str, float, Column]]:
        """The places that have no cell for some seed."""
        return [place for place in self.places if not all(facet.cell(*place) for facet in self.facets)]


def replicates(facets: Sequence[Facet]) -> list[tuple[Replicates | None, list[Facet]]]:
    """The facets in groups that differ in their seed alone, in order of first appearance, each with what its seeds
    come to together: None where there is just one seed."""
    pairs: list[tuple[Replicates | None, list[Facet]]] = []
    for names, group in grouped(facets, along="seed"):
        suffix = "".join(f"-{slug(name)}" for name in names) + "-seeds"
        replicated = len(group) == len({facet.seed for facet in group}) > 1
        name = " · ".join([*names, f"mean of {len(group)} seeds"])
        pairs.append((Replicates(tuple(group), name, suffix) if replicated else None, group))
    return pairs


@dataclass(frozen=True)
class AverageTradeOff:
    """One column of the grid over seeds. What is paid and won is compared seed by seed, and then averaged."""

    column: Column
    clean: Average | None
    attacked: Average | None  #: each seed's worst over all attacks at the largest eps
    price: Average | None  #: in points
    gain: Average | None  #: in points
    defended: bool  #: whether there is a defense
    learned: bool  #: whether it was trained

    @property
    def label(self) -> str:
        return column_label(*self.column)


@dataclass(frozen=True)
class AverageTradeOffs:
    """All columns of a grid over seeds, compared at its largest eps."""

    eps: float | None  #: None if nothing was attacked
    attacks: tuple[str, ...]  #: those whose worst is meant
    undefended: Average | None
    items: tuple[AverageTradeOff, ...]

    @property
    def defended(self) -> list[AverageTradeOff]:
        """The columns with a defense that met every attack with some seed."""
        return [item for item in self.items if item.defended and item.attacked]

    @property
    def best(self) -> AverageTradeOff | None:
        """The trained defense with the highest mean under attack, of those with the most seeds. If none is trained,
        the best defense; None if no defense met every attack."""
        learned = [item for item in self.defended if item.learned]
        return max(learned or self.defended, key=_standing, default=None)

    @property
    def simplest(self) -> AverageTradeOff | None:
        """The best, in the same sense, of the defenses that learn nothing."""
        return max((item for item in self.defended if not item.learned), key=_standing, default=None)


def _standing(item: AverageTradeOff) -> tuple[int, float]:
    return (item.attacked.seeds, item.attacked.mean) if item.attacked else (0, 0.0)


def average_trade_offs(found: Replicates) -> AverageTradeOffs:
    """Compare the columns of a grid over its seeds. A seed whose cells at the largest eps are missing counts as missing
    there; it is not compared at a smaller one."""
    by_seed = [trade_offs(facet.grid) for facet in found.facets]
    arena = max(((seed.eps, seed.attacks) for seed in by_seed), key=lambda pair: (pair[0] or 0, len(pair[1])))
    in_arena = [seed if (seed.eps, seed.attacks) == arena else None for seed in by_seed]
    return AverageTradeOffs(
        *arena,
        undefended=average_rate([seed.undefended if seed else None for seed in in_arena]),
        items=tuple(_average_item(column, by_seed, in_arena) for column in found.columns),
    )


def _average_item(
    column: Column, by_seed: Sequence[TradeOffs], in_arena: Sequence[TradeOffs | None]
) -> AverageTradeOff:
    items = [_item(seed, column) for seed in by_seed]
    arena_items = [_item(seed, column) if seed else None for seed in in_arena]
    gain = average([item.gain if item else None for item in arena_items])
    return AverageTradeOff(
        column,
        clean=average_rate([item.clean if item else None for item in items]),
        attacked=average_rate([item.attacked if item else None for item in arena_items]),
        price=average([item.price if item else None for item in items]),
        gain=gain and replace(gain, doubtful=any(item.gain_is_doubtful for item in arena_items if item)),
        defended=any(item.defended for item in items if item),
        learned=any(item.learned for item in items if item),
    )


def _item(tradeoffs: TradeOffs, column: Column) -> TradeOff | None:
    return next((item for item in tradeoffs.items if item.column == column), None)
