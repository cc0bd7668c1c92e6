"""Labels for the cells of a sweep that differ in an argument which is no column of the grid."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from src.evaluation import CellSpec, Coordinates
from src.workflows.composing import parsed

#: A value that a column's name needs beside it: the override, the column, and the name there.
Variant = tuple[str, str, str]


def labels(points: Sequence[Sequence[str]], specs: Sequence[CellSpec]) -> list[Coordinates]:
    """Where the cells of a sweep stand in its grid.

    Usually at their own coordinates. If two cells would stand in one place, because the sweep gives an argument several
    values (``attack.steps=5,20``), the name in the column that the argument belongs to says the value:
    ``ifgsm (steps=5)``. Another classifier is named beside the data.

    Args:
        points: the overrides of each cell.
        specs: their specs.
    """
    overrides = [_values(point) for point in points]
    variants = _variants(overrides, specs)
    return [_labelled(spec.coordinates, values, variants) for spec, values in zip(specs, overrides, strict=True)]


def _values(overrides: Sequence[str]) -> dict[str, str]:
    """The value of each override by its name."""
    return {override.key_or_group: str(override.value()) for override in parsed(overrides)}


def _columns(spec: CellSpec) -> dict[str, Any]:
    """What stands behind the name in each column."""
    return {
        "data": (spec.data, spec.classifier),
        "attack": spec.attack,
        "threat": spec.threat,
        "defense": spec.defense,
        "protocol": spec.protocol,
    }


def _variants(overrides: Sequence[Mapping[str, str]], specs: Sequence[CellSpec]) -> set[Variant]:
    """The overrides by which cells of one place differ, found by pairs that differ in one override alone."""
    places = defaultdict(list)
    for number, spec in enumerate(specs):
        places[spec.coordinates].append(number)
    variants: set[Variant] = set()
    for coordinates, numbers in places.items():
        if len({specs[number].key for number in numbers}) == 1:
            continue
        for one, other in combinations(numbers, 2):
            differing = [name for name, value in overrides[one].items() if overrides[other].get(name) != value]
            if len(differing) == 1:
                before, after = _columns(specs[one]), _columns(specs[other])
                changed = [column for column in before if before[column] != after[column]]
                variants.update((differing[0], column, getattr(coordinates, column)) for column in changed)
    return variants


def _labelled(coordinates: Coordinates, values: Mapping[str, str], variants: set[Variant]) -> Coordinates:
    """``coordinates`` with the values of ``variants`` beside their names."""
    notes = defaultdict(list)
    for override, column, name in sorted(variants):
        if getattr(coordinates, column) == name and override in values:
            notes[column].append(f"{override.rpartition('.')[2]}={values[override]}")
    names: dict[str, Any] = {
        column: f"{getattr(coordinates, column)} ({', '.join(texts)})" for column, texts in notes.items()
    }
    return replace(coordinates, **names)
