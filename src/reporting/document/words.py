"""The grid in sentences: what was paid, what was won, what to take, and what the numbers do not say."""

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import Facet
from src.reporting.analysis.labels import column_label, listed, number, percent, spread
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


def sentences(facet: Facet, found: TradeOffs) -> list[str]:
    """The words of one part of the grid, the headline first."""
    absent = len(facet.grid.missing)
    if absent == len(facet.grid):
        return ["No cell of this grid is computed yet."]
    proved = _proved(facet.grid)
    if found.eps is None:
        said = proved or ["Nothing is attacked in this grid: it holds clean accuracies only."]
    else:
        said = [_headline(found), warning(facet.grid), *proved, *_by_noise(found), _by_floor(found)]
    if absent:
        said.append(
            f"{absent} of the {len(facet.grid)} cells asked for {'is' if absent == 1 else 'are'} missing; "
            "running the sweep again computes only those."
        )
    return [sentence for sentence in said if sentence]


def _proved(grid: Grid) -> list[str]:
    """For each defense of which something is proved: how much, at the largest eps."""
    cells = {
        (row.coordinates.defense, row.coordinates.noise): row
        for row in sorted(grid.proofs, key=lambda row: row.coordinates.eps)
        if row.coordinates.eps
    }
    return [
        f"Of {column_label(*column)} {_p(Rate.of(row.cell))} of the images are proved at eps "
        f"{number(row.coordinates.eps)}: no attack within that budget changes their class."
        for column, row in cells.items()
        if row.cell
    ]


def _headline(found: TradeOffs) -> str:
    """What the strongest attack leaves, and what the best purifier makes of it."""
    at = f"At eps {number(found.eps or 0)}"
    if found.undefended is None:
        return f"{at} not every attack of this grid is computed, so no defense can be judged there yet."
    leaves = f"{at} the strongest attack of this grid ({found.strongest}) leaves {_p(found.undefended)} undefended"
    among, rivals = found.learned or found.defended, _untrained_rivals(found)
    if not among:
        return f"{leaves}; no defense of this grid was tried against every attack there."
    # The cleanest of those that the error bars do not tell apart may win nothing, though others of them do.
    choice = found.best_for_floor(0, found.raising(among))
    if choice:
        best = choice.item
        over = f" ({best.worst}, its worst of {named(found.attacks)})" if len(found.attacks) > 1 else ""
        alike = f" ({_alike(choice)})" if choice.tied else ""
        kept = f"; {best.label}{alike} brings that to {_p(best.attacked)}{over}{_for(best, found)}"
        return f"{leaves}{kept}{f', but {rivals}' if rivals else ''}."
    best = found.highest(among)
    kind = "trained purifier" if best.learned else "defense"
    nothing = f"no {kind} raises that by more than the error bars (the best: {best.label}, {_p(best.attacked)})"
    return f"{leaves}; {nothing}{f', while {rivals}' if rivals else ''}."


def named(attacks: tuple[str, ...]) -> str:
    """These attacks one by one, or how many they are."""
    return listed(list(attacks)) if len(attacks) <= SPELLED_OUT else f"{len(attacks)} attacks"


def _untrained_rivals(found: TradeOffs) -> str:
    """The defenses without training that beat every trained one beyond the error bars, if there are any."""
    if not found.learned:
        return ""
    rates = [item.attacked for item in found.learned if item.attacked]
    ahead = [
        item
        for item in found.defended
        if not item.learned and item.attacked and all(item.attacked.above(rate) for rate in rates)
    ]
    return listed(
        [f"{item.label}, which learns nothing, reaches {_p(item.attacked)}{_for(item, found)}" for item in ahead]
    )


def _for(item: TradeOff, found: TradeOffs) -> str:
    """The clean price as a phrase; empty where it is not known."""
    if item.price is None or item.clean is None or found.undefended_clean is None:
        return ""
    if item.clean.overlaps(found.undefended_clean):
        return " for no clean accuracy beyond the error bars"
    if item.price < 0:
        return f", and is {-item.price:.1f} points better on clean images too"
    return f" for {item.price:.1f} points of clean accuracy"


def _alike(choice: Choice) -> str:
    """Which others the error bars do not tell from the chosen one; empty if there are none."""
    names = [item.label for item in choice.tied]
    few = listed(names) if len(names) <= TIES_SPELLED_OUT else f"{len(names)} others"
    return f"not told apart from {few} by the error bars" if names else ""


def _by_noise(found: TradeOffs) -> list[str]:
    """For each trained defense: what every noise pays and wins."""
    said = []
    at = f"at eps {number(found.eps or 0)}, in points"
    for defense in dict.fromkeys(item.defense for item in found.learned):
        items = [item for item in found.learned if item.defense == defense]
        shown = spread(items, SPELLED_OUT)
        clauses = [clause for item in shown if (clause := _pays_and_wins(item, found))]
        more = f" ({len(shown)} of its {len(items)} noises; the table has all)" if len(shown) < len(items) else ""
        if clauses:
            said.append(f"What {defense} pays on clean images and wins {at}{more}: {'; '.join(clauses)}.")
    return said


def _pays_and_wins(item: TradeOff, found: TradeOffs) -> str:
    """``noise 0.5 pays 2.0 and wins 32.8``; empty where nothing is known."""
    parts = []
    if item.price is not None:
        parts.append(f"pays {_z(item.price)}{_bars(item.clean, found.undefended_clean)}")
    if item.gain is not None:
        parts.append(f"wins {_z(item.gain)}{_bars(item.attacked, found.undefended)}")
    subject = "it" if item.noise is None else f"noise {number(item.noise)}"
    return f"{subject} {' and '.join(parts)}" if parts else ""


def _by_floor(found: TradeOffs) -> str:
    """Which trained defense, or which noise of the only one, to take for which floor on clean accuracy."""
    baseline = [item for item in found.items if not item.defended]
    among = [*baseline, *found.learned]
    steps = found.frontier(among)
    worthy = [step for step in steps if step[1].item.defended]
    noises = len({item.defense for item in found.learned}) == 1 < len(found.learned)
    kind = "noise" if noises else "trained defense"
    if not worthy:
        return f"No {kind} gains anything for its price: take no defense." if found.learned and steps else ""
    clauses = []
    for floor, choice in spread(worthy, SPELLED_OUT):
        name = choice.item.label if not noises or choice.item.noise is None else f"noise {number(choice.item.noise)}"
        reaches = f"{_p(choice.item.attacked)} at eps {number(found.eps or 0)}"
        note = ", ".join(filter(None, [reaches, _alike(choice)]))
        clauses.append(f"{_round_floor(floor, choice, found, among)} % take {name} ({note})")
    highest = max(item.clean.fraction for item in found.learned if item.clean)
    above = f" No {kind} keeps more than {percent(highest)} %."
    return f"If the clean accuracy must be at least {'; at least '.join(clauses)}.{above}"


def floor_steps(found: TradeOffs) -> list[tuple[float, str]]:
    """What to take for each floor on clean accuracy: (floor, words), the highest floor (a fraction) first; the words
    hold down to the next floor. Above the first no column is left."""
    trained = [item for item in found.items if not item.defended or item.learned]
    floors = {floor for among in (trained, found.items) for floor, _ in found.frontier(among)}
    said = []
    for floor in sorted(floors, reverse=True):
        best = found.best_for_floor(floor)
        learned = found.best_for_floor(floor, trained) if found.learned else None
        words = [f"Of the trained: {_taken(learned, found)}."] if learned else []
        words += [f"Of all columns: {_taken(best, found)}."] if best else []
        said.append((floor, " ".join(words)))
    return said


def _taken(choice: Choice, found: TradeOffs) -> str:
    """``vqvae 0.25, 97.4 % clean and 59.2 % at eps 0.3``."""
    item = choice.item
    name = item.label if item.defended else "no defense"
    numbers = f"{_p(item.clean)} clean and {_p(item.attacked)} at eps {number(found.eps or 0)}"
    return ", ".join(filter(None, [name, numbers, _alike(choice)]))


def _round_floor(floor: float, choice: Choice, found: TradeOffs, among: list[TradeOff]) -> str:
    """The roundest percentage below a floor that leads to the same choice."""
    for digits in (0, 1, 2):
        scale = 10**digits
        rounded = int(floor * 100 * scale + 1e-6) / scale
        other = found.best_for_floor(rounded / 100, among)
        if other and other.item is choice.item:
            return f"{rounded:.{digits}f}"
    return percent(floor, 3)


def _bars(rate: Rate | None, other: Rate | None) -> str:
    return " (within the error bars)" if rate and other and rate.overlaps(other) else ""


def _p(rate: Rate | None) -> str:
    return f"{percent(rate.fraction)} %" if rate else ""


def _z(value: float) -> str:
    """One digit, and no minus before a zero."""
    return f"{value:.1f}" if round(value, 1) else "0.0"
