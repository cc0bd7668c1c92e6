"""What a cell is: where it stands in the grid, what it was computed from, and what came out."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, WrapValidator
from torch import Tensor, nn
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from src.evaluation.statistics import wilson_interval
from src.images import EncodedImages, of_one_shape
from src.stored import check, parse, read

T = TypeVar("T")

#: Part of every key. Raise it when a change of code changes what a stored number means.
SCHEMA = 2

NO_DEFENSE = {"_target_": "src.defenses.Identity"}
#: The prediction for an image whose logits hold a NaN. No label is -1, so it counts as wrong.
NO_CLASS = -1
#: Identity of the attack and threat at eps 0, where there is nothing to attack with.
NOTHING = {"_target_": None}

# Types that are checked when a cell is read from its file
Fraction = Annotated[float, Field(ge=0, le=1)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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

    def __str__(self) -> str:
        noise = "" if self.noise is None else f" {self.noise:g}"
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.attack} eps {self.eps:g} · {self.defense}{noise} · {self.threat}{seed}"


@dataclass(frozen=True)
class Protocol:
    """How outcomes are counted."""

    name: str = "default"
    #: Count an image as wrong in every cell if the undefended classifier gets it wrong without attack.
    clean_errors_count: bool = False


@dataclass(frozen=True)
class TestSet:
    """Images (N, C, H, W), float32, in [0, 1] and labels (N,), int64, in canonical order.

    Raises:
        ValueError: they are something else.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    images: Tensor
    labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        x, y = self.images, self.labels
        if x.ndim != 4 or x.dtype != torch.float32 or y.shape != x.shape[:1] or y.dtype != torch.int64:
            raise ValueError(
                "images must be float32 (N, C, H, W) and labels int64 (N,); "
                f"got {x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
            )
        if x.numel() and not (x.min() >= 0 and x.max() <= 1):  # false for NaN as well
            raise ValueError(f"images must be in [0, 1]; got values from {x.min():.4g} to {x.max():.4g}")
        if len(y) and not (y.min() >= 0 and y.max() < self.num_classes):
            raise ValueError(f"labels must be 0 to {self.num_classes - 1}; got {y.min()} to {y.max()}")


@dataclass(frozen=True)
class CellSpec:
    """A cell to be computed: its coordinates, its identity, and how to get at its parts.

    ``identity`` is what the number depends on, as plain JSON types: data, classifier weights, attack, eps, threat,
    defense and its weights, protocol, seed, number of images. Its hash is the cell's key, so two cells with one
    identity are one cell, and a cell whose classifier was retrained is another.

    The loaders are called only if the cell has to be computed.
    """

    coordinates: Coordinates
    identity: Mapping[str, Any]
    protocol: Protocol
    knows_defense: bool  #: whether the attacked images depend on the defense
    load_data: Callable[[], TestSet] = field(compare=False)
    load_classifier: Callable[[], nn.Module] = field(compare=False)
    load_defense: Callable[[], nn.Module] = field(compare=False)
    attack: Callable[..., Tensor] = field(compare=False)
    threat: Callable[[nn.Module, nn.Module], nn.Module] = field(compare=False)
    family: str = ""  #: of the attack: "one-step", "iterative", "gradient-free", "transfer", "noise"
    #: whole-number arguments of "attack" and "threat" which, doubled, can only make the attacker stronger
    efforts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    #: the cells of which this one is the worst case, image by image; empty for an attack of its own
    members: Mapping[str, "CellSpec"] = field(default_factory=dict)
    #: identity of another threat under which the same images are attacked to the same end where there is no defense;
    #: None: there is none, or the attack may tell the two apart
    bare_threat: Mapping[str, Any] | None = None
    learned: bool = False  #: whether the defense was trained, as opposed to one that learns nothing

    @property
    def key(self) -> str:
        """Content hash of the identity: 32 hex digits, the cell's file name."""
        return content_key(self.identity)

    @property
    def adversarial_key(self) -> str:
        """Content hash of what the attacked images depend on: all defenses share them unless the threat knows."""
        parts = self._seen_by_the_attacker
        del parts["protocol"]
        return content_key(parts)

    @property
    def gradient_key(self) -> str | None:
        """Content hash of what the loss gradient at the clean images depends on: every attack and eps share it. None
        if they must not: an attacker who knows the defense sees its randomness, too."""
        parts = self._seen_by_the_attacker
        if "defense" in parts:
            return None
        return content_key({name: parts[name] for name in ("schema", "data", "classifier", "threat")})

    @property
    def view_key(self) -> str:
        """Content hash of the model that the attacker differentiates through, and of the images: all attacks and eps
        share what is found out about it."""
        parts = self._seen_by_the_attacker
        for name in ("attack", "eps", "protocol", "seed"):
            del parts[name]
        return content_key(parts)

    @property
    def attacker_knows_all(self) -> bool:
        """Whether the attacker differentiates through the very model that is evaluated: the threat knows the defense,
        or there is none."""
        return self.knows_defense or self.identity["defense"] == NO_DEFENSE

    @property
    def _seen_by_the_attacker(self) -> dict[str, Any]:
        """The identity, less the defense if the attacker does not know it or there is none to know."""
        parts = dict(self.identity)
        if self.knows_defense and self.bare_threat is not None and parts["defense"] == NO_DEFENSE:
            parts["threat"] = self.bare_threat
        elif self.knows_defense:
            return parts
        del parts["defense"], parts["noise"]
        return parts

    def without_attack(self) -> "CellSpec":
        """The same defense on clean images."""
        identity = dict(self.identity) | {"eps": 0.0, "attack": NOTHING, "threat": NOTHING}
        return replace(self, coordinates=replace(self.coordinates, eps=0.0), identity=identity, members={})

    def without_defense(self) -> "CellSpec":
        """The same attack on the bare classifier."""
        from src.defenses import Identity

        return replace(
            self,
            coordinates=replace(self.coordinates, defense="none", noise=None),
            identity=dict(self.identity) | {"defense": NO_DEFENSE, "noise": None},
            learned=False,
            load_defense=Identity,
            members={name: member.without_defense() for name, member in self.members.items()},
        )

    def at(self, eps: float) -> "CellSpec":
        """The same attack with another budget, > 0."""
        return replace(
            self,
            coordinates=replace(self.coordinates, eps=eps),
            identity=dict(self.identity) | {"eps": eps},
            members={name: member.at(eps) for name, member in self.members.items()},
        )

    def on_first(self, n: int) -> "CellSpec":
        """The same on the first ``n`` images alone, or on all if there are no more."""
        n = min(n, int(self.identity["data"]["n"]))

        def load_data() -> TestSet:
            test = self.load_data()
            return TestSet(test.images[:n], test.labels[:n], test.num_classes)

        data = dict(self.identity["data"]) | {"n": float(n)}
        return replace(
            self,
            identity=dict(self.identity) | {"data": data},
            load_data=load_data,
            members={name: member.on_first(n) for name, member in self.members.items()},
        )

    def strengthened(self) -> "CellSpec":
        """The same with twice the effort: steps, restarts, samples, whatever ``efforts`` names."""
        harder = {part: {name: 2 * value for name, value in named.items()} for part, named in self.efforts.items()}
        identity = dict(self.identity)
        for part, named in harder.items():
            identity[part] = dict(identity[part]) | {name: float(value) for name, value in named.items()}
        bare = dict(self.bare_threat) if self.bare_threat else None
        if bare:
            bare |= {name: float(value) for name, value in harder.get("threat", {}).items() if name in bare}
        return replace(
            self,
            identity=identity,
            attack=partial(self.attack, **harder.get("attack", {})),
            threat=partial(self.threat, **harder.get("threat", {})),
            efforts=harder,
            bare_threat=bare,
            members={name: member.strengthened() for name, member in self.members.items()},
        )


def content_key(identity: Mapping[str, Any]) -> str:
    """First 128 bits of the SHA-256 of an identity's canonical JSON, in hex."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Attacker(TypedDict, total=False):
    """What the attacker of a cell was and saw; see :mod:`src.evaluation.diagnosis`. Entries that are not named here may
    be there as well."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    family: str  #: "one-step", "iterative", "gradient-free", "transfer", "noise"
    knows_defense: bool
    zero_gradient: Fraction
    nan_gradient: Fraction
    nan_logits: Fraction
    random: bool
    eot_samples: PositiveInt
    probabilities: bool


class Member(TypedDict):
    """What a worst case says of one of its attacks."""

    key: str  #: of its cell
    correct: NonNegativeInt
    alone: NonNegativeInt  #: images that only this attack fooled


class Examples(TypedDict):
    """The first images of a cell, and what they were taken for."""

    original: EncodedImages
    attacked: EncodedImages
    purified: EncodedImages
    labels: list[int]
    predictions: list[int]
    confidences: list[Fraction | None]  #: in the prediction; None where the network gave no finite one
    undefended_predictions: list[int]


@cache
def _parts(of: type[T]) -> TypeAdapter[T]:
    """The schema of a part of a cell."""
    return TypeAdapter(of)


def _attacker(stored: dict[str, Any]) -> dict[str, Any]:
    return dict(check(_parts(Attacker), stored))


def _examples(stored: dict[str, Any]) -> dict[str, Any]:
    if not stored:
        return {}
    shown = check(_parts(Examples), stored)
    if not of_one_shape({name: shown[name] for name in ("original", "attacked", "purified")}):
        raise ValueError("the images are not of one shape")
    told = (shown["labels"], shown["predictions"], shown["confidences"], shown["undefended_predictions"])
    if {len(each) for each in told} != {shown["original"]["shape"][0]}:
        raise ValueError("there are more or fewer labels than images")
    return stored


@dataclass(frozen=True)
class Cell:
    """A computed cell. All rates are fractions, all distances in pixel units, all times in seconds.

    The types of its fields are also the schema by which a stored cell is checked.
    """

    key: str
    coordinates: Coordinates
    n: PositiveInt  #: images evaluated
    outcomes: str  #: one character an image in test-set order: "1" counted as correct, "0" as wrong
    predictions: list[int]  #: class the defended classifier gave to each attacked image, or :data:`NO_CLASS`
    clean_accuracy: Fraction  #: the same defense without attack
    undefended_accuracy: Fraction  #: the same attack without defense
    perturbation_l2: Quantity  #: mean ‖x_adv − x‖₂
    perturbation_linf: Quantity  #: mean ‖x_adv − x‖∞
    reconstruction_mse: Quantity  #: mean squared error of x̂ to the clean image
    stages: dict[str, Quantity]  #: seconds in "attack", "purify" and "classify"
    identity: dict[str, Any]
    #: the first images, see :class:`Examples`; empty if none are kept
    examples: Annotated[dict[str, Any], AfterValidator(_examples)] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    #: (correct, images) of each class; empty if not known
    per_class: list[list[NonNegativeInt]] = field(default_factory=list)
    #: see :class:`Attacker`; empty where nothing was attacked
    attacker: Annotated[dict[str, Any], AfterValidator(_attacker)] = field(default_factory=dict)
    #: by name, the cells of which this is the worst case
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def correct(self) -> int:
        return self.outcomes.count("1")

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.n)

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """Plain types, with the derived numbers written out for readers of the file."""
        low, high = self.interval
        derived = {
            "schema": SCHEMA,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "ci_low": low,
            "ci_high": high,
            "seconds": self.seconds,
        }
        fields = asdict(self)
        coordinates = fields.pop("coordinates")
        record = {"schema": SCHEMA, "key": self.key} | coordinates | derived | fields
        return record | {"digest": content_key(record)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | str | bytes) -> "Cell":
        """Read what :meth:`to_json` gave, or its text, and check it.

        Raises:
            Damaged: a field is missing or of the wrong type, the key is not that of the identity, the counts do not
                follow from the outcomes, or the record is not the one that was written.
        """
        return parse(_schema(), stored if isinstance(stored, str | bytes) else json.dumps(stored))

    @classmethod
    def read(cls, path: Path) -> "Cell":
        """Read a cell's file and check it.

        Raises:
            FileNotFoundError: there is none.
            Damaged: like :meth:`from_json`, or it cannot be read.
        """
        return read(_schema(), path)


@cache
def _schema() -> TypeAdapter[Cell]:
    """Of a cell's file."""
    return TypeAdapter(Annotated[Cell, WrapValidator(_as_written)])


def _as_written(stored: Any, fields_of: Callable[[Any], Cell]) -> Cell:
    """A cell's record, whose coordinates stand among its other fields; its parts must agree with one another."""
    if not isinstance(stored, dict):
        raise ValueError("it is no record")
    if stored.get("schema") != SCHEMA:
        raise ValueError(f"schema {stored.get('schema')} where this version has {SCHEMA}")
    names = Coordinates.__dataclass_fields__.keys() & stored.keys()
    cell = fields_of(stored | {"coordinates": {name: stored[name] for name in names}})
    written = {name: value for name, value in stored.items() if name != "digest"}
    faults = {
        "it is not the record that was written": stored.get("digest") != content_key(written),
        "its key is not that of its identity": cell.key != content_key(cell.identity),
        "its outcomes are no outcomes": not set(cell.outcomes) <= {"0", "1"},
        "its counts contradict each other": not cell.n == len(cell.outcomes) == len(cell.predictions),
        "its correct images are not those of its outcomes": cell.correct != stored.get("correct"),
        "its classes do not add up": not _adds_up(cell),
    }
    for fault, found in faults.items():
        if found:
            raise ValueError(fault)
    return cell


def _adds_up(cell: Cell) -> bool:
    """Whether the classes come to the counts of the whole, if they are known."""
    if not cell.per_class:
        return True
    pairs = all(len(pair) == 2 and pair[0] <= pair[1] for pair in cell.per_class)
    return pairs and [*map(sum, zip(*cell.per_class, strict=True))] == [cell.correct, cell.n]
