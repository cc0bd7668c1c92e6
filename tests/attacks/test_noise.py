import pytest
import torch

from src.attacks import uniform
from src.attacks.margin import margin
from tests.attacks.conftest import accuracy


def test_is_uniform_in_the_ball(small_net, labels):
    x = torch.full((12, 1, 28, 28), 0.5)
    noise = (uniform(small_net, x, labels, eps=0.2, samples=1) - x) / 0.2
    assert noise.abs().max() <= 1 + 1e-5
    assert noise.abs().max() > 0.99 and noise.mean().abs() < 0.03
    assert noise.abs().mean() == pytest.approx(0.5, abs=0.02)  # not ± eps, and not normal


@pytest.mark.parametrize("eps", [0.05, 0.3, 1.0])
def test_stays_in_the_image_range_and_touches_nothing_else(eps, small_net, images, labels, undisturbed):
    x, y = images.clone(), labels.clone()
    with undisturbed():
        x_adv = uniform(small_net, x, y, eps=eps)
    assert x_adv.shape == x.shape and not x_adv.requires_grad
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert 0.5 * eps < (x_adv - images).abs().max() <= eps + 1e-6
    assert torch.equal(x, images) and torch.equal(y, labels)


def test_keeps_the_worst_draw_of_each_image(small_net, images, labels):
    torch.manual_seed(3)
    draws = [uniform(small_net, images, labels, eps=0.3, samples=1) for _ in range(5)]
    margins = torch.stack([margin(small_net, draw, labels) for draw in draws])
    torch.manual_seed(3)
    worst = uniform(small_net, images, labels, eps=0.3, samples=5)
    assert torch.allclose(margin(small_net, worst, labels), margins.amax(0))
    assert len(margins.argmax(0).unique()) > 1  # not one draw for all


def test_is_repeated_by_its_seed_and_differs_without(small_net, images, labels):
    def run(seed):
        torch.manual_seed(seed)
        return uniform(small_net, images, labels, eps=0.1)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_eps_zero_is_x_and_asks_for_nothing(asked, small_net, images, labels):
    model = asked(small_net)
    assert uniform(model, images, labels, eps=0) is images
    assert model.asked == 0


def test_needs_no_gradient_and_no_parameters(parameterless, images):
    y = parameterless(images).argmax(1)
    with torch.inference_mode():
        alone = uniform(parameterless, images[:1], y[:1], eps=0.3)
    assert margin(parameterless, alone, y[:1]) > margin(parameterless, images[:1], y[:1])


def test_more_samples_are_worse_for_the_classifier_but_far_from_an_attack(knows_digits, real_digits):
    x, y = real_digits
    few, many = (accuracy(knows_digits, uniform(knows_digits, x, y, eps=0.5, samples=n), y) for n in (1, 100))
    assert 0.3 < many < few < 1


@pytest.mark.parametrize("arguments", [{"eps": 2}, {"eps": 0.1, "samples": 0}])
def test_refuses(arguments, small_net, images, labels):
    with pytest.raises(ValueError, match=r"(eps|samples) must be"):
        uniform(small_net, images, labels, **arguments)
