"""Attacks as plain functions: ``f(model, x, y, *, eps, ...) -> x_adv``, all bounded in L-infinity.

They know nothing of defenses: attacking a defended classifier is handing one in as ``model``.
"""

from src.attacks.budget import check_adversarial, within_budget
from src.attacks.gradient import fgsm, ifgsm, input_gradient, mifgsm, pgd
from src.attacks.noise import uniform
from src.attacks.suite import survivors
from src.attacks.threshold import threshold_crossing
from src.attacks.torchattacks_adapter import from_torchattacks

__all__ = [
    "check_adversarial",
    "fgsm",
    "from_torchattacks",
    "ifgsm",
    "input_gradient",
    "mifgsm",
    "pgd",
    "survivors",
    "threshold_crossing",
    "uniform",
    "within_budget",
]
