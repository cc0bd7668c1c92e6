"""The examples in docstrings give what they say."""

import doctest
import importlib

import pytest

MODULES = [
    *(f"src.attacks.{name}" for name in ("gradient", "noise", "suite", "threshold")),
    *(f"src.defenses.{name}" for name in ("bit_depth", "kmeans", "median", "threshold")),
    *(f"src.evaluation.{name}" for name in ("smoothing", "statistics")),
    "src.models.quantizer",
    "src.straight_through",
    "src.workflows.named",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(name))
    assert tried.attempted and not tried.failed
