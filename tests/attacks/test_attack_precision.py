"""Gradients in bfloat16: what is computed in it, and that images are judged in float32 all the same."""

import functools

import pytest
import torch
from torch import nn

from src.attacks import fgsm, ifgsm, input_gradient, mifgsm, pgd, threshold_crossing
from tests.attacks.conftest import accuracy

STEADY_PGD = functools.partial(pgd, random_start=False, steps=10)
ATTACKS = {"fgsm": fgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd": STEADY_PGD}


class Watched(nn.Module):
    """``model``. Keeps what it computed in, with a gradient and without."""

    def __init__(self, model):
        super().__init__()
        self.model, self.with_gradient, self.without = model.eval(), set(), set()

    def forward(self, x):
        logits = self.model(x)
        (self.with_gradient if torch.is_grad_enabled() else self.without).add(logits.dtype)
        return logits


class WrongInBfloat16(nn.Module):
    """Right on every image in float32 as long as its left half is not brightened by 0.25, and wrong in bfloat16."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(28 * 28, 1, bias=False)
        weight = torch.zeros(28, 28)
        weight[:, :14] = 1 / (28 * 14)
        self.left.weight.data = weight.view(1, -1)

    def forward(self, x):
        brightness = self.left(x.flatten(1))
        if brightness.dtype == torch.bfloat16:
            return torch.cat([brightness, 2 + 2 * brightness], 1)
        return torch.cat([torch.full_like(brightness, 0.25), brightness], 1)


@pytest.mark.parametrize("attack", [*ATTACKS.values(), threshold_crossing], ids=[*ATTACKS, "threshold"])
def test_the_gradient_is_computed_in_it_and_all_else_in_float32(attack, small_net, images, labels):
    plain, fast = Watched(small_net), Watched(small_net)
    attack(plain, images, labels, eps=0.1)
    x_adv = attack(fast, images, labels, eps=0.1, precision="bfloat16")
    assert plain.with_gradient == {torch.float32} and fast.with_gradient == {torch.bfloat16}
    assert plain.without == fast.without <= {torch.float32}
    assert x_adv.dtype == torch.float32
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_loses_nothing_by_it(name, eps, knows_digits, real_digits):
    x, y = real_digits
    left = {
        precision: accuracy(knows_digits, ATTACKS[name](knows_digits, x, y, eps=eps, precision=precision), y)
        for precision in ("float32", "bfloat16")
    }
    assert left["bfloat16"] <= left["float32"] + 0.01


def test_the_gradient_is_another_one_and_points_the_same_way(knows_digits, real_digits):
    x, y = (part[:64] for part in real_digits)
    exact, fast = (input_gradient(knows_digits, x, y, precision) for precision in ("float32", "bfloat16"))
    assert not torch.equal(exact, fast)
    assert torch.cosine_similarity(exact.flatten(1), fast.flatten(1)).min() > 0.98


@pytest.mark.parametrize(
    "attack", [functools.partial(STEADY_PGD, steps=5), functools.partial(threshold_crossing, thresholds=(), steps=500)]
)
def test_an_image_that_fools_the_model_in_bfloat16_alone_is_not_done(attack):
    model, x = WrongInBfloat16().eval(), torch.zeros(3, 1, 28, 28)
    y = torch.zeros(3, dtype=torch.int64)
    x_adv = attack(model, x, y, eps=0.3, early_stop=True, precision="bfloat16")
    assert accuracy(model, x, y) == 1 and accuracy(model, x_adv, y) == 0


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_another_precision_is_refused(attack, small_net, images, labels):
    with pytest.raises(ValueError, match="precision must be float32 or bfloat16; got float16"):
        attack(small_net, images, labels, eps=0.1, precision="float16")
