"""Cells of a small classifier on a slice of real digits."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.attacks import ifgsm
from src.data import ImageDataModule
from src.defended import adaptive, gray_box
from src.defenses import Binarize, Identity
from src.evaluation import (
    NO_DEFENSE,
    AttackSpec,
    CellSpec,
    CellStore,
    DataSpec,
    DefenseSpec,
    Protocol,
    ThreatSpec,
)
from src.evaluation.attacking import AttackedSets
from src.evaluation.components import TestSet
from src.evaluation.evaluator import Evaluator
from src.evaluation.spec import Component
from src.signatures import accepts

Specify = Callable[..., CellSpec]


@pytest.fixture(scope="session")
def digits(mnist: ImageDataModule) -> TestSet:
    return TestSet(*mnist.test_set(64), num_classes=10)


@pytest.fixture(scope="session")
def classifier(digits: TestSet) -> nn.Module:
    """Linear, and fitted to the very digits it is tested on: right on all of them, and easily attacked."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        loss = nn.functional.cross_entropy(network(digits.images), digits.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@dataclass
class Shelf:
    """Components by name: what a test puts here, its specs can name."""

    test_sets: dict[str, TestSet] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, thing: Any, **arguments: Any) -> Component:
        """The component that stands for ``thing``; a function is bound to ``arguments``."""
        self.made[name] = thing
        return {"_target_": name} | arguments

    def images(self, data: DataSpec) -> TestSet:
        test = self.test_sets[data.name]
        return TestSet(test.images[: data.n], test.labels[: data.n], test.num_classes)

    def classifier(self, identity: Any) -> nn.Module:
        return self.made[identity]

    def build(self, component: Component | None) -> Any:
        if component is None:
            return Identity()
        arguments = {name: value for name, value in component.items() if name != "_target_"}
        made = self.made[component["_target_"]]
        return partial(made, **arguments) if arguments else made


class CountingAttack:
    """I-FGSM that counts the batches it was asked for."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        self.batches += 1
        return ifgsm(*arguments, **keywords)


@pytest.fixture
def counting() -> CountingAttack:
    return CountingAttack()


@pytest.fixture
def shelf(digits: TestSet, classifier: nn.Module) -> Shelf:
    return Shelf({"digits": digits}, {"linear": classifier})


@pytest.fixture
def specify(shelf: Shelf, counting: CountingAttack) -> Specify:
    """``specify(eps=…, defense=…, attack=…, knows=…)``: a cell's specification. What is given as a module or a function
    is named by its type or name, unless ``names`` names it."""

    def make(
        eps: float = 0.1,
        binarize: bool = False,
        defense: nn.Module | None = None,
        classifier: nn.Module | None = None,
        attack: Callable[..., torch.Tensor] | None = None,
        arguments: dict[str, Any] | None = None,
        stronger: tuple[str, ...] = (),
        knows: bool = False,
        eot_samples: int = 1,
        family: str = "iterative",
        protocol: Protocol | None = None,
        names: dict[str, str] | None = None,
        **fields: Any,
    ) -> CellSpec:
        defense = Binarize() if binarize else defense
        attack = counting if attack is None else attack
        name = (names or {}).get("attack") or getattr(attack, "__name__", "ifgsm")
        known = shelf.put("adaptive", adaptive, eot_samples=eot_samples)
        blind = shelf.put("gray_box", gray_box, eot_samples=eot_samples)
        spec = CellSpec(
            data=DataSpec("digits", "digits", 64),
            classifier="linear",
            attack=AttackSpec(
                name,
                shelf.put(name, attack, **(arguments or {})),
                family=family,
                stronger=stronger,
                early_stop=accepts(attack, "early_stop"),
            ),
            eps=eps,
            threat=ThreatSpec("adaptive", known, True, blind) if knows else ThreatSpec("gray_box", blind),
            defense=NO_DEFENSE,
            protocol=protocol or Protocol(),
        )
        if defense is not None:
            name = (names or {}).get("defense") or type(defense).__name__.lower()
            spec = replace(spec, defense=DefenseSpec(name, shelf.put(name, defense)))
        if classifier is not None:
            name = (names or {}).get("classifier") or type(classifier).__name__
            shelf.put(name, classifier)
            spec = replace(spec, classifier=name)
        return replace(spec, **fields)

    return make


@pytest.fixture
def another(tmp_path: Path, shelf: Shelf) -> Callable[[], Evaluator]:
    """An evaluator of another process: the same folders, an empty memory."""

    def make() -> Evaluator:
        return Evaluator(
            shelf,
            CellStore(tmp_path / "cells"),
            AttackedSets(tmp_path / "adversarial", tmp_path / "gradients"),
            accelerator="cpu",
            batch_size=16,
        )

    return make


@pytest.fixture
def evaluator(another: Callable[[], Evaluator]) -> Evaluator:
    return another()
