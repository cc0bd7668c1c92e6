"""A suite of attacks, each on what those before it left."""

from functools import partial

import pytest
import torch

from src.attacks import fgsm, ifgsm, mifgsm, pgd, survivors
from src.attacks.verdict import fooled
from tests.attacks.conftest import accuracy

STEADY = {"fgsm": fgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd": partial(pgd, random_start=False, steps=10)}


@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1])
def test_leaves_what_the_worst_case_leaves(eps, knows_digits, real_digits):
    x, y = real_digits
    left = torch.stack([~fooled(knows_digits, attack(knows_digits, x, y, eps=eps), y) for attack in STEADY.values()])
    x_adv = survivors(knows_digits, x, y, eps=eps, attacks=STEADY, early_stop=True)
    assert torch.equal(~fooled(knows_digits, x_adv, y), left.all(0))
    assert (x_adv - x).abs().max() <= eps + 1e-6


def test_an_attack_is_tried_on_what_those_before_it_left_alone(asked, knows_digits, real_digits):
    x, y = real_digits
    wrong, tried = y.clone(), []
    wrong[:3] += 1  # wrong without any attack
    wrong %= 10

    def watched(name):
        def attack(model, x, y, *, eps):
            tried.append((name, len(x)))
            return STEADY[name](model, x, y, eps=eps)

        return attack

    attacks = {name: watched(name) for name in STEADY}
    counted = asked(knows_digits)
    x_adv = survivors(counted, x, wrong, eps=0.1, attacks=attacks, early_stop=True)
    assert torch.equal(x_adv[:3], x[:3])
    names, numbers = zip(*tried, strict=True)
    assert names == tuple(STEADY) and numbers[0] == len(x) - 3
    assert list(numbers) == sorted(numbers, reverse=True) and numbers[-1] < numbers[0]
    assert counted.asked < len(x) * (1 + 10 + 10 + 10) / 2  # of what it would be on all images


def test_ends_when_nothing_stands(knows_digits, real_digits):
    x, y = real_digits

    def never(*_, **__):
        pytest.fail("nothing is left to attack")

    x_adv = survivors(knows_digits, x, y, eps=0.5, attacks={"pgd": STEADY["pgd"], "never": never}, early_stop=True)
    assert accuracy(knows_digits, x_adv, y) == 0


def test_an_attack_that_can_stop_early_is_told_to(knows_digits, real_digits):
    def attack(model, x, y, *, eps, early_stop=False):
        assert early_stop
        return x

    survivors(knows_digits, *real_digits, eps=0.1, attacks={"attack": attack}, early_stop=True)


def test_is_refused_where_what_stands_is_not_known(knows_digits, real_digits):
    with pytest.raises(ValueError, match="which images still stand is not known"):
        survivors(knows_digits, *real_digits, eps=0.1, attacks=STEADY)


def test_an_attack_that_overspends_is_refused(knows_digits, real_digits):
    with pytest.raises(ValueError, match="the attack spent"):
        survivors(knows_digits, *real_digits, eps=0.1, attacks={"far": partial(_brighter, by=0.2)}, early_stop=True)


def _brighter(model, x, y, *, eps, by):
    return (x + by).clamp(max=1)
