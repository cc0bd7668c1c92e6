"""Models on which gradient attacks fail in other libraries, for another reason than that the models are robust."""

import functools

import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm, from_torchattacks, ifgsm, mifgsm, pgd, threshold_crossing, uniform
from src.attacks.margin import Best, margin
from src.attacks.verdict import fooled
from tests.attacks.conftest import accuracy

FROZEN = functools.partial(ifgsm, refresh_gradient=False, steps=9, rel_step=0.1)
STEADY_PGD = functools.partial(pgd, random_start=False, steps=20)
BY_GRADIENT = {"fgsm": fgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd": STEADY_PGD, "frozen": FROZEN}


class Scaled(nn.Module):
    """``model`` with its logits multiplied by ``scale``: the same decisions."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.model(x)


class Root(nn.Module):
    """√x, whose derivative at black pixels is infinite."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.fixture(params=BY_GRADIENT)
def attack(request):
    return BY_GRADIENT[request.param]


def test_of_two_classes_the_very_steps_are_the_same_at_any_scale(attack, fit, real_digits):
    """With more classes the scale also weights them: the larger it is, the more the likeliest other class counts."""
    x, y = real_digits[0], (real_digits[1] > 4).long()
    learned = fit(lambda images: images)

    class Halves(nn.Module):
        def forward(self, x):
            z = learned(x)
            return torch.stack([z[:, :5].logsumexp(1), z[:, 5:].logsumexp(1)], 1)

    plain, scaled = (attack(model, x, y, eps=0.1) for model in (Halves(), Scaled(Halves(), 1024)))
    assert torch.equal(plain, scaled)
    assert accuracy(Halves(), x, y) > 0.99 and accuracy(Halves(), plain, y) < 0.5


@pytest.mark.parametrize("name", ["APGD", "FAB"])
def test_a_gradient_that_is_not_finite_stops_no_attack_of_the_library(name, fit, real_digits):
    x, y = (part[:64] for part in real_digits)
    model = nn.Sequential(Root(), fit(torch.sqrt))
    assert accuracy(model, from_torchattacks(model, x, y, eps=0.1, attack=name, steps=10), y) < 0.1


def test_momentum_bears_huge_gradients(small_net, images, labels):
    """Their sum over an image is infinite in float32."""
    huge = Scaled(small_net, 1e38)
    assert torch.equal(mifgsm(huge, images, labels, eps=0.1, steps=1), fgsm(huge, images, labels, eps=0.1))
    assert (mifgsm(huge, images, labels, eps=0.1) != images).float().mean() > 0.5


class Broken(nn.Module):
    """``model`` that answers NaN to bright images, in a class that is not asked about."""

    def __init__(self, model: nn.Module, limit: float) -> None:
        super().__init__()
        self.model, self.limit = model, limit

    def forward(self, x: Tensor) -> Tensor:
        z = self.model(x)
        z[:, 3] = z[:, 3].masked_fill(x.flatten(1).mean(1) > self.limit, float("nan"))
        return z


def test_no_answer_is_a_wrong_answer(small_net, images):
    broken = Broken(small_net, -1)
    y = torch.full((12,), 3)  # torch's argmax takes a NaN for the largest
    assert fooled(broken, images, y).all() and not fooled(nn.Identity(), torch.eye(3), torch.arange(3)).any()
    assert margin(broken, images, y).eq(float("inf")).all()
    best = Best(images)
    best.offer(images / 2, margin(small_net, images, y))
    best.offer(images / 4, margin(broken, images, y))
    assert torch.equal(best.images, images / 4)


def test_attacks_find_the_images_that_have_no_answer(small_net, images):
    y = small_net(images).argmax(1)
    broken = Broken(small_net, images.mean().item())
    for attack in (functools.partial(uniform, samples=30), functools.partial(threshold_crossing, thresholds=())):
        assert fooled(broken, attack(broken, images, y, eps=0.2), y).float().mean() > 0.9


def test_a_model_without_a_gradient_is_named(attack, small_net, images, labels):
    class Detached(nn.Module):
        def forward(self, x):
            return small_net(x.detach()).detach()

    with pytest.raises(ValueError, match="passes no gradient"):
        attack(Detached(), images, labels, eps=0.1)


class Normalizing(nn.Module):
    """``model`` that normalizes in place, as torchvision's ``normalize(inplace=True)`` does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.sub_(0.1).div_(0.5))


SEARCHING = {"uniform": uniform, "threshold": functools.partial(threshold_crossing, steps=5)}


@pytest.mark.parametrize("name", [*BY_GRADIENT, *SEARCHING, "restarts", "APGD", "FAB", "Square"])
def test_a_model_that_writes_into_its_input_reaches_no_image(name, small_net, images):
    y = Normalizing(small_net)(images.clone()).argmax(1)
    made = BY_GRADIENT | SEARCHING | {"restarts": functools.partial(pgd, steps=3, restarts=2)}
    few = {"n_queries": 50} if name == "Square" else {}
    attack = made.get(name, functools.partial(from_torchattacks, attack=name, **few))
    x = images.clone()
    x_adv = attack(Normalizing(small_net), x, y, eps=0.1)
    assert torch.equal(x, images)
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6
