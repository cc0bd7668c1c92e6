"""What a cell is asked of, as plain data: which images, classifier, attack, budget, threat, defense, protocol, seed.

A component (an attack, a threat, a purifier) is a mapping with ``_target_``, the name of what is called, and its
arguments, all of plain JSON types. In place of a checkpoint's path stands the fingerprint of its weights. A cell's key
is a hash of these data, and what runs is built from them (:class:`src.evaluation.components.Components`), so the two
cannot drift apart.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

if TYPE_CHECKING:  # it imports torch, and reports do without
    from src.precision import Precision

#: Part of every key. Raise it when a change of code changes what a stored number means.
SCHEMA = 4

#: ``family`` of what is not an attack but a proof: its cell says which images no attack can change.
CERTIFICATE = "certificate"

#: The project's two threats, and whether the attacker of each knows the defense.
GRAY_BOX, ADAPTIVE = "src.defended.gray_box", "src.defended.adaptive"
KNOWS_DEFENSE = {GRAY_BOX: False, ADAPTIVE: True}

Component = Mapping[str, Any]  #: ``_target_`` and arguments; a checkpoint by the fingerprint of its weights

Fraction = Annotated[float, Field(ge=0, le=1)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def number(value: float) -> str:
    """An eps or a noise for the eye: ``0.3``, or ``8/255`` where four digits do not do for a number of grey levels."""
    short, levels = f"{value:.4g}", round(255 * value)
    return f"{levels}/255" if abs(float(short) - value) > 1e-9 and abs(255 * value - levels) < 1e-6 else short


Column = tuple[str, float | None]  #: (defense, noise)


@dataclass(frozen=True, order=True)
class Coordinates:
    """Where a cell stands in the grid: the columns that name it."""

    data: str
    attack: str
    eps: Fraction  #: L∞ budget in pixel units
    threat: str
    defense: str
    noise: Quantity | None  #: σ the defense was trained with; None where the defense has none
    protocol: str
    seed: int

    @property
    def column(self) -> Column:
        """The column of the report's tables."""
        return self.defense, self.noise

    def __str__(self) -> str:
        noise = "" if self.noise is None else f" {number(self.noise)}"
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.attack} eps {number(self.eps)} · {self.defense}{noise} · {self.threat}{seed}"


@dataclass(frozen=True)
class Protocol:
    """How outcomes are counted."""

    name: str = "default"
    #: Count an image as wrong in every cell if the undefended classifier gets it wrong without attack.
    clean_errors_count: bool = False


@dataclass(frozen=True)
class DataSpec:
    """The first ``n`` images of a split of a data set."""

    name: str
    fingerprint: str  #: of images and labels
    n: int
    #: what tells the images of another split from the test images, such as ``{"split": "val", "split_seed": 0}``
    split: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``mnist``, or ``mnist-val``."""
        return f"{self.name}-{self.split['split']}" if self.split else self.name

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "fingerprint": self.fingerprint, "n": self.n} | dict(self.split)


@dataclass(frozen=True)
class AttackSpec:
    """An attack, or several of which the worst case is taken image by image."""

    name: str
    #: builds (model, x, y, *, eps) -> x_adv; None for a worst case
    component: Component | None = None
    family: str = ""  #: "one-step", "iterative", "gradient-free", "transfer", "noise", or :data:`CERTIFICATE`
    #: whole-number arguments which, doubled, can only make the attack stronger
    stronger: tuple[str, ...] = ()
    early_stop: bool = False  #: whether it takes the argument ``early_stop``
    members: Mapping[str, "AttackSpec"] = field(default_factory=dict)  #: of a worst case, by name

    @property
    def is_certificate(self) -> bool:
        """Whether this is not an attack but a proof that holds for every attack."""
        return self.family == CERTIFICATE

    @property
    def precision(self) -> "Precision":
        """What its gradients are computed in."""
        return (self.component or {}).get("precision", "float32")

    @property
    def identity(self) -> Any:
        if self.members:
            return {"members": {name: member.identity for name, member in self.members.items()}}
        return self.component

    def strengthened(self) -> "AttackSpec":
        """The same with twice the effort: steps, restarts, samples, whatever ``stronger`` names."""
        members = {name: member.strengthened() for name, member in self.members.items()}
        component = None if self.component is None else _doubled(self.component, self.stronger)
        return replace(self, component=component, members=members)


@dataclass(frozen=True)
class ThreatSpec:
    """What the attacker knows."""

    name: str
    component: Component  #: builds (classifier, defense) -> the model that the attacker differentiates through
    knows_defense: bool = False  #: whether the attacked images depend on the defense
    #: For undefended cells: an equivalent threat whose images can be reused, or None.
    bare: Component | None = None
    stronger: tuple[str, ...] = ()  #: as for :class:`AttackSpec`

    @property
    def identity(self) -> Any:
        """What stands for it in a cell's identity: of the project's two threats as they are the component alone."""
        if KNOWS_DEFENSE.get(self.component.get("_target_", "")) == self.knows_defense:
            return self.component
        return {"view": self.component, "knows_defense": self.knows_defense, "bare": self.bare}

    def strengthened(self) -> "ThreatSpec":
        """The same with twice the effort, as :meth:`AttackSpec.strengthened`."""
        bare = None if self.bare is None else _doubled(self.bare, self.stronger)
        return replace(self, component=_doubled(self.component, self.stronger), bare=bare)


@dataclass(frozen=True)
class DefenseSpec:
    """A purifier, or none."""

    name: str
    component: Component | None  #: builds the module x -> x̂; None for the bare classifier
    noise: float | None = None  #: σ it was trained with, in pixel units; None where it has none
    learned: bool = False  #: whether it was trained, as opposed to one that learns nothing
    claim: str = ""  #: what was published of it, with its source


NO_DEFENSE = DefenseSpec("none", None)


#: Verdicts on a defense that answers at random; see :func:`src.evaluation.verdicts.judged`.
WORST_OF_N, MAJORITY = "worst_of_n", "majority"


@dataclass(frozen=True)
class Verdict:
    """Which of a random model's answers counts."""

    name: str = "single"  #: "single", :data:`WORST_OF_N` or :data:`MAJORITY`
    samples: int = 1  #: answers to each image, ≥ 1

    @property
    def is_single(self) -> bool:
        """Whether one answer counts; one answer is its own worst and its own majority."""
        return self.name == "single" or self.samples == 1

    def __str__(self) -> str:
        return "single" if self.is_single else f"{self.name.removesuffix('_of_n')} of {self.samples}"


@dataclass(frozen=True)
class CellSpec:
    """A cell to be found or computed.

    ``identity`` is what the number depends on. Its hash is the cell's key, so two cells with one identity are one cell,
    and a cell whose classifier was retrained is another.
    """

    data: DataSpec
    classifier: Any  #: fingerprint of its weights, or the identity of a user's own
    attack: AttackSpec
    eps: float  #: L∞ budget in pixel units; at 0 nothing is attacked
    threat: ThreatSpec
    defense: DefenseSpec
    protocol: Protocol = Protocol()
    seed: int = 0
    verdict: Verdict = Verdict()

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates(
            data=self.data.label,
            attack=self.attack.name,
            eps=self.eps,
            threat=self.threat.name,
            defense=self.defense.name if self.verdict.is_single else f"{self.defense.name} ({self.verdict})",
            noise=self.defense.noise,
            protocol=self.protocol.name,
            seed=self.seed,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What the number depends on, as plain JSON types. No attack, threat or defense is None."""
        return numbers_as_floats(
            {
                "schema": SCHEMA,
                "data": self.data.identity,
                "classifier": self.classifier,
                "attack": self.attack.identity if self.eps else None,
                "eps": self.eps,
                "threat": self.threat.identity if self.eps and not self.is_proof else None,
                "defense": self.defense.component,
                "noise": self.defense.noise,
                "protocol": asdict(self.protocol),
                "seed": self.seed,
            }
            | ({} if self.verdict.is_single else {"verdict": asdict(self.verdict)})
        )

    @property
    def key(self) -> str:
        """Content hash of the identity: 32 hex digits, the cell's file name."""
        return content_key(self.identity)

    @property
    def is_proof(self) -> bool:
        """Whether images are proved, not attacked."""
        return self.attack.is_certificate and self.eps > 0

    @property
    def is_bare(self) -> bool:
        """Whether there is no defense."""
        return self.defense.component is None

    @property
    def attacker_knows_all(self) -> bool:
        """Whether the attacker differentiates through the very model that is evaluated: the threat knows the defense,
        or there is none."""
        return self.threat.knows_defense or self.is_bare

    @property
    def view(self) -> dict[str, Any]:
        """The model that the attacker differentiates through: a threat, and the defense that it is built with, None if
        the attacker knows of none."""
        if self.threat.knows_defense and not self.is_bare:
            return {"threat": self.threat.component, "defense": self.defense.component}
        return {"threat": self.threat.bare or self.threat.component, "defense": None}

    @property
    def early_stop(self) -> bool:
        """Whether the attack may leave images alone that fool the model it sees: only if that model is the one that
        is evaluated, and if the attack can. Of a bare classifier another model, the defended one, is asked later."""
        return self.threat.knows_defense and self.attack.early_stop

    @property
    def view_key(self) -> str:
        """Content hash of :attr:`view` and the images: all attacks and budgets share what is found out about it."""
        return self._key_of_view()

    @property
    def gradient_key(self) -> str:
        """Content hash of what the gradient at the clean images depends on: all attacks and budgets share it if the
        attacker knows no defense."""
        precision = self.attack.precision
        return self._key_of_view() if precision == "float32" else self._key_of_view(precision=precision)

    @property
    def attacked_key(self) -> str:
        """Content hash of what the attacked images depend on: all defenses share them unless the threat knows."""
        attack = self.attack.identity
        return self._key_of_view(attack=attack, eps=self.eps, seed=self.seed, early_stop=self.early_stop)

    def _key_of_view(self, **others: Any) -> str:
        viewed = {"schema": SCHEMA, "data": self.data.identity, "classifier": self.classifier, "view": self.view}
        return content_key(numbers_as_floats(viewed | others))

    @property
    def members(self) -> dict[str, "CellSpec"]:
        """The cells of which this one is the worst case, image by image; empty for an attack of its own."""
        if not self.eps:
            return {}
        return {name: replace(self, attack=member) for name, member in self.attack.members.items()}

    def without_attack(self) -> "CellSpec":
        """The same defense on clean images."""
        return self.at(0.0)

    def without_defense(self) -> "CellSpec":
        """The same attack on the bare classifier."""
        return replace(self, defense=NO_DEFENSE, verdict=Verdict())

    def at(self, eps: float) -> "CellSpec":
        """The same attack with another budget."""
        return replace(self, eps=eps)

    def on_first(self, n: int) -> "CellSpec":
        """The same on the first ``n`` images alone, or on all if there are no more."""
        return replace(self, data=replace(self.data, n=min(n, self.data.n)))

    def strengthened(self) -> "CellSpec":
        """The same attack and threat with twice the effort."""
        return replace(self, attack=self.attack.strengthened(), threat=self.threat.strengthened())


def _doubled(component: Component, names: tuple[str, ...]) -> Component:
    """``component`` with twice the arguments ``names``, as far as it has them; ``attacks.pgd.steps`` lies within it."""
    doubled = dict(component)
    for name in names:
        first, _, rest = name.partition(".")
        if first in doubled:
            doubled[first] = _doubled(doubled[first], (rest,)) if rest else 2 * doubled[first]
    return doubled


def numbers_as_floats(value: Any) -> Any:
    """``value`` with every number a float: 0 and 0.0 are one number to a user and two to JSON, and so to a hash."""
    if isinstance(value, Mapping):
        return {name: numbers_as_floats(part) for name, part in value.items()}
    if isinstance(value, list):
        return [numbers_as_floats(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def content_key(identity: Mapping[str, Any]) -> str:
    """First 128 bits of the SHA-256 of an identity's canonical JSON, in hex."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
