"""Attacked sets: made whole before anything is evaluated, or found where they were stored."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import check_adversarial, input_gradient, within_budget
from src.attacks.verdict import PROBED, is_random
from src.defended import DefendedClassifier
from src.evaluation.components import Components
from src.evaluation.propagations import Propagations, counted
from src.evaluation.spec import CellSpec
from src.evaluation.tensors import Tensors, TensorStore
from src.precision import Precision
from src.randomness import seeded
from src.signatures import accepts

#: Names of the tensors in the stored files.
IMAGES, PROPAGATIONS, GRADIENT = "x_adv", "propagations", "gradient"

#: (batches, what is done) -> the batches, shown on a progress bar
Track = Callable[[Sequence[slice], str], Iterable[slice]]


def untracked(batches: Sequence[slice], description: str) -> Iterable[slice]:
    """Shows nothing."""
    return batches


@dataclass(frozen=True)
class AttackedModel:
    """What the attacker of a cell has: a model, and an attack on it.

    Args:
        view: x -> logits (N, K), what the attack differentiates through.
        classifier: the frozen network within it.
        known_defense: the defense within it; the identity if the attacker knows of none.
        attack: (model, x, y, *, eps) -> x_adv.
    """

    view: nn.Module
    classifier: nn.Module
    known_defense: nn.Module
    attack: Callable[..., Tensor] | None

    @classmethod
    def of(cls, spec: CellSpec, components: Components, classifier: nn.Module, defense: nn.Module) -> "AttackedModel":
        """What the attacker of ``spec`` has, when ``classifier`` stands behind ``defense``."""
        view_spec = spec.view
        known_defense = components.build(None) if view_spec["defense"] is None else defense
        view = components.build(view_spec["threat"])(classifier, known_defense)
        attack = components.build(spec.attack.component) if spec.attack.component else None
        return cls(view, classifier, known_defense, attack)

    @property
    def takes_gradient(self) -> bool:
        """Whether the attack starts with the gradient at the clean images and can be given it."""
        return accepts(self.attack, "gradient")

    @torch.no_grad()
    def shows_what_is_judged(self, x: Tensor) -> bool:
        """Whether the view's logits at the first of ``x`` (N, C, H, W) are those of the defended classifier each time,
        but for rounding, so that fooled images may be left alone: the next answer of a random model may be another, and
        so may that of a threat which differentiates through a stand-in for the defense."""
        if is_random(self.view, x) or is_random(self.known_defense, x):
            return False
        few = x[:PROBED]
        judged, seen = DefendedClassifier(self.classifier, self.known_defense)(few.clone()), self.view(few.clone())
        return torch.allclose(seen, judged, rtol=1e-4, atol=1e-4, equal_nan=True)


@dataclass(frozen=True)
class AttackedSet:
    """What an attack made of a test set."""

    images: Tensor  #: (N, C, H, W), within eps of the clean ones and [0, 1]; not to be written into
    #: cost of the attack, with that of a gradient that it begins with; None where a set of an older version has none
    propagations: Propagations | None
    seconds: float = 0.0  #: spent on making them; 0 if they were found


def batches_of(n: int, batch_size: int) -> list[slice]:
    """Slices of at most ``batch_size`` that together are the first ``n``."""
    return [slice(begin, min(begin + batch_size, n)) for begin in range(0, n, batch_size)]


def attack_images(
    spec: CellSpec,
    model: AttackedModel,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    gradient: Tensor | None = None,
    track: Track = untracked,
) -> tuple[Tensor, Propagations]:
    """Attack images batch by batch, on copies of them. The attack draws from a random stream of its own.

    Args:
        spec: an attack of its own, with a budget above 0.
        model: what its attacker has, on the device of ``x``.
        x: clean images (N, C, H, W) in [0, 1].
        y: labels (N,).
        gradient: the gradient at ``x``, for an attack that takes it; else None.

    Returns:
        The attacked images (N, C, H, W), verified to be within the budget and [0, 1], and the cost of the attack, with
        that of the ``gradient``.

    Raises:
        ValueError: the attack returned something else.
    """
    assert model.attack is not None, "a worst case is taken from its members"
    options: dict[str, Any] = {}
    if spec.early_stop:
        options["early_stop"] = model.shows_what_is_judged(x[:batch_size])
    attacked = []
    with seeded(spec.seed), torch.no_grad(), counted(model.classifier) as cost:
        for batch in track(batches_of(len(x), batch_size), str(spec.coordinates)):
            if gradient is not None:
                options["gradient"] = gradient[batch].clone()
            bound = partial(model.attack, eps=spec.eps, **options)
            attacked.append(within_budget(bound, model.view, x[batch], y[batch], spec.eps).clone())
    if gradient is not None:
        cost.forward += len(x)
        cost.backward += len(x)
    return torch.cat(attacked), cost


def gradient_at(model: nn.Module, x: Tensor, y: Tensor, batch_size: int, precision: Precision) -> Tensor:
    """:func:`src.attacks.input_gradient` at all of ``x``, in batches of the size that attacks see, so that sharing it
    does not change a bit of the outcome. That of a random model does not depend on who asks first."""
    with seeded(0):
        parts = [
            input_gradient(model, x[batch].clone(), y[batch], precision) for batch in batches_of(len(x), batch_size)
        ]
    return torch.cat(parts)


class AttackedSets:
    """Attacked test sets, and the gradients at the clean images that many attacks begin with.

    A set serves every defense of which the attacker knows nothing; a gradient serves every attack and budget. Both are
    found by the content of what they were made from, so cells may come in any order and in several processes. A damaged
    file is named in a warning and made again.

    Args:
        sets: folder of the sets, usually ``outputs/adversarial``; None keeps nothing on disk.
        gradients: folder of the gradients, usually ``outputs/gradients``; None keeps nothing on disk.
        track: shows the progress of an attack.
    """

    def __init__(self, sets: Path | None, gradients: Path | None = None, track: Track = untracked) -> None:
        self._sets, self._gradients, self.track = TensorStore(sets), TensorStore(gradients), track

    def get_or_make(self, spec: CellSpec, model: AttackedModel, x: Tensor, y: Tensor, batch_size: int) -> AttackedSet:
        """The attacked set of ``spec``, found or made.

        Args:
            spec: an attack of its own, with a budget above 0.
            model: what its attacker has, on the device of ``x``.
            x, y: all clean images (N, C, H, W) and labels (N,).

        Raises:
            UserError: a folder cannot be written.
        """
        seconds = 0.0

        def make() -> Tensors:
            nonlocal seconds
            begin = time.perf_counter()
            gradient = self._gradient(spec, model, x, y, batch_size) if model.takes_gradient else None
            images, cost = attack_images(spec, model, x, y, batch_size, gradient, self.track)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            seconds = time.perf_counter() - begin
            return {IMAGES: images, PROPAGATIONS: cost.tensor}

        def verify(stored: Tensors) -> Tensors:
            return {**stored, IMAGES: check_adversarial(stored[IMAGES].to(x.device), x, spec.eps)}

        tensors = self._sets.get_or_make(spec.attacked_key, verify, make)
        cost = tensors.get(PROPAGATIONS)
        return AttackedSet(tensors[IMAGES], None if cost is None else Propagations.of(cost), seconds)

    def _gradient(self, spec: CellSpec, model: AttackedModel, x: Tensor, y: Tensor, batch_size: int) -> Tensor | None:
        """The gradient at all clean images; None for an attacker who knows the defense, and sees its randomness."""
        if spec.view["defense"] is not None:
            return None

        def make() -> Tensors:
            return {GRADIENT: gradient_at(model.view, x, y, batch_size, spec.attack.precision)}

        def verify(stored: Tensors) -> Tensors:
            gradient = stored[GRADIENT]
            if gradient.shape != x.shape:
                raise ValueError(f"its shape is {tuple(gradient.shape)}")
            return {GRADIENT: gradient.to(x.device)}

        return self._gradients.get_or_make(spec.gradient_key, verify, make)[GRADIENT]
