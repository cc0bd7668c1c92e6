"""Reasons not to believe a grid: signs of a weak attack or of masked gradients, after Carlini et al., arXiv:1902.06705.

A defense is only as strong as the attacks that it was tried against. Each check looks for one way in which an attack
may have failed for another reason than the defense's strength. ``docs/checks.md`` has a paragraph on each, under its
name. An attacker who knows the defense is judged by how little he leaves. So is one who knows no defense, against the
bare classifier: there he knows all there is. What any attacker saw of the model that he differentiates through is
looked at as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from src.evaluation.cell import NO_CLASS, Cell
from src.evaluation.contradictions import contradictions
from src.evaluation.spec import CellSpec, Coordinates
from src.evaluation.statistics import sign_test

#: Share of images without a usable gradient that is too many.
FEW = 0.01
#: Accuracy that may be left at a budget with which every image can be made grey.
NEAR_ZERO = 0.05
#: Share of the images that twice the effort may win, or one image if that is more.
CONVERGED = 0.02
#: Probability, by chance alone, at which one attack is not called stronger than another.
SIGNIFICANCE = 0.01

#: Name of the finding that is an error of this program.
BROKEN = "proved-and-fooled"
#: That of a proof which was asked of what there is none for.
NOT_PROVABLE = "nothing-to-prove"
#: Those of checks that compare attacks of one eps.
OF_ONE_EPS = {"one-step-beats-iterative", "black-box-beats-white-box", "stronger-attack-lowers"}

ITERATIVE, ONE_STEP = "iterative", "one-step"
STRONGER, HALF = "stronger", "half"


@dataclass(frozen=True)
class Probing:
    """How a cell whose attacker knows all there is to know is attacked once more."""

    images: int = 50  #: the first so many; 0 turns it off
    eps: float = 0.5  #: L∞ budget in pixel units at which nothing should be left: any image can be made grey


@dataclass(frozen=True)
class Finding:
    """A reason for suspicion."""

    name: str  #: of the check, such as ``zero-gradient``
    where: Coordinates  #: the cell that it was found at, or the first of them
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What the checks of a grid came to."""

    findings: tuple[Finding, ...] = ()
    judged: int = 0  #: attacked cells that were looked at; without any there is nothing to check
    idle: tuple[str, ...] = ()  #: names of the checks for which the grid has no cells
    probed: int = 0  #: probes that are computed
    asked: int = 0  #: probes that were asked for
    doubtful: frozenset[str] = frozenset()  #: keys of the cells whose accuracies are not to be believed


@dataclass(frozen=True)
class Evidence:
    """What is known of one defense, or of the bare classifier: its attacked cells, and what became of those that were
    probed."""

    cells: tuple[Cell, ...]
    stronger: Mapping[str, Cell] = field(default_factory=dict)  #: by key, the cell with twice the effort
    half: Mapping[str, Cell] = field(default_factory=dict)  #: by key, the cell with the budget of :class:`Probing`
    clean: tuple[Cell, ...] = ()  #: its cells without attack
    proofs: tuple[Cell, ...] = ()  #: its cells that say which images are proved
    #: of a bare classifier, attacked cells of defenses whose attackers saw nothing but it
    seen_by: tuple[Cell, ...] = ()

    @property
    def informed(self) -> list[Cell]:
        """The cells whose attacker knew all there is to know."""
        return [cell for cell in self.cells if _is_informed(cell)]

    @property
    def views(self) -> list[Cell]:
        """The cells whose attackers saw the model that this is about."""
        return [*self.informed, *self.seen_by]

    @property
    def white(self) -> list[Cell]:
        """Those of them whose attack follows a gradient in many steps."""
        return [cell for cell in self.informed if cell.attacker.get("family") == ITERATIVE]

    @property
    def black(self) -> list[Cell]:
        """The cells whose attacker did not know the defense, or whose attack follows no gradient of it."""
        others = [cell for cell in self.cells if cell.attacker.get("family") not in (None, ITERATIVE, ONE_STEP)]
        return [*others, *(cell for cell in self.cells if not _is_informed(cell))]

    @property
    def is_bare(self) -> bool:
        """Whether there is no defense."""
        return not any(_has_defense(cell) for cell in [*self.cells, *self.clean])

    def at_each_eps(self) -> Iterator["Evidence"]:
        """The same, split by budget, smallest first."""
        for eps in sorted({cell.coordinates.eps for cell in self.cells}):
            yield replace(self, cells=tuple(cell for cell in self.cells if cell.coordinates.eps == eps))


def _has_defense(cell: Cell) -> bool:
    return cell.identity["defense"] is not None


def _is_informed(cell: Cell) -> bool:
    return cell.attacker.get("knows_defense", False) or not _has_defense(cell)


@dataclass(frozen=True)
class Probe:
    """A cell by which another one is checked."""

    of: str  #: key of the other one
    kind: str  #: of :data:`STRONGER`, :data:`HALF`
    spec: CellSpec


def probes(spec: CellSpec, probing: Probing) -> list[Probe]:
    """The cells by which ``spec`` is to be checked, on its first few images: twice the effort, if the attack says what
    that is, and a budget at which nothing should be left. Only iterative attacks that know all there is to know have
    any; for a worst case, its members."""
    if spec.members:
        return [probe for member in spec.members.values() for probe in probes(member, probing)]
    if not (probing.images and spec.eps and spec.attacker_knows_all and spec.attack.family == ITERATIVE):
        return []
    few = spec.on_first(probing.images)
    stronger = [Probe(spec.key, STRONGER, few.strengthened())] if spec.attack.stronger else []
    return [*stronger, Probe(spec.key, HALF, few.at(probing.eps))]


def findings(evidence: Evidence) -> list[Finding]:
    """All reasons for suspicion that there are about one defense or bare classifier."""
    return [finding for check in CHECKS for finding in check(evidence)]


def doubted(evidence: Evidence, found: Iterable[Finding]) -> Iterator[Cell]:
    """The cells whose accuracies these findings of theirs put in doubt: those of all attackers who saw the model, or
    only those of one eps, where a check compares attacks of one eps."""
    for finding in found:
        eps = finding.where.eps if finding.name in OF_ONE_EPS else None
        cells = [] if finding.name == NOT_PROVABLE else evidence.views
        yield from (cell for cell in cells if eps in (None, cell.coordinates.eps))
        yield from evidence.proofs if finding.name == BROKEN else ()


def zero_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Images whose gradient is zero or not a number cannot be attacked by following it."""
    for cell in evidence.views:
        zero, nan = cell.attacker.get("zero_gradient", 0.0), cell.attacker.get("nan_gradient", 0.0)
        if zero + nan > FEW:
            message = f"the loss gradient is zero at {zero:.0%} of the clean images and not finite at {nan:.0%}"
            remedy = "mend the classifier's gradient" if evidence.is_bare else "try defense.bpda=true"
            yield Finding("zero-gradient", cell.coordinates, f"{message}: {remedy}")
            return  # the same for all attacks


def not_finite_logits(evidence: Evidence) -> Iterator[Finding]:
    """An answer that is not a number is counted as wrong, and says nothing of how strong the attack was."""
    for cell in evidence.views:
        if nan := cell.attacker.get("nan_logits", 0.0):
            message = f"the model's logits are not finite at {nan:.0%} of the clean images"
            yield Finding("not-finite-logits", cell.coordinates, message)
            return  # the same for all attacks
    for cell in [*evidence.clean, *evidence.cells]:
        if lost := cell.predictions.count(NO_CLASS):
            message = f"the logits of {lost} of {cell.n} images were not a number; these count as wrong"
            yield Finding("not-finite-logits", cell.coordinates, message)
            return


def probabilities_as_logits(evidence: Evidence) -> Iterator[Finding]:
    """A softmax under the cross-entropy's own softmax flattens the loss, and the gradient with it."""
    for cell in evidence.views:
        if cell.attacker.get("probabilities"):
            message = "the model returns probabilities, not logits: take its softmax off"
            yield Finding("probabilities-as-logits", cell.coordinates, message)
            return


def random_without_eot(evidence: Evidence) -> Iterator[Finding]:
    """The gradient of one answer of a random model points anywhere."""
    for cell in evidence.views:
        if cell.attacker.get("random") and cell.attacker.get("eot_samples", 1) == 1:
            model = "classifier" if evidence.is_bare else "defense or the classifier"
            message = f"the {model} is random and was attacked with a single sample of it: set eot_samples"
            yield Finding("random-without-eot", cell.coordinates, message)
            return


def one_step_beats_iterative(evidence: Evidence) -> Iterator[Finding]:
    """Many small steps can do what one large step does; where they do worse, they were led astray."""
    for subset in evidence.at_each_eps():
        one_step = _lowest(cell for cell in subset.informed if cell.attacker.get("family") == ONE_STEP)
        iterative = _lowest(subset.white)
        if one_step and iterative and _breaks_more(one_step, iterative):
            yield Finding("one-step-beats-iterative", one_step.coordinates, _beats(one_step, iterative))


def black_box_beats_white_box(evidence: Evidence) -> Iterator[Finding]:
    """Who knows the defense can do all that others can; where that is less, its gradient hides the way."""
    for subset in evidence.at_each_eps():
        white, black = _lowest(subset.white), _lowest(subset.black)
        if white and black and _breaks_more(black, white):
            yield Finding("black-box-beats-white-box", black.coordinates, _beats(black, white))


def unbroken_at_half(evidence: Evidence) -> Iterator[Finding]:
    """With a budget that makes any two images alike, no defense can be right; an attack that fails there is broken."""
    probed = [evidence.half[cell.key] for cell in evidence.cells if cell.key in evidence.half]
    lowest = _lowest(probed)
    if lowest and lowest.accuracy > NEAR_ZERO:
        message = (
            f"{lowest.accuracy:.0%} of {lowest.n} images are still classified correctly at eps "
            f"{lowest.coordinates.eps:g} under {lowest.coordinates.attack}, the strongest there"
        )
        yield Finding("unbroken-at-half", lowest.coordinates, message)


def stronger_attack_lowers(evidence: Evidence) -> Iterator[Finding]:
    """Attacks that have not converged say nothing of where they would have ended. What counts is what all attacks of
    one eps leave together, image by image: that one of the weaker ones could do better changes nothing."""
    for subset in evidence.at_each_eps():
        probed = [(cell, subset.stronger[cell.key]) for cell in subset.informed if cell.key in subset.stronger]
        if not probed:
            continue
        n = probed[0][1].n
        survivors = _left_by_all(subset.informed, n)
        lost = {cell.key: len(survivors - _left_by_all([probe], n)) for cell, probe in probed}
        cell, _ = max(probed, key=lambda pair: lost[pair[0].key])
        if lost[cell.key] > max(1, CONVERGED * n):
            message = (
                f"with twice the effort it fools {lost[cell.key]} more of the first {n} images; all attacks of this "
                f"eps together leave {len(survivors)} of them"
            )
            yield Finding("stronger-attack-lowers", cell.coordinates, message)


def _left_by_all(cells: Iterable[Cell], n: int) -> set[int]:
    """Which of the first ``n`` images count as correct in all cells."""
    rows = [cell.outcomes[:n] for cell in cells]
    return {i for i in range(n) if all(row[i] == "1" for row in rows)}


def proved_and_fooled(evidence: Evidence) -> Iterator[Finding]:
    """An image that is proved stands every attack, so an attack that fools it shows an error of this program."""
    for contradiction in contradictions([*evidence.proofs, *evidence.cells, *evidence.clean])[:1]:
        message = f"{contradiction}: an error of defense-vqvae, please report it; do not use these numbers"
        yield Finding(BROKEN, contradiction.proof.coordinates, message)


def nothing_to_prove(evidence: Evidence) -> Iterator[Finding]:
    """0 % proved of a defense that the program has no proof for says nothing of the defense."""
    for cell in evidence.proofs:
        if reason := cell.attacker.get("unprovable"):
            yield Finding(NOT_PROVABLE, cell.coordinates, f"its 0 % says nothing of the defense: {reason}")
            return


def idle_checks(groups: Iterable[Evidence]) -> tuple[str, ...]:
    """Names of the checks that could find nothing in these groups, whatever is wrong: they have no cells for them."""
    groups = list(groups)
    idle = (check for check, needed in CHECKS.items() if not any(needed(evidence) for evidence in groups))
    return tuple(check.__name__.replace("_", "-") for check in idle)


def _both_families(evidence: Evidence) -> bool:
    return any(
        {ONE_STEP, ITERATIVE} <= {cell.attacker.get("family") for cell in subset.informed}
        for subset in evidence.at_each_eps()
    )


def _both_boxes(evidence: Evidence) -> bool:
    return any(subset.white and subset.black for subset in evidence.at_each_eps())


Check = Callable[[Evidence], Iterator[Finding]]
#: Each check, and whether there is what it looks at.
CHECKS: Mapping[Check, Callable[[Evidence], bool]] = {
    zero_gradient: lambda evidence: bool(evidence.views),
    not_finite_logits: lambda evidence: bool(evidence.views),
    probabilities_as_logits: lambda evidence: bool(evidence.views),
    random_without_eot: lambda evidence: bool(evidence.views),
    one_step_beats_iterative: _both_families,
    black_box_beats_white_box: _both_boxes,
    unbroken_at_half: lambda evidence: bool(evidence.half),
    stronger_attack_lowers: lambda evidence: bool(evidence.stronger),
    proved_and_fooled: lambda evidence: bool(evidence.proofs and (evidence.cells or evidence.clean)),
    nothing_to_prove: lambda evidence: bool(evidence.proofs),
}


def _lowest(cells: Iterable[Cell]) -> Cell | None:
    return min(cells, key=lambda cell: cell.accuracy, default=None)


def _breaks_more(cell: Cell, other: Cell) -> bool:
    """Whether ``cell`` leaves fewer of the same images than ``other``, by more than chance: an exact sign test on the
    images that only one of the two leaves."""
    if cell.n != other.n:
        return False
    pairs = list(zip(cell.outcomes, other.outcomes, strict=True))
    only_cell, only_other = pairs.count(("0", "1")), pairs.count(("1", "0"))
    return sign_test(only_cell, only_cell + only_other) < SIGNIFICANCE


def _beats(lower: Cell, higher: Cell) -> str:
    names = [f"{cell.coordinates.attack} ({cell.coordinates.threat})" for cell in (lower, higher)]
    return f"{names[0]} leaves {lower.accuracy:.1%}, less than the {higher.accuracy:.1%} of {names[1]}"


def evidence_of(
    cells: Iterable[Cell], probed: Mapping[str, Mapping[str, Cell]], find: Callable[[str], Cell | None]
) -> list[Evidence]:
    """What there is to judge, one for each defense or bare classifier, in order of first appearance.

    Args:
        cells: those of a grid; members of a worst case are looked at as well.
        probed: by the cell's key, its probes by kind, as far as they are computed.
        find: the stored cell of a key, or None.
    """

    def probes_of(kind: str, cells: Iterable[Cell]) -> dict[str, Cell]:
        return {cell.key: probed[cell.key][kind] for cell in cells if kind in probed.get(cell.key, {})}

    attacked, clean, proofs, onlookers = _Groups(), _Groups(), _Groups(), _Groups()
    for cell in cells:
        coordinates = cell.coordinates
        bare = (coordinates.data, coordinates.protocol, coordinates.seed, repr(cell.identity["classifier"]))
        group = (*bare, coordinates.defense, coordinates.noise) if _has_defense(cell) else bare
        if not coordinates.eps:
            clean.add(group, cell)
            continue
        if cell.is_proof:
            proofs.add(group, cell)
            continue
        members = [stored for member in cell.members.values() if (stored := find(member["key"]))]
        for attacked_cell in members if cell.members else [cell]:
            attacked.add(group, attacked_cell)
            if not _is_informed(attacked_cell):
                onlookers.add(bare, attacked_cell)
    return [
        Evidence(
            attacked.of(group),
            stronger=probes_of(STRONGER, attacked.of(group)),
            half=probes_of(HALF, attacked.of(group)),
            clean=clean.of(group),
            proofs=proofs.of(group),
            seen_by=onlookers.of(group),
        )
        for group in dict.fromkeys([*attacked, *clean, *proofs, *onlookers])
    ]


class _Groups(dict[tuple[object, ...], dict[str, Cell]]):
    """Cells by what they have in common, each once."""

    def add(self, group: tuple[object, ...], cell: Cell) -> None:
        self.setdefault(group, {})[cell.key] = cell

    def of(self, group: tuple[object, ...]) -> tuple[Cell, ...]:
        return tuple(self.get(group, {}).values())
