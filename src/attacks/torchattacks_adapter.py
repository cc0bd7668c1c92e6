"""Attacks of the library torchattacks (Kim, arXiv:2010.01950), called as ours are.

It has AutoAttack and its parts (Croce & Hein, arXiv:2003.01690; Andriushchenko et al., arXiv:1912.00049) and some
thirty others. The adapter keeps from the rest of the program what the library does besides attacking: it reseeds
global random streams, sets the mode of the model, fills gradients of its parameters, overwrites its logits.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks.budget import ROUNDING, check_adversarial, check_budget, check_labels, project
from src.attacks.gradient import usable
from src.attacks.margin import Best, logits_of, margin
from src.attacks.verdict import is_random
from src.errors import UserError
from src.randomness import seeded

INSTALL = "pip install --editable '.[attacks]' --constraint constraints.txt"

#: Step sizes of torchattacks, each with the number of steps that goes with it.
STEP_SIZES = {"alpha": "steps", "lr": "nb_iter"}

Parameters = Mapping[str, inspect.Parameter]  #: what a class is made with


def from_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attack: str,
    steps: int | None = None,
    early_stop: bool = False,
    **options: Any,
) -> Tensor:
    """The attack ``torchattacks.<attack>(model, eps=eps, **options)`` on ``x``.

    ``seed`` and ``n_classes``, where the attack has them, need not be given. The seed is drawn from torch's stream, so
    that runs can be repeated and replicates differ. The number of classes is the width of the model's output.

    A step size ``alpha`` that is not given is 2.5 · ``eps`` / steps, as in :func:`src.attacks.pgd`; of FFGSM, which
    takes one step from a random point, it is 1.25 · ``eps``, as of its authors (Wong et al., arXiv:2001.03994). The
    library's own is a constant: with its default steps it reaches 20/255, and FFGSM 10/255, whatever ``eps`` is.

    A model that answers the same every time is asked once where the library would average gradients (``eot_iter``): the
    20 of AutoAttack's version "rand" are then one gradient.

    Args:
        model, x, y, eps: as in :mod:`src.attacks.gradient`. The mode of the model and its parameters' ``requires_grad``
            and ``grad`` are left as they are.
        attack: name of a class of torchattacks that is bounded in L∞, such as "APGD", "Square" or "AutoAttack".
        steps: its steps; of an ensemble those of each part. torchattacks' AutoAttack has no such argument and takes 10,
            where its authors take 100 (arXiv:2003.01690, section 5): a much weaker attack under the same name. None:
            the library's own.
        early_stop: work as the library does: images that are wrong from the start, and those that the attack fails on,
            come back as they were, and most attacks leave an image as it is once it fools ``model``. False: APGD and
            Square, alone or within AutoAttack, go on to the end on every image, and of the results of AutoAttack's
            parts the one with the largest margin is taken. True is right where ``model`` itself is judged, and gives
            the same answer each time.
        options: its other arguments, under the names they have there.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Raises:
        UserError: torchattacks is not installed, it has no such attack, the attack has no ``eps`` or no such option, is
            bounded in another norm than L∞, all its steps together are shorter than ``eps``, its loss needs more
            classes than the model has, or it is made for colour images and these are grey.
        ValueError: arguments out of range, or the attack overspent its budget.
    """
    check_budget(x, y, eps, 1 if steps is None else steps)
    if eps == 0 or len(x) == 0:
        return x
    make = _find(attack)
    parameters = inspect.signature(make).parameters
    if steps is not None and "steps" in parameters:
        options["steps"] = steps
    _check_options(attack, parameters, options)
    _check_norm(attack, make, parameters, options)
    options = _with_reach(attack, parameters, options, float(eps))
    # The library reseeds torch's global stream with a number that is the same for every batch, and draws from NumPy's.
    # Outside, torch's stream moves on by one draw, the seed, and the others not at all.
    seed = int(torch.randint(2**31 - 1, ()))
    with seeded(seed), _frozen(model), torch.enable_grad():
        door = _Door(model, x.device)
        classes = door(x[:1]).shape[1]
        check_labels(y, classes)
        defaults = {"seed": seed, "n_classes": classes}
        arguments = {name: value for name, value in defaults.items() if name in parameters}
        instance = make(door, eps=eps, **(arguments | options))
        _check_classes(attack, instance, classes)
        _check_channels(attack, instance, x.shape[1])
        if steps is not None:
            _set_steps(attack, instance, steps)
        if not is_random(model, x):
            _ask_once(instance)
        best = Best(x)
        for attempt in _attempts(instance, x, y, early_stop):
            x_adv = _without_rounding(attempt.detach().to(x), x, eps)
            best.offer(x_adv, margin(model, x_adv, y))
    return best.images


def _find(attack: str) -> Callable[..., Any]:
    """The class of this name."""
    try:
        import torchattacks
    except ImportError as error:
        raise UserError(f"attack {attack} is torchattacks', which is not installed: {INSTALL}") from error
    names = {name.lower(): name for name in torchattacks.__all__}
    if attack not in names.values():
        matches = difflib.get_close_matches(attack.lower(), names, n=3) or sorted(names)
        raise UserError(f"torchattacks has no attack {attack}; it has {', '.join(names[match] for match in matches)}")
    return getattr(torchattacks, attack)


def _check_options(attack: str, parameters: Parameters, options: dict[str, Any]) -> None:
    if "eps" not in parameters:
        raise UserError(f"torchattacks.{attack} has no eps: it cannot be held to an L∞ budget")
    possible = [name for name in parameters if name not in ("model", "eps")]
    unknown = [name for name in options if name not in possible]
    if unknown:
        raise UserError(f"torchattacks.{attack} has no option {', '.join(unknown)}; it has {', '.join(possible)}")


def _check_norm(attack: str, make: Callable[..., Any], parameters: Parameters, options: dict[str, Any]) -> None:
    """Refuse what keeps to another norm. The check of the budget would not: the L2 ball lies within the L∞ ball, so
    such an attack spends too little and the defense looks strong. A class's docstring names its norms."""
    named = re.search(r"Distance Measure *: *(.+)", make.__doc__ or "")
    if named is None or "Linf" not in named[1]:
        norms = f"bounded in {named[1].strip()}" if named else "not said to be bounded in Linf"
        raise UserError(f"torchattacks.{attack} is {norms}; only attacks bounded in L∞ can be measured here")
    if "norm" in parameters and (norm := options.get("norm", parameters["norm"].default)) != "Linf":
        raise UserError(f"torchattacks.{attack} must have norm=Linf, as eps is a budget in L∞; got norm={norm}")


def _with_reach(attack: str, parameters: Parameters, options: dict[str, Any], eps: float) -> dict[str, Any]:
    """``options`` with a step size, where the attack takes one, whose steps together reach ``eps``."""
    options = dict(options)
    for size, number in STEP_SIZES.items():
        if size not in parameters:
            continue
        # torchattacks' FFGSM has no number of steps, because it takes one
        steps = options.get(number, parameters[number].default) if number in parameters else 1
        if size == "alpha" and options.get(size) is None:
            options[size] = (2.5 if number in parameters else 1.25) * eps / steps
        length = options.get(size, parameters[size].default)
        if not steps * length >= eps - ROUNDING:  # true for NaN as well
            raise UserError(
                f"torchattacks.{attack} cannot reach eps={eps:g}: {steps} · {size} is {steps} · {length:g} = "
                f"{steps * length:g}; {size} must be {eps / max(steps, 1):g} or more"
                + (f", or {number} larger" if number in parameters else "")
            )
    return options


def _check_classes(attack: str, instance: Any, classes: int) -> None:
    """Refuse what would end in an IndexError: the DLR loss divides by the distance of the highest to the third logit,
    the targeted one by that to the third and fourth (arXiv:2003.01690, equations 6 and 7)."""
    for part in _parts(instance):
        needed = 4 if hasattr(part, "dlr_loss_targeted") else 3 if getattr(part, "loss", None) == "dlr" else 2
        if classes < needed:
            raise UserError(f"torchattacks.{attack} needs {needed} classes for its loss; the model has {classes}")


def _check_channels(attack: str, instance: Any, channels: int) -> None:
    """Refuse images that TIFGSM cannot smooth the gradient of: its kernel is made for colour images."""
    kernel = getattr(instance, "stacked_kernel", None)
    if isinstance(kernel, Tensor) and len(kernel) != channels:
        raise UserError(f"torchattacks.{attack} is made for images of {len(kernel)} channels; these have {channels}")


def _set_steps(attack: str, instance: Any, steps: int) -> None:
    """Set the number of steps of ``instance``, or of each of its parts that takes steps."""
    parts = [part for part in _parts(instance) if hasattr(part, "steps")]
    if not parts:
        raise UserError(f"torchattacks.{attack} takes no steps")
    for part in parts:
        part.steps = steps


def _ask_once(instance: Any) -> None:
    """Let no part of ``instance`` average gradients."""
    for part in _parts(instance):
        if hasattr(part, "eot_iter"):
            part.eot_iter = 1


def _parts(instance: Any) -> list[Any]:
    """The attacks that ``instance`` runs one after the other: itself, unless it is an ensemble."""
    return getattr(getattr(instance, "_autoattack", instance), "attacks", [instance])


class _Door(nn.Module):
    """All that the library gets to see of a model."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model
        # The library works on the device of the first parameter, and complains on stdout if there is none
        self.device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.training = False

    def train(self, mode: bool = True) -> "_Door":
        """Leave the model in the mode it is in: the library would put it into ``eval()``."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        if x.requires_grad:
            x.register_hook(usable)  # one NaN would poison the steps of APGD and the distances of FAB
        return logits_of(self.model, x).clone()  # Square writes into them, and they may be a view of the images


def _attempts(instance: Any, x: Tensor, y: Tensor, early_stop: bool) -> Iterator[Tensor]:
    """Attacked versions of the batch, of which each image's best counts; one if ``instance`` may stop early."""
    for part in [instance] if early_stop else _parts(instance):
        # Copies, as attacks may write into what they are given; contiguous, as FAB takes views of them
        images, labels = x.clone(memory_format=torch.contiguous_format), y.clone()
        yield from [part(images, labels)] if early_stop else _to_the_end(part, images, labels)


def _to_the_end(part: Any, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """The batch attacked by ``part``, which goes on with images that already fool the model. Attacks that are not known
    here run as they are."""
    import torchattacks

    if isinstance(part, torchattacks.APGD):
        yield part.perturb(x, y, best_loss=True)[1]
    elif isinstance(part, torchattacks.Square):
        part.init_hyperparam(x)
        judge = part.margin_and_loss
        # A query is kept for its loss; the margin says only when to stop, at 0
        part.margin_and_loss = lambda x, y: (torch.ones(len(x), device=x.device), judge(x, y)[1])
        for _ in range(part.n_restarts):
            yield part.attack_single_run(x, y)[1]
    else:
        yield part(x, y)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the parameters of ``model``: FAB and others call ``backward()``, which would add to them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _without_rounding(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """``x_adv``, projected if float rounding alone takes it out of the budget; an error if it is further out."""
    projection = project(x_adv, x, eps)
    only_rounding = bool((projection - x_adv).abs().amax() <= ROUNDING)  # false for NaN
    return check_adversarial(projection if only_rounding else x_adv, x, eps)
