"""What a cell knows of a user's own components: their code, their files and their weights."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation.spec import ADAPTIVE, GRAY_BOX, ThreatSpec
from src.workflows.cells import _threat_spec
from src.workflows.component_cache import ComponentCache
from src.workflows.configured import fingerprinted
from src.workflows.own_code import has_own_code, without_marks
from tests.conftest import REPO

BLUR = """
import torch
class Blur(torch.nn.Module):
    def __init__(self, weights=None, width=3):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.rand(width, width))
        if weights:
            self.load_state_dict(torch.load(weights, weights_only=True))
    def forward(self, x):
        return x * {factor}
class WithState(Blur):
    def state_dict(self, *args, **kwargs):
        return super().state_dict(*args, **kwargs) | {"extra": "no tensor"}
def attack(model, x, y, *, eps):
    return x
"""
Identify = Callable[..., Any]


@pytest.fixture
def identify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Identify]:
    """``identify({"_target_": "my_blur.Blur"}, factor=2)``: the identity of a component in a process that finds this
    ``my_blur.py``."""
    monkeypatch.syspath_prepend(tmp_path)

    def identity(component: Any, factor: int = 1) -> Any:
        (tmp_path / "my_blur.py").write_text(BLUR.replace("{factor}", str(factor)))
        sys.modules.pop("my_blur", None)
        importlib.invalidate_caches()
        return ComponentCache().identified(component, None, "test")

    yield identity
    sys.modules.pop("my_blur", None)


@pytest.mark.parametrize("component", [
    {"_target_": "my_blur.Blur"},
    {"_target_": "my_blur.attack", "_partial_": True},
    {"_target_": "src.defenses.Chain", "_args_": [{"_target_": "src.defenses.Binarize"}, {"_target_": "my_blur.Blur"}]},
    {"_target_": "hydra.utils.get_class", "path": "my_blur.Blur"},
])  # fmt: skip
def test_other_code_is_another_component(identify: Identify, component: dict[str, Any]) -> None:
    one, again, other = identify(component), identify(component), identify(component, factor=2)
    assert one == again != other
    assert without_marks(one) == component
    assert has_own_code(one)


def test_other_weights_in_a_file_are_another_component(identify: Identify, tmp_path: Path) -> None:
    path = tmp_path / "purifier.pt"
    identities = []
    for value in (0.25, 0.5):
        torch.save({"kernel": torch.full((3, 3), value)}, path)
        identities.append(identify({"_target_": "my_blur.Blur", "weights": str(path)}))
    assert identities[0] != identities[1]
    assert identities[1] == identify({"_target_": "my_blur.Blur", "weights": str(path)})


def test_weights_that_no_argument_names_are_seen_too(identify: Identify, tmp_path: Path) -> None:
    sizes = [identify({"_target_": "my_blur.Blur", "width": width}) for width in (3, 4)]
    assert sizes[0]["_weights_"] != sizes[1]["_weights_"]
    torch.manual_seed(1)
    assert identify({"_target_": "my_blur.Blur", "width": 3}) == sizes[0]  # whatever was drawn before


def test_weights_without_a_fingerprint_are_refused(identify: Identify) -> None:
    with pytest.raises(UserError, match="extra in its state_dict is no tensor"):
        identify({"_target_": "my_blur.WithState"})


def test_a_checkpoint_counts_by_its_weights_alone(identify: Identify, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("any")
    identify({"_target_": "my_blur.Blur"})  # writes the module
    marks = fingerprinted({"_target_": "my_blur.Blur", "checkpoint": str(path)}, lambda part: "weights")
    assert marks["checkpoint"] == "weights" and "_files_" not in marks


def test_a_threat_is_built_from_its_identity() -> None:
    """Which has fingerprints where its configuration has the paths of checkpoints."""
    built = []

    class Components(ComponentCache):
        def identified(self, component: Any, data: Any, split: str) -> Any:
            return {"identity_of": component}

        def build(self, component: Any) -> None:
            built.append(component)

    threat = {"name": "own", "view": {"_target_": "my.threat"}, "knows_defense": True}
    _threat_spec(threat, ImageDataModule("none", "nowhere"), "test", Components())
    assert built == [{"identity_of": threat["view"]}]


def test_what_is_built_knows_nothing_of_the_marks(identify: Identify) -> None:
    identity = identify({"_target_": "my_blur.Blur", "width": 2})
    built = ComponentCache().build(identity)
    assert built.kernel.shape == (2, 2)
    with torch.no_grad():
        assert built(torch.ones(1)).item() == 1


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield {"_target_": node["_target_"]}
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _targets(part)


@pytest.mark.parametrize("group", ["attack", "defense", "threat", "model"])
def test_the_projects_own_components_are_known_by_their_arguments_alone(group: str) -> None:
    files = sorted((REPO / "conf" / group).glob("*.yaml"))
    parts = [part for file in files for part in _targets(OmegaConf.to_container(OmegaConf.load(file)))]
    assert len(parts) >= 2
    for part in parts:
        assert ComponentCache().identified(part, None, "test") == part


def test_what_a_threat_is_said_to_know_is_a_part_of_a_cell() -> None:
    arguments = {"_partial_": True, "eot_samples": 1}
    gray_box, adaptive = ({"_target_": target} | arguments for target in (GRAY_BOX, ADAPTIVE))
    usual = ThreatSpec("adaptive", adaptive, knows_defense=True, bare=gray_box)
    assert usual.identity == adaptive
    assert ThreatSpec("gray_box", gray_box).identity == gray_box
    for other in (replace(usual, knows_defense=False), ThreatSpec("gray_box", gray_box, knows_defense=True)):
        assert other.identity not in (adaptive, gray_box)
    own = ThreatSpec("own", {"_target_": "my.threat"}, bare=gray_box)
    others = [replace(own, knows_defense=True), replace(own, bare=adaptive), replace(own, bare=None)]
    assert all(own.identity != other.identity for other in others)
