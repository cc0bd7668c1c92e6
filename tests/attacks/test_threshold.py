import itertools
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from src.attacks import pgd, threshold_crossing
from src.attacks.margin import margin
from src.defenses import Binarize
from tests.attacks.conftest import accuracy


class Levels(nn.Module):
    """A quantizer with several thresholds: how many of them a pixel exceeds. Straight-through."""

    def __init__(self, *thresholds: float) -> None:
        super().__init__()
        self.thresholds = thresholds

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([Binarize(each)(x) for each in self.thresholds]).sum(0)


def network(hidden: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = [nn.Linear(6, hidden), nn.Tanh()] if hidden else []
        return nn.Sequential(nn.Flatten(), *features, nn.Linear(hidden or 6, 2)).eval()


def tiny(seed: int, n: int = 5) -> tuple[Tensor, Tensor]:
    """Images of 2 × 3 pixels, some of them exactly on a threshold or at its edge."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 2, 3, generator=generator)
    x[0, 0, 0] = torch.tensor([0.5, 0.2, 0.8])
    return x, torch.randint(0, 2, (n,), generator=generator)


def exhaustive(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The largest margin among all images whose pixels are x − eps, x or x + eps."""
    best = torch.full((len(x),), float("-inf"))
    for signs in itertools.product([-1.0, 0.0, 1.0], repeat=6):
        corner = (x + eps * torch.tensor(signs).view(1, 1, 2, 3)).clamp(0, 1)
        best = torch.maximum(best, margin(model, corner, y))
    return best


@pytest.mark.parametrize("thresholds", [(0.5,), (0.25, 0.5, 0.75), ()])
@given(seed=st.integers(0, 1000), eps=st.sampled_from([0.1, 0.3, 0.5]))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_finds_the_best_of_all_patterns_for_a_linear_model(thresholds, seed, eps):
    quantizer = Levels(*thresholds) if thresholds else nn.Identity()
    model, (x, y) = nn.Sequential(quantizer, network(0, seed)), tiny(seed)
    x_adv = threshold_crossing(model, x, y, eps=eps, thresholds=thresholds, steps=30, candidates=2)
    assert torch.allclose(margin(model, x_adv, y), exhaustive(model, x, y, eps), atol=1e-5)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_ends_where_no_single_move_helps(seed):
    model, (x, y) = nn.Sequential(Binarize(), network(8, seed)), tiny(seed)
    x_adv = threshold_crossing(model, x, y, eps=0.3, steps=100, candidates=1)
    reached = margin(model, x_adv, y)
    assert (reached >= margin(model, x, y)).all() and (reached <= exhaustive(model, x, y, 0.3) + 1e-5).all()
    for pixel in range(6):
        for sign in (-1, 0, 1):
            moved = x_adv.flatten(1).clone()
            moved[:, pixel] = (x.flatten(1)[:, pixel] + sign * 0.3).clamp(0, 1)
            assert (margin(model, moved.view_as(x), y) <= reached + 1e-5).all()


def test_moves_just_the_pixels_that_can_cross(images, labels, small_net):
    model = nn.Sequential(Binarize(), small_net)
    moved = threshold_crossing(model, images, labels, eps=0.1, steps=5) != images
    up = (images <= 0.5) & ((images + 0.1).clamp(max=1) > 0.5)
    down = (images > 0.5) & ((images - 0.1).clamp(min=0) <= 0.5)
    assert moved.any() and not moved[~(up | down)].any()
    assert moved.flatten(1).sum(1).max() <= 5
    nothing = (images > 0.5).to(images.dtype)  # nothing is near enough
    assert torch.equal(threshold_crossing(model, nothing, labels, eps=0.4), nothing)


def test_a_pixel_on_the_threshold_is_below_it():
    model = nn.Sequential(Binarize(0.5), nn.Flatten(), nn.Linear(1, 2, bias=False))
    nn.init.constant_(model[2].weight[0], -1.0)
    nn.init.constant_(model[2].weight[1], 1.0)
    for value, eps, label, crosses in [(0.5, 0.01, 0, True), (0.25, 0.25, 0, False), (0.75, 0.25, 1, True)]:
        x = torch.full((1, 1, 1, 1), value)
        x_adv = threshold_crossing(model, x, torch.tensor([label]), eps=eps)
        assert bool(model(x_adv).argmax() != label) == crosses


@pytest.mark.parametrize("thresholds", [(0.5,), (0.2, 0.4), ()])
@pytest.mark.parametrize("eps", [0.03, 0.3, 1.0])
def test_stays_in_the_ball_and_leaves_its_arguments_alone(thresholds, eps, small_net, images, labels, undisturbed):
    x, y, state = images.clone(), labels.clone(), torch.get_rng_state()
    with undisturbed():
        x_adv = threshold_crossing(small_net, x, y, eps=eps, thresholds=thresholds, steps=3)
    assert x_adv.shape == x.shape and not x_adv.requires_grad
    assert x_adv.min() >= 0 and x_adv.max() <= 1 and (x_adv - images).abs().max() <= eps + 1e-6
    assert torch.equal(x, images) and torch.equal(y, labels)
    assert torch.equal(torch.get_rng_state(), state)  # nothing random
    assert (margin(small_net, x_adv, y) > margin(small_net, x, y)).any()


def test_eps_zero_is_x_and_asks_for_nothing(asked, small_net, images, labels):
    model = asked(small_net)
    assert threshold_crossing(model, images, labels, eps=0) is images
    assert model.asked == 0
    assert len(threshold_crossing(model, images[:0], labels[:0], eps=0.3)) == 0


@pytest.mark.parametrize("early_stop", [False, True])
def test_does_not_depend_on_the_batch(early_stop, knows_digits, real_digits):
    model = nn.Sequential(Binarize(), knows_digits)
    attack = partial(threshold_crossing, model, eps=0.3, steps=10, early_stop=early_stop)
    x, y = (part[:8] for part in real_digits)
    together = attack(x, y)
    alone = [attack(x[i : i + 1], y[i : i + 1]) for i in range(8)]
    assert torch.allclose(margin(model, torch.cat(alone), y), margin(model, together, y), atol=1e-3)


def test_works_where_gradients_are_off(small_net, images, labels):
    model = nn.Sequential(Binarize(), small_net)
    expected = threshold_crossing(model, images, labels, eps=0.3, steps=3)
    with torch.no_grad():
        assert torch.equal(threshold_crossing(model, images, labels, eps=0.3, steps=3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


class Steps(nn.Module):
    """Binarize without a gradient of any kind."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)


def test_finds_its_way_without_a_gradient():
    model, (x, y) = nn.Sequential(Steps(), network(0, 1)), tiny(1)
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        x_adv = threshold_crossing(model, x, y, eps=0.4, steps=40, candidates=1)
        assert torch.allclose(margin(model, x_adv, y), exhaustive(model, x, y, 0.4), atol=1e-5)


def test_early_stop_leaves_fooled_images_alone(knows_digits, real_digits, asked):
    x, y = (part[:32] for part in real_digits)
    stopping, going_on = (asked(nn.Sequential(Binarize(), knows_digits)) for _ in range(2))
    stopped = threshold_crossing(stopping, x, y, eps=0.4, steps=10, early_stop=True)
    pressed = threshold_crossing(going_on, x, y, eps=0.4, steps=10)
    assert stopping.asked < going_on.asked
    fooled = margin(stopping, stopped, y) > 0
    assert fooled.any()
    assert (margin(stopping, pressed, y) > margin(stopping, stopped, y))[fooled].any()
    assert accuracy(stopping, pressed, y) <= accuracy(stopping, stopped, y) + 1 / 32


def test_what_is_said_to_be_stronger_is(knows_digits, real_digits):
    x, y = (part[:12] for part in real_digits)
    model = nn.Sequential(Binarize(), knows_digits)

    def reached(**arguments):
        return margin(model, threshold_crossing(model, x, y, eps=0.3, **({"targets": 1} | arguments)), y)

    clean, steps = margin(model, x, y), [reached(steps=n) for n in (1, 4, 16)]
    assert clean.mean() < steps[0].mean() < steps[1].mean() < steps[2].mean()
    targets = [reached(targets=n, steps=8) for n in (1, 2, 9, 99)]
    assert (targets[1] >= targets[0]).all() and (targets[2] >= targets[1]).all()
    assert targets[2].mean() > targets[0].mean() and torch.equal(targets[2], targets[3])
    assert reached(steps=8, candidates=16).mean() > reached(steps=8, candidates=1).mean()


@pytest.mark.slow
def test_finds_what_straight_through_pgd_misses(knows_digits, real_digits):
    """On real digits behind a threshold: never fewer errors than 40 steps along the straight-through gradient."""
    x, y = real_digits
    model = nn.Sequential(Binarize(), knows_digits)
    by_search = accuracy(model, threshold_crossing(model, x, y, eps=0.3, early_stop=True), y)
    by_gradient = accuracy(model, pgd(model, x, y, eps=0.3, steps=40, early_stop=True), y)
    assert by_search < by_gradient < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"eps": 2}, "eps"),
        ({"eps": 0.1, "steps": 0}, "steps"),
        ({"eps": 0.1, "candidates": 0}, "candidates"),
        ({"eps": 0.1, "targets": 0}, "targets"),
        ({"eps": 0.1, "thresholds": [0.5, 1.0]}, "thresholds"),
    ],
)
def test_refuses(arguments, said, small_net, images, labels):
    with pytest.raises(ValueError, match=said):
        threshold_crossing(small_net, images, labels, **arguments)
    with pytest.raises(ValueError, match=r"logits \(N, K\)"):
        threshold_crossing(nn.Identity(), images, labels, eps=0.1)
