"""What PGD has beyond the other gradient attacks: restarts, and an end when an image fools the model."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import pgd
from src.attacks.margin import margin
from src.attacks.verdict import fooled

EPS = 0.02


@pytest.fixture
def labels(small_net, images) -> Tensor:
    """Those that the model gets right."""
    return small_net(images).argmax(1)


def attack(model: nn.Module, x: Tensor, y: Tensor, **arguments) -> Tensor:
    return pgd(model, x, y, eps=EPS, generator=torch.Generator().manual_seed(1), **arguments)


def test_a_model_is_attacked_to_the_last_step(small_net, images, labels, asked):
    model = asked(small_net)
    attack(model, images, labels, steps=30)
    assert model.asked == 30 * len(images)


def test_with_early_stop_fooled_images_are_left_alone(small_net, images, labels, asked):
    model = asked(small_net)
    x_adv = attack(model, images, labels, steps=30, early_stop=True)
    assert model.asked < 30 * len(images)
    to_the_end = attack(small_net, images, labels, steps=30)
    assert set(fooled(small_net, to_the_end, labels).nonzero().flatten().tolist()) <= set(
        fooled(small_net, x_adv, labels).nonzero().flatten().tolist()
    )
    assert (x_adv - images).abs().max() <= EPS + 1e-6


def test_restarts_go_on_with_the_images_that_are_left(small_net, images, labels, asked):
    one, many = asked(small_net), asked(small_net)
    left = (~fooled(small_net, attack(one, images, labels, steps=2, early_stop=True), labels)).sum().item()
    x_adv = attack(many, images, labels, steps=2, restarts=4, early_stop=True)
    assert 0 < left < len(images), "this test wants an attack that fools some"
    assert many.asked <= one.asked + 3 * (len(images) + 2 * left)
    assert (~fooled(small_net, x_adv, labels)).sum() <= left


def test_restarts_keep_the_largest_margin_of_each_image(small_net, images, labels):
    generator = torch.Generator().manual_seed(1)
    runs = [pgd(small_net, images, labels, eps=EPS, steps=3, generator=generator) for _ in range(3)]
    largest = torch.stack([margin(small_net, run, labels) for run in runs]).amax(0)
    best = attack(small_net, images, labels, steps=3, restarts=3)
    assert torch.allclose(margin(small_net, best, labels), largest, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"restarts": 0}, {"restarts": 2, "random_start": False}])
def test_refuses_restarts_that_make_no_sense(arguments, small_net, images, labels):
    with pytest.raises(ValueError, match="restarts"):
        attack(small_net, images, labels, **arguments)
