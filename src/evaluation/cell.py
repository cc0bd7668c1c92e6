"""What came out of a cell, as it is stored."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, NonNegativeInt, PositiveInt, TypeAdapter, WrapValidator
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from src.encoded_images import EncodedImages, of_one_shape
from src.evaluation.spec import CERTIFICATE, SCHEMA, Coordinates, Fraction, Quantity, content_key
from src.evaluation.statistics import wilson_interval
from src.stored import check, parse, read

T = TypeVar("T")

#: The prediction for an image whose logits hold a NaN. No label is -1, so it counts as wrong.
NO_CLASS = -1


class Attacker(TypedDict, total=False):
    """What the attacker of a cell was and saw; see :mod:`src.evaluation.diagnosis`. Entries that are not named here may
    be there as well."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    family: str  #: as :attr:`src.evaluation.spec.AttackSpec.family`
    knows_defense: bool
    zero_gradient: Fraction
    nan_gradient: Fraction
    nan_logits: Fraction
    random: bool
    eot_samples: PositiveInt
    probabilities: bool
    #: of a proof, why nothing can be proved of the defense; absent where something can
    unprovable: str


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
    examples = check(_parts(Examples), stored)
    if not of_one_shape({name: examples[name] for name in ("original", "attacked", "purified")}):
        raise ValueError("the images are not of one shape")
    columns = (examples["labels"], examples["predictions"], examples["confidences"], examples["undefended_predictions"])
    if {len(column) for column in columns} != {examples["original"]["shape"][0]}:
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
    undefended_accuracy: Fraction  #: the same attack without defense; 0 for a proof, of which there is none
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
    #: images that went "forward" and "backward" through the classifier for the attack (of a worst case for all of its
    #: attacks), whether this cell made it or found it; empty where nothing was attacked or an older version did it
    propagations: dict[str, NonNegativeInt] = field(default_factory=dict)
    #: whether a check gave a reason not to believe it; depends on the grid that it stands in, and is not stored
    doubtful: bool = False

    @property
    def is_proof(self) -> bool:
        """Whether its correct images are proved, not attacked."""
        return self.attacker.get("family") == CERTIFICATE

    @property
    def right(self) -> np.ndarray:
        """Whether each image counted as correct; (N,), bool."""
        return np.frombuffer(self.outcomes.encode(), dtype=np.uint8) == ord("1")

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
    def score(self) -> dict[str, float]:
        """How many of the images count as correct, under the names that files have for it."""
        low, high = self.interval
        return {"correct": self.correct, "accuracy": self.accuracy, "ci_low": low, "ci_high": high}

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())

    @property
    def propagations_per_image(self) -> float | None:
        """Forward and backward, as AttackBench counts them; None where they are not known."""
        return sum(self.propagations.values()) / self.n if self.propagations else None

    def to_json(self) -> dict[str, Any]:
        """Plain types, with the derived numbers written out for readers of the file."""
        fields = asdict(self)
        del fields["doubtful"]
        head = {"schema": SCHEMA, "key": self.key} | fields.pop("coordinates")
        record = head | self.score | {"seconds": self.seconds} | fields
        return record | {"digest": content_key(record)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | str | bytes) -> "Cell":
        """Read what :meth:`to_json` gave, or its text, and check it.

        Raises:
            DamagedError: a field is missing or of the wrong type, the key is not that of the identity, the counts do
                not follow from the outcomes, or the record is not the one that was written.
        """
        return parse(_schema(), stored if isinstance(stored, str | bytes) else json.dumps(stored))

    @classmethod
    def read(cls, path: Path) -> "Cell":
        """Read a cell's file and check it.

        Raises:
            FileNotFoundError: there is none.
            DamagedError: like :meth:`from_json`, or it cannot be read.
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
