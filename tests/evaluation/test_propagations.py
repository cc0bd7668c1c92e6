"""What an attack costs, counted in images that go through the classifier."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from src.attacks import fgsm, from_torchattacks, ifgsm, pgd, uniform
from src.evaluation.spec import AttackSpec
from src.evaluation.tensors import TensorStore

IMAGES = 64


class Noisy(nn.Module):
    """A defense that answers at random."""

    def forward(self, x):
        return x + 0.05 * torch.randn_like(x)


@pytest.mark.parametrize(
    ("attack", "arguments", "forward", "backward"),
    [
        (fgsm, {}, 1, 1),
        (ifgsm, {"steps": 7}, 7, 7),
        (ifgsm, {"steps": 7, "refresh_gradient": False}, 1, 1),
        (pgd, {"steps": 3}, 3, 3),
        (uniform, {"samples": 5}, 5, 0),
    ],
    ids=["fgsm", "ifgsm", "one gradient", "pgd", "noise"],
)
@pytest.mark.parametrize("batch_size", [16, 13])
def test_a_cell_says_how_many_images_went_through_the_classifier(
    another, specify, attack, arguments, forward, backward, batch_size
):
    evaluator = another()
    evaluator.batch_size = batch_size
    cell = evaluator(specify(0.2, attack=attack, arguments=arguments))
    assert cell.propagations == {"forward": forward * IMAGES, "backward": backward * IMAGES}
    assert cell.propagations_per_image == forward + backward
    assert evaluator(specify(0.0)).propagations == {}


def test_the_cost_does_not_depend_on_who_made_the_gradient_or_the_set(another, specify):
    another()(specify(0.1, attack=fgsm))  # makes the gradient
    shared = another()(specify(0.2, attack=ifgsm, arguments={"steps": 4}))
    found = another()(specify(0.2, attack=ifgsm, arguments={"steps": 4}, binarize=True))  # finds the set
    assert found.stages["attack"] == 0
    assert shared.propagations == found.propagations == {"forward": 4 * IMAGES, "backward": 4 * IMAGES}


def test_every_sample_of_a_random_defense_counts(another, specify):
    spec = specify(0.2, attack=ifgsm, arguments={"steps": 3}, defense=Noisy(), knows=True, eot_samples=5)
    assert another()(spec).propagations == {"forward": 15 * IMAGES, "backward": 15 * IMAGES}


def test_an_attack_that_stops_early_costs_less(another, specify):
    steps = partial(specify, 0.3, attack=pgd, arguments={"steps": 20})
    until_fooled, to_the_end = another()(steps(knows=True)), another()(steps())
    assert until_fooled.propagations_per_image < to_the_end.propagations_per_image / 2


def test_a_gradient_free_attack_takes_no_gradient(another, specify):
    search = partial(from_torchattacks, attack="Square", n_queries=10, n_restarts=1)
    cell = another()(specify(0.1, attack=search, names={"attack": "square"}, family="gradient-free"))
    assert cell.propagations["forward"] >= 10 and cell.propagations["backward"] == 0


def test_a_worst_case_costs_what_its_attacks_cost(another, specify):
    members = {"one": specify(0.2, attack=fgsm).attack, "four": specify(0.2, arguments={"steps": 4}).attack}
    spec = replace(specify(0.2), attack=AttackSpec("worst", members=members))
    assert another()(spec).propagations == {"forward": 5 * IMAGES, "backward": 5 * IMAGES}


def test_a_set_of_an_older_version_is_used_and_its_cost_is_not_known(another, specify, tmp_path):
    spec = specify(0.2, attack=fgsm)
    cell = another()(spec)
    store, key = TensorStore(tmp_path / "adversarial"), spec.attacked_key
    tensors = store.get_or_make(key, dict, lambda: pytest.fail("it is there"))
    assert tensors["propagations"].tolist() == [IMAGES, IMAGES]
    (tmp_path / "adversarial" / f"{key}.safetensors").unlink()
    TensorStore(tmp_path / "adversarial").get_or_make(key, dict, lambda: {"x_adv": tensors["x_adv"]})
    (tmp_path / "cells" / f"{spec.key}.json").unlink()
    again = another()(spec)
    assert again.stages["attack"] == 0
    assert again.predictions == cell.predictions
    assert again.propagations == {} and again.propagations_per_image is None
