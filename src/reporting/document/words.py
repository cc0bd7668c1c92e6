"""The grid in sentences: what was paid, what was won, what to take, and what the numbers do not say."""

from src.evaluation.grid import Grid
from src.evaluation.spec import number
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import column_label, listed, marked, percent, spread
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.tradeoff import Choice, TradeOff, TradeOffs

#: Noises and floors spelled out in one sentence; the table has all of them.
SPELLED_OUT = 8
TIES_SPELLED_OUT = 4

#: What the numbers are worth, by whether the attacker knows the defense.
WARNINGS = {
    False: "These are gray-box numbers: the attacker knows the classifier but not the defense; an attacker who "
    "knows the defense (threat=adaptive) can do better, so they are no guarantee.",
    True: "The attacker of these numbers knows the defense and differentiates through it; a stronger attack "
    "may still do better.",
}


def warning(grid: Grid) -> str:
    """What the numbers of a part of the grid are worth, in a sentence."""
    return WARNINGS[grid.informed]


def sentences(facet: Facet, tradeoffs: TradeOffs) -> list[str]:
    """The words of one part of the grid, the headline first."""
    absent = len(facet.grid.missing)
    if absent == len(facet.grid):
        return ["No cell of this grid is computed yet."]
    proved = _proved(facet.grid)
    if tradeoffs.eps is None:
        lines = proved or ["Nothing is attacked in this grid: it holds clean accuracies only."]
    else:
        lines = [
            _headline(facet.grid, tradeoffs),
            warning(facet.grid),
            *proved,
            *_by_noise(tradeoffs),
            _by_floor(tradeoffs),
        ]
    if absent:
        lines.append(
            f"{absent} of the {len(facet.grid)} cells asked for {'is' if absent == 1 else 'are'} missing; "
            "running the sweep again computes only those."
        )
    return [sentence for sentence in lines if sentence]


def _proved(grid: Grid) -> list[str]:
    """For each defense of which something is proved: how much, at the largest eps."""
    cells = {
        row.coordinates.column: row
        for row in sorted(grid.proofs, key=lambda row: row.coordinates.eps)
        if row.coordinates.eps
    }
    return [
        f"Of {column_label(*column)} {_p(Rate.of(row.cell))} of the images are proved at eps "
        f"{number(row.coordinates.eps)}: no attack within that budget changes their class."
        for column, row in cells.items()
        if row.cell
    ]


def has_no_defense(grid: Grid) -> bool:
    """Whether the bare classifier is all that was asked for, by attack or by proof."""
    return set(grid.columns()) <= set(grid.bare)


def _headline(grid: Grid, tradeoffs: TradeOffs) -> str:
    """What the strongest attack leaves, and what the best purifier makes of it."""
    budget = f"At eps {number(tradeoffs.eps or 0)}"
    if tradeoffs.undefended is None:
        return f"{budget} not every attack of this grid is computed, so no defense can be judged there yet."
    bare_percent = _p(tradeoffs.undefended)
    leaves = f"{budget} the strongest attack of this grid ({tradeoffs.strongest}) leaves {bare_percent} undefended"
    candidates, rivals = tradeoffs.learned or tradeoffs.defended, _untrained_rivals(tradeoffs)
    if has_no_defense(grid):
        return f"{leaves}; this grid has no defense."
    if not candidates:
        return f"{leaves}; no defense of this grid was tried against every attack there."
    # Only columns that raise it: the cleanest of those tied with the best may win nothing itself.
    choice = tradeoffs.best_for_floor(0, tradeoffs.raising(candidates))
    if choice:
        best = choice.item
        attack_note = f" ({best.worst}, its worst of {_named(tradeoffs.attacks)})" if len(tradeoffs.attacks) > 1 else ""
        ties = f" ({_alike(choice)})" if choice.tied else ""
        improvement = f"; {best.label}{ties} brings that to {_p(best.attacked)}{attack_note}{_for(best, tradeoffs)}"
        return f"{leaves}{improvement}{f', but {rivals}' if rivals else ''}."
    best = tradeoffs.highest(candidates)
    kind = "trained purifier" if best.learned else "defense"
    verdict = f"no {kind} raises that by more than the error bars (the best: {best.label}, {_p(best.attacked)})"
    return f"{leaves}; {verdict}{f', while {rivals}' if rivals else ''}."


def _named(attacks: tuple[str, ...]) -> str:
    """These attacks one by one, or how many they are."""
    return listed(list(attacks)) if len(attacks) <= SPELLED_OUT else f"{len(attacks)} attacks"


def worst_of(attacks: tuple[str, ...]) -> str:
    """``the worst of fgsm and pgd``, or the only attack."""
    return f"the worst of {_named(attacks)}" if len(attacks) > 1 else attacks[0]


def _untrained_rivals(tradeoffs: TradeOffs) -> str:
    """The defenses without training that beat every trained one beyond the error bars, if there are any."""
    if not tradeoffs.learned:
        return ""
    rates = [item.attacked for item in tradeoffs.learned if item.attacked]
    ahead = [
        item
        for item in tradeoffs.defended
        if not item.learned and item.attacked and all(item.attacked.above(rate) for rate in rates)
    ]
    return listed(
        [f"{item.label}, which learns nothing, reaches {_p(item.attacked)}{_for(item, tradeoffs)}" for item in ahead]
    )


def _for(item: TradeOff, tradeoffs: TradeOffs) -> str:
    """The clean price as a phrase; empty where it is not known."""
    if item.price is None or item.clean is None or tradeoffs.undefended_clean is None:
        return ""
    if item.clean.overlaps(tradeoffs.undefended_clean):
        return " for no clean accuracy beyond the error bars"
    if item.price < 0:
        return f", and is {-item.price:.1f} points better on clean images too"
    return f" for {item.price:.1f} points of clean accuracy"


def _alike(choice: Choice) -> str:
    """The others that the error bars do not tell from the chosen one; empty if there are none."""
    names = [item.label for item in choice.tied]
    others = listed(names) if len(names) <= TIES_SPELLED_OUT else f"{len(names)} others"
    return f"not told apart from {others} by the error bars" if names else ""


def _by_noise(tradeoffs: TradeOffs) -> list[str]:
    """For each trained defense: what every noise pays and wins."""
    lines = []
    budget = f"at eps {number(tradeoffs.eps or 0)}, in points"
    for defense in dict.fromkeys(item.defense for item in tradeoffs.learned):
        items = [item for item in tradeoffs.learned if item.defense == defense]
        selection = spread(items, SPELLED_OUT)
        clauses = [clause for item in selection if (clause := _pays_and_wins(item, tradeoffs))]
        more = (
            f" ({len(selection)} of its {len(items)} noises; the table has all)" if len(selection) < len(items) else ""
        )
        if clauses:
            lines.append(f"What {defense} pays on clean images and wins {budget}{more}: {'; '.join(clauses)}.")
    return lines


def _pays_and_wins(item: TradeOff, tradeoffs: TradeOffs) -> str:
    """``noise 0.5 pays 2.0 and wins 32.8``; empty where nothing is known."""
    parts = []
    if item.price is not None:
        parts.append(f"pays {item.price:z.1f}{_bars(item.clean, tradeoffs.undefended_clean)}")
    if item.gain is not None:
        parts.append(
            f"wins {marked(f'{item.gain:z.1f}', item.gain_is_doubtful)}{_bars(item.attacked, tradeoffs.undefended)}"
        )
    subject = "it" if item.noise is None else f"noise {number(item.noise)}"
    return f"{subject} {' and '.join(parts)}" if parts else ""


def _by_floor(tradeoffs: TradeOffs) -> str:
    """Which trained defense, or which noise of the only one, to take for which floor on clean accuracy."""
    baseline = [item for item in tradeoffs.items if not item.defended]
    candidates = [*baseline, *tradeoffs.learned]
    steps = tradeoffs.frontier(candidates)
    defended_steps = [step for step in steps if step[1].item.defended]
    noises = len({item.defense for item in tradeoffs.learned}) == 1 < len(tradeoffs.learned)
    kind = "noise" if noises else "trained defense"
    if not defended_steps:
        return f"No {kind} gains anything for its price: take no defense." if tradeoffs.learned and steps else ""
    clauses = []
    for floor, choice in spread(defended_steps, SPELLED_OUT):
        name = choice.item.label if not noises or choice.item.noise is None else f"noise {number(choice.item.noise)}"
        accuracy = f"{_p(choice.item.attacked)} at eps {number(tradeoffs.eps or 0)}"
        note = ", ".join(filter(None, [accuracy, _alike(choice)]))
        clauses.append(f"{_round_floor(floor, choice, tradeoffs, candidates)} % take {name} ({note})")
    highest = max(item.clean.fraction for item in tradeoffs.learned if item.clean)
    limit = f" No {kind} keeps more than {percent(highest)} %."
    return f"If the clean accuracy must be at least {'; at least '.join(clauses)}.{limit}"


def floor_steps(tradeoffs: TradeOffs) -> list[tuple[float, str]]:
    """What to take for each floor on clean accuracy: (floor, words), the highest floor (a fraction) first; the words
    hold down to the next floor. Above the first no column is left."""
    trained = [item for item in tradeoffs.items if not item.defended or item.learned]
    floors = {floor for columns in (trained, tradeoffs.items) for floor, _ in tradeoffs.frontier(columns)}
    steps = []
    for floor in sorted(floors, reverse=True):
        best = tradeoffs.best_for_floor(floor)
        learned = tradeoffs.best_for_floor(floor, trained) if tradeoffs.learned else None
        words = [f"Of the trained: {_taken(learned, tradeoffs)}."] if learned else []
        words += [f"Of all columns: {_taken(best, tradeoffs)}."] if best else []
        steps.append((floor, " ".join(words)))
    return steps


def _taken(choice: Choice, tradeoffs: TradeOffs) -> str:
    """``vqvae 0.25, 97.4 % clean and 59.2 % at eps 0.3``."""
    item = choice.item
    name = item.label if item.defended else "no defense"
    numbers = f"{_p(item.clean)} clean and {_p(item.attacked)} at eps {number(tradeoffs.eps or 0)}"
    return ", ".join(filter(None, [name, numbers, _alike(choice)]))


def _round_floor(floor: float, choice: Choice, tradeoffs: TradeOffs, candidates: list[TradeOff]) -> str:
    """The roundest percentage below a floor that leads to the same choice."""
    for digits in (0, 1, 2):
        scale = 10**digits
        rounded = int(floor * 100 * scale + 1e-6) / scale
        other = tradeoffs.best_for_floor(rounded / 100, candidates)
        if other and other.item is choice.item:
            return f"{rounded:.{digits}f}"
    return percent(floor, 3)


def _bars(rate: Rate | None, other: Rate | None) -> str:
    return " (within the error bars)" if rate and other and rate.overlaps(other) else ""


def _p(rate: Rate | None) -> str:
    return f"{rate.percent} %" if rate else ""
