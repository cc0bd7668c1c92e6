"""Anyone's classifier under the real commands, by the name of its factory or the path of a checkpoint."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from src.attacks import fgsm
from src.data.idx import read_idx
from src.defended import DefendedClassifier
from src.defenses import Binarize, Identity
from src.models.checkpoint import read_checkpoint, weights_fingerprint
from src.workflows.classifiers import build_own, is_factory
from tests.wandb_reading import read_runs
from tests.workflows import components
from tests.workflows.conftest import cells, copy_of, read_grid

HERE = "tests.workflows.components"
CODE = hashlib.sha256(Path(components.__file__).read_bytes()).hexdigest()
ONE = ("attack=fgsm", "eps=0.1")


def stored(outputs: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")]


@pytest.fixture(scope="module")
def own(run_command, tmp_path_factory) -> Path:
    """An outputs folder, nothing trained in it, after a sweep over a user's classifier."""
    outputs = tmp_path_factory.mktemp("own")
    grid = ("-m", "attack=fgsm", "eps=0,0.1", "defense=none,binarize", "noise=0", "logger=none")
    run_command("src.sweep", *grid, f"classifier={HERE}:linear_classifier", outputs=outputs)
    return outputs


@pytest.mark.slow
def test_the_grid_is_that_of_the_users_module(own, slice_root):
    images = read_idx(slice_root / "t10k-images-idx3-ubyte")[:, None] / 255
    labels = read_idx(slice_root / "t10k-labels-idx1-ubyte").long()
    rows = read_grid(own)
    assert len(rows) == 4
    for row in rows:
        defense = Binarize() if row["defense"] == "binarize" else Identity()
        defended = DefendedClassifier(components.linear_classifier(), defense)
        attacked = fgsm(defended.classifier, images, labels, eps=float(row["eps"]))
        right = (defended(attacked).argmax(1) == labels).sum().item()
        assert int(row["correct"]) == pytest.approx(right, abs=1)  # a tie may fall either way
        assert int(row["n"]) == 120


def test_a_cell_knows_it_by_name_and_weights(own):
    weights = weights_fingerprint(components.linear_classifier().state_dict())
    assert len(stored(own)) == 4
    for cell in stored(own):
        assert cell["identity"]["classifier"] == {
            "factory": f"{HERE}:linear_classifier",
            "weights": weights,
            "code": CODE,
        }


def test_other_weights_make_other_cells_and_another_group_of_wandb_runs(own, run_command, monkeypatch):
    before = set(cells(own))
    monkeypatch.setenv("OWN_SEED", "2")
    run_command("src.sweep", *ONE, "logger=wandb", f"classifier={HERE}:linear_classifier", outputs=own)
    assert len(set(cells(own)) - before) == 2  # with attack and without
    weights = weights_fingerprint(components.linear_classifier().state_dict())
    assert len({cell["identity"]["classifier"]["weights"] for cell in stored(own)} - {weights}) == 1
    (run,) = read_runs(own, "cell")
    assert run.start["run_group"] == f"mnist-default-{weights[:8]}"
    assert run.config["classifier/factory"] == f"{HERE}:linear_classifier"


@pytest.mark.parametrize("verdict", ["worst_of_n", "frozen"])
def test_verdicts_are_not_for_a_classifier_that_is_random(own, run_command, verdict):
    chosen = (f"classifier={HERE}:random_classifier", "defense=none", "noise=0", f"verdict={verdict}", "logger=none")
    done = run_command("src.sweep", *ONE, *chosen, outputs=own, check=False)
    assert done.returncode == 1
    assert f"verdict={verdict} is for random defenses, and this classifier answers at random itself" in done.stderr


def test_equal_weights_of_another_name_are_another_classifier():
    names = ("linear_classifier", "the_same_by_another_name")
    one, other = (build_own(f"{HERE}:{name}", (1, 28, 28), 10) for name in names)
    assert one.weights == other.weights
    assert one.identity != other.identity


def test_a_checkpoint_at_another_path_is_known_by_its_weights(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    moved = tmp_path / "elsewhere" / "mine.ckpt"
    moved.parent.mkdir()
    (outputs / "checkpoints" / "mnist" / "classifier.ckpt").rename(moved)
    run_command("src.sweep", *ONE, "logger=none", f"classifier={moved}", outputs=outputs)
    weights = read_checkpoint(moved, "")[1].weights
    assert {cell["identity"]["classifier"] for cell in stored(outputs)} == {weights}


def test_weights_left_to_chance_are_the_same_in_every_process_and_disturb_nobody(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "drawn.py").write_text("from torch import nn\nNET = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))")
    for name in (f"{HERE}:drawn_classifier", "drawn:NET"):
        weights = set()
        for seed in range(2):
            sys.modules.pop("drawn", None)
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            weights.add(build_own(name, (1, 28, 28), 10).weights)
            assert torch.equal(torch.get_rng_state(), state)
        assert len(weights) == 1 and None not in weights


def test_a_module_as_it_is_without_weights_is_known_by_its_name_and_its_file():
    own = build_own(f"{HERE}:POOLED", (1, 28, 28), 10)
    assert own.module is components.POOLED
    assert own.identity == {"factory": f"{HERE}:POOLED", "weights": None, "code": CODE}


def test_buffers_that_are_not_saved_count_too(monkeypatch):
    def with_mean(mean: float) -> torch.nn.Module:
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.AvgPool1d(78))
        module.register_buffer("mean", torch.tensor(mean), persistent=False)
        return module

    found = []
    for mean in (0.1, 0.2):
        monkeypatch.setattr(components, "POOLED", with_mean(mean))
        found.append(build_own(f"{HERE}:POOLED", (1, 28, 28), 10).weights)
    assert found[0] != found[1]


def test_it_is_frozen_and_in_eval_mode():
    module = build_own(f"{HERE}:linear_classifier", (1, 28, 28), 10).module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("package.module:factory", True),
        ("module:Class.method", True),
        ("some/file.ckpt", False),
        ("C:/file.ckpt", False),
        ("module:", False),
        (":factory", False),
        ("module", False),
        (None, False),
        ({"checkpoint": "a:b"}, False),
    ],
)
def test_what_is_a_factory_and_what_a_path(asked, expected):
    assert is_factory(asked) is expected


@pytest.mark.slow
def test_a_pretrained_network_is_asked_for_by_its_name(run_command, tmp_path):
    """With a searchpath of the user's, as any group; the network of conf/pretrained needs the package index."""
    folder = tmp_path / "conf" / "pretrained"
    folder.mkdir(parents=True)
    (folder / "linear.yaml").write_text(f"_target_: {HERE}.linear_classifier\n")
    found = f"hydra.searchpath=[file://{tmp_path}/conf]"
    grid = ("-m", "attack=fgsm", "eps=0,0.1", "defense=none", "noise=0", "classifier=linear", "logger=none")
    run_command("src.sweep", *grid, found, outputs=tmp_path)
    weights = weights_fingerprint(components.linear_classifier().state_dict())
    assert len(stored(tmp_path)) == 2
    for cell in stored(tmp_path):
        known = cell["identity"]["classifier"]
        assert known["component"].pop("_code_") == CODE
        assert known == {
            "factory": "linear", "weights": weights, "component": {"_target_": f"{HERE}.linear_classifier"},
        }  # fmt: skip
    unknown = run_command("src.sweep", *ONE, "classifier=nothing", "logger=none", outputs=tmp_path, check=False)
    assert unknown.returncode != 0
    assert "classifier=nothing is neither" in unknown.stderr and "cifar10_resnet18" in unknown.stderr
