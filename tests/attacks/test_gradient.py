import functools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from src.attacks import check_adversarial, fgsm, ifgsm, input_gradient, mifgsm, pgd

ATTACKS = [fgsm, ifgsm, mifgsm, pgd, functools.partial(ifgsm, refresh_gradient=False, steps=9, rel_step=0.1)]
ITERATIVE = [ifgsm, mifgsm, pgd]


class Counting(nn.Module):
    """Counts forward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.model(x)


def loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(model(x), y).item()


@pytest.mark.parametrize("attack", ATTACKS)
@given(eps=st.floats(0, 1))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stays_in_the_ball_and_the_image_range(attack, eps, small_net, images, labels):
    x_adv = attack(small_net, images, labels, eps=eps)
    assert x_adv.shape == images.shape
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert (x_adv - images).abs().max() <= eps + 1e-6


@pytest.mark.parametrize("attack", ATTACKS)
def test_raises_the_loss_and_uses_its_budget(attack, small_net, images, labels):
    x_adv = attack(small_net, images, labels, eps=0.1)
    assert loss(small_net, x_adv, labels) > loss(small_net, images, labels) + 0.01
    assert (x_adv - images).abs().max() > 0.08


@pytest.mark.parametrize("attack", ATTACKS)
def test_eps_zero_changes_nothing_and_asks_for_nothing(attack, small_net, images, labels):
    counting = Counting(small_net)
    assert torch.equal(attack(counting, images, labels, eps=0), images)
    assert counting.calls == 0


@pytest.mark.parametrize("attack", [fgsm, ifgsm, mifgsm, functools.partial(pgd, random_start=False)])
def test_does_not_depend_on_the_batch(attack, small_net, images, labels):
    together = attack(small_net, images, labels, eps=0.1)
    alone = [attack(small_net, x[None], y[None], eps=0.1) for x, y in zip(images, labels, strict=True)]
    # A gradient that is zero up to rounding may change its sign with the shape of a matrix product
    agreement = (together - torch.cat(alone)).abs().lt(1e-6).float().mean()
    assert agreement > 0.999


def test_pgd_with_its_own_generator_does_not_depend_on_the_batch(small_net, images, labels):
    def attacked(*parts: slice) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        attack = functools.partial(pgd, small_net, eps=0.2, steps=1, rel_step=1e-9, generator=generator)
        return torch.cat([attack(images[part], labels[part]) for part in parts])

    assert torch.equal(attacked(slice(0, 12)), attacked(slice(0, 5), slice(5, 12)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_touches_neither_parameters_nor_input(attack, small_net, images, labels):
    before = {name: value.clone() for name, value in small_net.state_dict().items()}
    x = images.clone()
    attack(small_net, x, labels, eps=0.2)
    assert torch.equal(x, images) and not x.requires_grad
    assert all(parameter.grad is None for parameter in small_net.parameters())
    assert all(torch.equal(before[name], value) for name, value in small_net.state_dict().items())


@pytest.mark.parametrize("attack", ATTACKS)
def test_works_where_gradients_are_off(attack, small_net, images, labels):
    expected = attack(small_net, images, labels, eps=0.1) if attack is not pgd else None
    with torch.no_grad():
        x_adv = attack(small_net, images, labels, eps=0.1)
    assert not x_adv.requires_grad
    assert expected is None or torch.equal(x_adv, expected)


def test_one_gradient_for_fgsm_and_for_frozen_steps(small_net, images, labels):
    for attack, gradients in (
        (fgsm, 1),
        (functools.partial(ifgsm, refresh_gradient=False), 1),
        (ifgsm, 10),
        (pgd, 40),
    ):
        counting = Counting(small_net)
        attack(counting, images, labels, eps=0.1)
        assert counting.calls == gradients


def test_fgsm_is_its_equation(small_net, images, labels):
    x = images.clone().requires_grad_(True)
    F.cross_entropy(small_net(x), labels).backward()
    assert torch.equal(fgsm(small_net, images, labels, eps=0.1), (images + 0.1 * x.grad.sign()).clamp(0, 1).detach())


def test_frozen_gradient_is_fgsm_at_the_sum_of_its_steps(small_net, images, labels):
    """What the report called I-FGSM: nine steps of eps/10 along one gradient."""
    frozen = ifgsm(small_net, images, labels, eps=0.3, steps=9, rel_step=0.1, refresh_gradient=False)
    frozen_momentum = mifgsm(small_net, images, labels, eps=0.3, steps=9, rel_step=0.1, refresh_gradient=False)
    single = fgsm(small_net, images, labels, eps=0.27)
    assert torch.allclose(frozen, single, atol=1e-6)
    assert torch.allclose(frozen_momentum, single, atol=1e-6)


def test_momentum_normalizes_each_image_by_its_own_l1_norm(small_net, images, labels):
    eps, decay = 0.2, 0.7
    momentum, x_adv = torch.zeros_like(images), images
    for _ in range(4):
        gradient = input_gradient(small_net, x_adv, labels)
        norms = torch.stack([each.abs().sum() for each in gradient]).view(-1, 1, 1, 1)
        momentum = decay * momentum + gradient / norms
        x_adv = (x_adv + eps / 4 * momentum.sign()).clamp(images - eps, images + eps).clamp(0, 1)
    ours = mifgsm(small_net, images, labels, eps=eps, steps=4, decay=decay)
    assert ours.sub(x_adv).abs().lt(1e-6).float().mean() > 0.999


def test_no_momentum_is_ifgsm(small_net, images, labels):
    without = mifgsm(small_net, images, labels, eps=0.2, decay=0.0)
    assert without.sub(ifgsm(small_net, images, labels, eps=0.2)).abs().lt(1e-6).float().mean() > 0.999


def test_vanished_gradients_stay_finite(images, labels):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(flat[1].weight)
    assert torch.equal(mifgsm(flat, images, labels, eps=0.2), images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": 1.5}, "eps"),
        ({"eps": True}, r"eps must be one number in \[0, 1\], in pixel units; got True$"),
        ({"eps": torch.tensor(True)}, "got True$"),
        ({"eps": "0.3"}, "eps must be one number .* got '0.3'$"),
        ({"eps": np.bool_(True)}, "eps must be one number"),
        ({"eps": [0.3]}, r"eps must be one number .* got \[0.3\]$"),
        ({"eps": np.array(0.3)}, "eps must be one number"),  # makes float64 of float32 images
        ({"eps": None}, "eps must be one number .* got None$"),
        ({"eps": 0.3j}, "eps must be one number"),
        ({"eps": torch.full((12, 1, 1, 1), 0.3)}, r"one number .* got the shape \(12, 1, 1, 1\)$"),
        ({"eps": np.array([0.3])}, r"one number .* got the shape \(1,\)$"),
        ({"eps": 0.1, "steps": 0}, "steps"),
        ({"eps": 0.1, "rel_step": -1.0}, "rel_step"),
    ],
)
@pytest.mark.parametrize("attack", ITERATIVE)
def test_refuses_arguments_out_of_range(attack, arguments, message, small_net, images, labels):
    with pytest.raises(ValueError, match=message):
        attack(small_net, images, labels, **arguments)


@pytest.mark.parametrize("eps", [torch.tensor(0.25), torch.tensor(0.25).double(), np.float64(0.25), np.float32(0.25)])
@pytest.mark.parametrize("attack", ATTACKS)
def test_eps_may_be_a_number_of_numpy_or_torch(attack, eps, small_net, images, labels):
    torch.manual_seed(0)
    expected = attack(small_net, images, labels, eps=0.25)
    torch.manual_seed(0)
    assert torch.equal(attack(small_net, images, labels, eps=eps), expected)


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses_images_and_labels_that_are_no_tensors(attack, small_net, images, labels):
    with pytest.raises(ValueError, match="y must be a torch tensor of int64 labels; got ndarray"):
        attack(small_net, images, labels.numpy(), eps=0.1)
    with pytest.raises(ValueError, match="y must be a torch tensor of int64 labels; got list"):
        attack(small_net, images, labels.tolist(), eps=0.1)
    with pytest.raises(ValueError, match="x must be a torch tensor of images; got ndarray"):
        attack(small_net, images.numpy(), labels, eps=0.1)


class Answering(nn.Module):
    """``model`` that hands its logits over in something."""

    def __init__(self, model, packed):
        super().__init__()
        self.model, self.packed = model, packed

    def forward(self, x):
        return self.packed(self.model(x))


@pytest.mark.parametrize(
    ("packed", "kind"),
    [(lambda z: (z, None), "tuple"), (lambda z: {"logits": z}, "dict"), (lambda z: None, "NoneType")],
)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_that_returns_more_than_logits_is_refused_in_a_line(attack, packed, kind, small_net, images, labels):
    with pytest.raises(ValueError, match=rf"must return logits \(N, K\); got a {kind}: wrap it in a module") as error:
        attack(Answering(small_net, packed), images, labels, eps=0.1)
    assert "\n" not in str(error.value)


def test_refuses_images_that_are_not_in_pixel_units(small_net, images, labels):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        fgsm(small_net, images * 255, labels, eps=0.1)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        fgsm(small_net, images, labels[:3], eps=0.1)


@pytest.mark.parametrize("spoil", [lambda x: x + 0.2, lambda x: x * float("nan"), lambda x: x[1:], lambda x: x - 5])
def test_check_adversarial_refuses(spoil, images):
    with pytest.raises(ValueError, match="attack"):
        check_adversarial(spoil(images), images, eps=0.1)


@pytest.mark.parametrize("name", ["FGSM", "BIM", "MIFGSM"])
def test_agrees_with_torchattacks(name, small_net, images, labels):
    torchattacks = pytest.importorskip("torchattacks")
    peers = {
        "FGSM": (torchattacks.FGSM(small_net, eps=0.1), fgsm),
        "BIM": (torchattacks.BIM(small_net, eps=0.1, alpha=0.01, steps=10), ifgsm),
        "MIFGSM": (torchattacks.MIFGSM(small_net, eps=0.1, alpha=0.01, steps=10, decay=1.0), mifgsm),
    }
    theirs, ours = peers[name]
    difference = (theirs(images, labels) - ours(small_net, images, labels, eps=0.1)).abs()
    assert difference.lt(1e-5).float().mean() > 0.95
