"""The same four attacks in four libraries, each as (x, y) -> x_adv in batches of a given size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

EPS = 0.3
Batched = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """An attack: its name and how far it goes in how many steps."""

    name: str
    steps: int
    rel_step: float  #: step size / eps
    images: int  #: how many it is timed on


FGSM = Recipe("FGSM", 1, 1.0, 1000)
IFGSM = Recipe("I-FGSM, 10 steps", 10, 0.1, 500)
MIFGSM = Recipe("MI-FGSM, 10 steps", 10, 0.1, 500)
PGD = Recipe("PGD, 40 steps", 40, 2.5 / 40, 250)
RECIPES = (FGSM, IFGSM, MIFGSM, PGD)


def ours(network: nn.Module, recipe: Recipe, batch_size: int, eps: float = EPS) -> Batched:
    from src import attacks

    iterative = {"eps": eps, "steps": recipe.steps, "rel_step": recipe.rel_step}
    calls: Mapping[Recipe, Callable[[Tensor, Tensor], Tensor]] = {
        FGSM: lambda x, y: attacks.fgsm(network, x, y, eps=eps),
        IFGSM: lambda x, y: attacks.ifgsm(network, x, y, **iterative),
        MIFGSM: lambda x, y: attacks.mifgsm(network, x, y, **iterative),
        PGD: lambda x, y: attacks.pgd(network, x, y, random_start=False, **iterative),
    }
    return in_batches(calls[recipe], batch_size)


def torchattacks(network: nn.Module, recipe: Recipe, batch_size: int, eps: float = EPS) -> Batched:
    import torchattacks

    iterative = {"eps": eps, "alpha": recipe.rel_step * eps, "steps": recipe.steps}
    makers: Mapping[Recipe, Callable[[], Any]] = {
        FGSM: lambda: torchattacks.FGSM(network, eps=eps),
        IFGSM: lambda: torchattacks.BIM(network, **iterative),
        MIFGSM: lambda: torchattacks.MIFGSM(network, **iterative),
        PGD: lambda: torchattacks.PGD(network, random_start=False, **iterative),
    }
    return in_batches(makers[recipe](), batch_size)


def foolbox(network: nn.Module, recipe: Recipe, batch_size: int, eps: float = EPS) -> Batched:
    import foolbox

    iterative = {"abs_stepsize": recipe.rel_step * eps, "steps": recipe.steps, "random_start": False}
    makers: Mapping[Recipe, Callable[[], Any]] = {
        FGSM: lambda: foolbox.attacks.LinfFastGradientAttack(random_start=False),
        IFGSM: lambda: foolbox.attacks.LinfBasicIterativeAttack(**iterative),
        MIFGSM: lambda: foolbox.attacks.LinfMomentumIterativeFastGradientMethod(**iterative),
        PGD: lambda: foolbox.attacks.LinfPGD(**iterative),
    }
    attack, model = makers[recipe](), foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    criterion = foolbox.criteria.Misclassification
    return in_batches(lambda x, y: attack.run(model, x, criterion(y), epsilon=eps), batch_size)


def art(network: nn.Module, recipe: Recipe, batch_size: int, eps: float = EPS) -> Batched:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    common = {"eps": eps, "batch_size": batch_size}
    iterative = {"eps_step": recipe.rel_step * eps, "max_iter": recipe.steps, "verbose": False}
    makers: Mapping[Recipe, Callable[[], Any]] = {
        FGSM: lambda: evasion.FastGradientMethod(classifier, **common),
        IFGSM: lambda: evasion.BasicIterativeMethod(classifier, **common, **iterative),
        MIFGSM: lambda: evasion.MomentumIterativeMethod(classifier, **common, **iterative),
        PGD: lambda: evasion.ProjectedGradientDescent(classifier, **common, **iterative),
    }
    attack = makers[recipe]()
    return lambda x, y: torch.from_numpy(np.asarray(attack.generate(x.numpy(), y.numpy())))


def in_batches(attack: Callable[[Tensor, Tensor], Tensor], size: int) -> Batched:
    """``attack`` on ``size`` images at a time."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([attack(*pair).detach() for pair in pairs])

    return run
