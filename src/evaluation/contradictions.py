"""Proofs that attacks refute. A proved image stands every attack within the budget, so one of the two is wrong."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from src.evaluation.cell import Cell

#: Parts of a cell's identity in which a proof and an attack have to agree.
SAME = ("data", "classifier", "defense", "noise", "protocol")

#: Gives a defense another gradient, and the same images.
STRAIGHT_THROUGH = "src.straight_through.StraightThrough"


@dataclass(frozen=True)
class Contradiction:
    """Images that are proved by one cell and fooled in another: one of the two is wrong."""

    proof: Cell
    attack: Cell
    images: list[int]  #: their indices in the set's canonical order

    def __str__(self) -> str:
        images = f"image {self.images[0]}" + (f" and {len(self.images) - 1} more" if len(self.images) > 1 else "")
        return f"{images}: proved by {self.proof.coordinates}, and yet fooled by {self.attack.coordinates}"


def contradictions(cells: Iterable[Cell]) -> list[Contradiction]:
    """Proofs that other cells refute, of the same images, classifier, defense and protocol, whatever the threat, the
    seed and the number of images: at no attack and at an eps that is not above the proof's."""
    cells = list(cells)
    proofs, attacks = [cell for cell in cells if cell.is_proof], [cell for cell in cells if not cell.is_proof]
    compared = [
        Contradiction(proof, attack, _fooled(proof, attack))
        for proof in proofs
        for attack in attacks
        if attack.coordinates.eps <= proof.coordinates.eps and _are_of_one_model(proof, attack)
    ]
    return [each for each in compared if each.images]


def _fooled(proof: Cell, attack: Cell) -> list[int]:
    """Which of the first images, those that both cells have, are proved and yet fooled."""
    n = min(proof.n, attack.n)
    return (proof.right[:n] & ~attack.right[:n]).nonzero()[0].tolist()


def _are_of_one_model(proof: Cell, other: Cell) -> bool:
    """Whether two cells are of the same images, up to their number, classifier, defense and protocol."""
    return all(_comparable(proof, part) == _comparable(other, part) for part in SAME)


def _comparable(cell: Cell, part: str) -> Any:
    value = cell.identity[part]
    if part == "data":
        return {name: entry for name, entry in value.items() if name != "n"}
    if part == "defense" and isinstance(value, Mapping) and value.get("_target_") == STRAIGHT_THROUGH:
        return value["purifier"]
    return value
