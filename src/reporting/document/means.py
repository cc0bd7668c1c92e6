"""Several seeds in tables and words: means, and how far the seeds spread."""

from collections.abc import Sequence

from src.evaluation.spec import number
from src.reporting.analysis.labels import MISSING, marked, plus_minus, points
from src.reporting.analysis.rates import leaders
from src.reporting.analysis.replicates import Average, AverageTradeOff, AverageTradeOffs, Replicates
from src.reporting.document.tables import Entry, Table, paid_and_won
from src.reporting.document.words import has_no_defense, warning, worst_of

#: Said above every table of means over seeds.
MEAN_LEGEND = (
    "Mean accuracy over the seeds in percent ± its sample standard deviation from seed to seed; in brackets half the "
    "width of one seed's 95 % Wilson interval, averaged over the seeds. The first is what another seed of training and "
    "attack changes, the second what other test images would. Bold: the highest mean of its row, and those whose ± "
    f"overlaps with its; only where no seed is missing. {MISSING} is a place that is computed for no seed."
)


def mean_tables(over: Replicates) -> list[Table]:
    """One table per attack, one row per eps, one column per defense; each entry is a mean with its deviation."""
    return [_mean_table(over, attack) for attack in over.attacks]


def _mean_table(over: Replicates, attack: str) -> Table:
    rows = []
    for eps in over.budgets(attack):
        averages = [over.accuracy(attack, eps, column) for column in over.columns]
        rows.append((number(eps), tuple(map(_accuracy, averages, _leaders(averages)))))
    title = f"{over.attack_title(attack)}, {len(over.facets)} seeds"
    return Table(title, "eps", over.column_labels, tuple(rows))


def mean_tradeoff_table(tradeoffs: AverageTradeOffs) -> Table | None:
    """What each defense pays and wins, seed by seed, averaged; None if nothing was attacked."""
    if tradeoffs.eps is None:
        return None
    rows = []
    for item, best in zip(tradeoffs.items, _leaders([item.attacked for item in tradeoffs.items]), strict=True):
        entries = (_accuracy(item.clean), _points(item.price), _accuracy(item.attacked, best), _points(item.gain))
        rows.append((item.label, entries))
    columns = ("clean", "paid", f"at eps {number(tradeoffs.eps)}", "won")
    return Table(f"{paid_and_won(tradeoffs.attacks)}, mean over seeds", "defense", columns, tuple(rows))


def _leaders(averages: Sequence[Average | None]) -> list[bool]:
    return leaders([average.bar if average and average.complete else None for average in averages])


def _accuracy(average: Average | None, strong: bool = False) -> Entry:
    """A mean accuracy in percent on its heat, with deviation and binomial half-width."""
    if average is None:
        return Entry()
    binomial = "" if average.half_width is None else f"({plus_minus(100 * average.half_width)})"
    return Entry(average.percent, _note(average, 100, binomial), average.mean, strong)


def _points(average: Average | None) -> Entry:
    """A mean difference in points with its deviation."""
    return Entry(marked(points(average.mean), average.doubtful), _note(average, 1)) if average else Entry()


def _note(average: Average, scale: int, *others: str) -> str:
    """The deviation, what else is to be said, and over how many seeds if some are missing."""
    deviation = "" if average.deviation is None else plus_minus(scale * average.deviation)
    seeds = "" if average.complete else f"{average.seeds} of {average.of} seeds"
    return " ".join(filter(None, [deviation, *others, seeds]))


def mean_sentences(over: Replicates, tradeoffs: AverageTradeOffs) -> list[str]:
    """The words on several seeds of one part of the grid, the headline first."""
    if len(over.grid.missing) == len(over.grid):
        return ["No cell of this grid is computed yet."]
    if tradeoffs.eps is None:
        lines = ["Nothing is attacked in this grid: it holds clean accuracies only."]
    else:
        lines = [_headline(over, tradeoffs), warning(over.grid)]
    if over.one_classifier:
        lines.append(
            "All these seeds judge one and the same classifier, so the deviations leave out what another training of "
            "it would change."
        )
    if over.incomplete:
        lines.append(
            f"At {len(over.incomplete)} of {len(over.places)} places cells of some seeds are missing: the mean "
            "there is over the others, and says over how many."
        )
    return [sentence for sentence in lines if sentence]


def _headline(over: Replicates, tradeoffs: AverageTradeOffs) -> str:
    """What attacks leave and what the best purifier makes of it, as means. Nothing is called better: the deviations
    show which differences would outlast another seed."""
    budget, best = f"At eps {number(tradeoffs.eps or 0)}", tradeoffs.best
    if tradeoffs.undefended is None or (best is None and not has_no_defense(over.grid)):
        return f"{budget} there is no seed with every attack computed, so no defense can be judged there yet."
    worst, seeds = worst_of(tradeoffs.attacks), f"standard deviation over {len(over.facets)} seeds"
    if best is None:
        bare = f"{_said(tradeoffs.undefended)} undefended"
        return f"{budget} {worst} leaves {bare} (mean ± {seeds}); this grid has no defense."
    kind = "trained purifiers" if best.learned else "defenses"
    if any(_mean(item) > _mean(best) for item in tradeoffs.items if item.defended and item.learned >= best.learned):
        kind += " with the most seeds"
    accuracies = f"{_said(tradeoffs.undefended)} undefended, {_said(best.attacked)} with {best.label}"
    simple = tradeoffs.simplest if best.learned else None
    rival = f" and {_said(simple.attacked)} with {simple.label}, which learns nothing" if simple else ""
    highest = f"{accuracies}, the highest mean of the {kind},{rival}".rstrip(",")
    return f"{budget} {worst} leaves {highest} (means ± {seeds})."


def _mean(item: AverageTradeOff) -> float:
    return item.attacked.mean if item.attacked else 0.0


def _said(average: Average | None) -> str:
    """A mean accuracy with its deviation, and over how many seeds if some are missing."""
    if average is None:
        return ""
    deviation = "" if average.deviation is None else f" {plus_minus(100 * average.deviation)}"
    seeds = "" if average.complete else f" ({average.seeds} of {average.of} seeds)"
    return f"{average.percent}{deviation} %{seeds}"
