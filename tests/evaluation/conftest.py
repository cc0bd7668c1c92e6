"""Cells of a small classifier on a slice of real digits."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.attacks import ifgsm
from src.data import ImageDataModule
from src.defended import gray_box
from src.defenses import Binarize, Identity
from src.evaluation import CellSpec, CellStore, Coordinates, Evaluator, Protocol, TestSet
from src.evaluation.adversary import AdversarialStore
from src.evaluation.cell import NO_DEFENSE, NOTHING, SCHEMA

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
def specify(digits: TestSet, classifier: nn.Module, counting: CountingAttack) -> Specify:
    """``specify(eps=…, binarize=…)``: a cell's specification."""

    def make(eps: float = 0.1, binarize: bool = False, protocol: Protocol | None = None, **fields: Any) -> CellSpec:
        protocol = protocol or Protocol()
        identity = {
            "schema": SCHEMA,
            "data": {"name": "digits", "n": 64},
            "classifier": "linear",
            "attack": {"_target_": "ifgsm"} if eps else NOTHING,
            "eps": float(eps),
            "threat": {"_target_": "gray_box"} if eps else NOTHING,
            "defense": {"_target_": "binarize"} if binarize else NO_DEFENSE,
            "noise": None,
            "protocol": protocol.name,
            "seed": 0,
        }
        name = "binarize" if binarize else "none"
        spec = CellSpec(
            coordinates=Coordinates("digits", "ifgsm", eps, "gray_box", name, None, protocol.name, 0),
            identity=identity,
            protocol=protocol,
            knows_defense=False,
            load_data=lambda: digits,
            load_classifier=lambda: classifier,
            load_defense=Binarize if binarize else Identity,
            attack=counting,
            threat=gray_box,
        )
        return replace(spec, **fields)

    return make


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    return Evaluator(
        CellStore(tmp_path / "cells"), AdversarialStore(tmp_path / "adversarial"), accelerator="cpu", batch_size=16
    )


@pytest.fixture
def another(tmp_path: Path) -> Callable[[], Evaluator]:
    """An evaluator of another process: the same folders, an empty memory."""
    stores = partial(CellStore, tmp_path / "cells"), partial(AdversarialStore, tmp_path / "adversarial")
    return lambda: Evaluator(stores[0](), stores[1](), accelerator="cpu", batch_size=16)
