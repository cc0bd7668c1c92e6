"""One image through attack, defense and classifier: for looking at, not for counting."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.evaluation.attacking import AttackedModel, attack_images
from src.evaluation.components import Components
from src.evaluation.evaluator import STRIDE, full_precision
from src.evaluation.module import PurificationEvaluation, predicted
from src.evaluation.spec import CellSpec
from src.randomness import random_streams_kept, reseed


class OutOfTimeError(UserError):
    """An attack took longer than its user wanted to wait."""


@dataclass(frozen=True)
class Demonstration:
    """What an attack and a defense did to one image.

    Images are (C, H, W) in pixel units; confidences are (K,), the softmax of the classifier's logits.
    """

    label: int  #: the class that the attack tried to hide
    attack: str  #: the attack that was used: of a worst case its member, else its own name
    eps: float  #: L∞ budget in pixel units; 0: nothing was attacked
    original: Tensor
    attacked: Tensor
    purified: Tensor  #: what the defense made of the attacked image
    before: Tensor  #: confidences in the original, without the defense
    undefended: Tensor  #: confidences in the attacked image, without the defense
    defended: Tensor  #: confidences in the purified image

    @property
    def perturbation(self) -> Tensor:
        """What the attack added, (C, H, W) in [−eps, eps]."""
        return self.attacked - self.original


def demonstrate(
    spec: CellSpec,
    image: Tensor,
    label: int | None = None,
    *,
    components: Components,
    device: torch.device | str = "cpu",
    patience: float = math.inf,
) -> Demonstration:
    """Do to one image what ``spec`` does to a test set: the same attack, under the same threat, and the same defense.

    The random streams of attack and defense begin with the seed of ``spec``, so the same image always ends the same
    way. Of a worst case the members are tried in turn until one fools the defended classifier; if none does, the last
    one is shown.

    Args:
        spec: what is done; none of its stored results are used, and nothing is stored.
        image: (C, H, W), float, in [0, 1]; need not be one of the test set.
        label: its class; None: what the undefended classifier takes the unattacked image for.
        components: loads and builds what ``spec`` names.
        device: where to compute.
        patience: seconds after which an attack is given up, the next time it asks the classifier anything.

    Raises:
        OutOfTimeError: the attack was given up.
        UserError: a checkpoint or a package is missing, or what the classifier makes of the image is not a number.
        ValueError: the attack overspent its budget, or a component returned another shape.
    """
    classifier = components.classifier(spec.classifier).to(device)
    defense = components.build(spec.defense.component).to(device)
    x, seed = image.detach().clone().unsqueeze(0).to(device), spec.seed
    with random_streams_kept(), full_precision(), torch.no_grad():
        before = classifier(x.clone())
        if before.isnan().any():
            raise UserError("what the classifier makes of this image is not a number")
        y = before.argmax(1) if label is None else torch.tensor([label], device=device)
        with _time_limit(classifier, patience, spec.attack.name):
            module = PurificationEvaluation(classifier, defense, before.shape[1])
            for member in list(spec.members.values()) or [spec]:
                x_adv = _attacked(member, components, classifier, defense, x, y)
                reseed(seed + STRIDE)  # as a cell does: the attacker must not know this draw
                x_hat, logits = module.purify_and_classify(x_adv)
                if predicted(logits) != y:
                    break
        undefended = classifier(x_adv.clone())
    return Demonstration(
        label=int(y),
        attack=member.attack.name,
        eps=spec.eps,
        original=x[0].cpu(),
        attacked=x_adv[0].cpu(),
        purified=x_hat[0].cpu(),
        before=_confidences(before),
        undefended=_confidences(undefended),
        defended=_confidences(logits),
    )


def _confidences(logits: Tensor) -> Tensor:
    """Softmax (K,) of one image's logits (1, K); all 0 where one of them is NaN: no class."""
    return logits[0].float().softmax(0).nan_to_num(0).cpu()


def _attacked(
    spec: CellSpec, components: Components, classifier: nn.Module, defense: nn.Module, x: Tensor, y: Tensor
) -> Tensor:
    """One image (1, C, H, W) as the attack of ``spec`` leaves it."""
    if not spec.eps:
        return x
    model = AttackedModel.of(spec, components, classifier, defense)
    return attack_images(spec, model, x, y, batch_size=1)[0]


@contextmanager
def _time_limit(classifier: nn.Module, seconds: float, attack: str) -> Iterator[None]:
    """Let whatever asks ``classifier`` fail once the time is over: every attack does, again and again."""
    end = time.monotonic() + seconds

    def check(*_: object) -> None:
        if time.monotonic() >= end:
            raise OutOfTimeError(f"{attack} was given up after {seconds:g} s (patience={seconds:g})")

    handle = classifier.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
