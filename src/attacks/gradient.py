"""Attacks that follow the sign of the loss gradient.

Every attack maximizes the cross-entropy of ``model`` at the true label. It follows the gradient of the log-odds u of an
error, which has the same direction and does not vanish for confident networks: see
:func:`src.log_odds.log_odds_gradient`. The gradient is taken with respect to the input alone: parameters and their
``.grad`` stay untouched. Each image is treated by itself, so results do not depend on how images are batched. ``model``
is used in the mode it is in: put it into ``eval()`` first.

Shared arguments:
    model: x in [0, 1] of shape (N, C, H, W) -> logits (N, K). Not probabilities.
    x: clean images, (N, C, H, W), float32, in [0, 1].
    y: true labels, (N,), int64, 0 to K − 1.
    eps: L∞ budget in pixel units, in [0, 1]; 0 returns ``x`` itself.
    precision: what the model computes in where a gradient is asked for. "bfloat16" is faster on a device with units for
        it (:func:`src.precision.native_bfloat16`) and slower on others. Whether an image fools the model is always
        judged in float32, so an attack that lost by it shows.

Shared errors: ``ValueError`` for arguments outside these ranges, and for a model whose output is not (N, K).
"""

from functools import partial

import torch
from torch import Tensor, nn

from src.attacks.budget import check_adversarial, check_budget, check_labels, project
from src.attacks.margin import logits_of, margin
from src.attacks.verdict import fooled, wrong
from src.log_odds import log_odds_gradient
from src.precision import PRECISIONS, Precision, computing_in


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, precision: Precision = "float32") -> Tensor:
    """The gradient that attacks follow, one an image; same shape as ``x``.

    It is that of the log-odds of an error (:func:`src.log_odds.log_odds_gradient`), and points where the gradient of
    the cross-entropy does. It is not finite where the model's own derivative is not: see :func:`usable`.
    Works under ``torch.no_grad()`` too (Lightning's test loop), but not under ``torch.inference_mode()``.
    """
    return _gradient_and_logits(model, x, y, precision)[0]


def usable(gradient: Tensor) -> Tensor:
    """``gradient`` (N, C, H, W) with 0 in place of NaN, and of each image's largest finite entry in place of infinity.

    A model such as ``x ** 0.5`` has an infinite derivative at a black pixel. One NaN would stop an image's momentum,
    and one infinity would make all other entries 0 when the gradient is divided by its norm. The sign of an infinite
    entry still says which way the loss rises.
    """
    if gradient.device.type == "cpu" and gradient.isfinite().all():  # a GPU would have to wait for the answer
        return gradient
    finite = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    largest = finite.abs().flatten(1).amax(1).clamp_min(torch.finfo(gradient.dtype).tiny).view(-1, 1, 1, 1)
    return torch.where(gradient.isinf(), gradient.sign() * largest, finite)


def _gradient_and_logits(
    model: nn.Module, x: Tensor, y: Tensor, precision: Precision, *, checked: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`input_gradient`, and the logits (N, K) at ``x``. ``checked``: the labels need no check, for which a GPU
    has to wait."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}; got {precision}")
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        with computing_in(precision, x.device):
            logits = logits_of(model, x)
        if not checked:
            check_labels(y, logits.shape[1])
        if not logits.requires_grad:
            raise ValueError("the model passes no gradient to its input: is there a no_grad() or a detach() in it?")
        gradient = log_odds_gradient(logits, y, x)
    return gradient, logits.detach()


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    gradient: Tensor | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Fast gradient sign method: x + eps · sign(∇ₓ L). Goodfellow et al., arXiv:1412.6572, section 4.

    Args:
        gradient: ``input_gradient(model, x, y)``, (N, C, H, W), if it is known already; None computes it.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Examples:
        A classifier of two pixels that answers which is the brighter one.

        >>> import torch
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
        >>> fgsm(brighter, x, y, eps=0.125)
        tensor([[[[0.4750, 0.5250]]]])
    """
    return ifgsm(model, x, y, eps=eps, steps=1, gradient=gradient, precision=precision)


def ifgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 10,
    rel_step: float | None = None,
    refresh_gradient: bool = True,
    gradient: Tensor | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Iterative FGSM (the basic iterative method). Kurakin et al., arXiv:1607.02533, section 2.2.

    Args:
        steps: number of steps, ≥ 1.
        rel_step: step size divided by eps; 1/steps if None, so that the steps add up to eps.
        refresh_gradient: recompute the gradient at every step. False keeps the one of the clean image, which
            is *not* I-FGSM but what the report's code did: FGSM with an eps of steps · rel_step · eps.
        gradient: as for :func:`fgsm`.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Examples:
        The classifier is that of :func:`fgsm`.

        >>> import torch
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
        >>> ifgsm(brighter, x, y, eps=0.125, steps=5)
        tensor([[[[0.4750, 0.5250]]]])
    """
    return _ascend(
        model, x, y, x, eps, steps, rel_step, precision, refresh_gradient=refresh_gradient, gradient=gradient
    )


def mifgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 10,
    rel_step: float | None = None,
    decay: float = 1.0,
    refresh_gradient: bool = True,
    gradient: Tensor | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Momentum iterative FGSM. Dong et al., arXiv:1710.06081, algorithm 1.

    g ← decay · g + ∇ₓL / ‖∇ₓL‖₁, the norm taken over each image by itself; x ← x + step · sign(g).

    Args:
        steps, rel_step, refresh_gradient, gradient: as for :func:`ifgsm`.
        decay: the paper's μ, ≥ 0. 0 is I-FGSM.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Examples:
        The classifier is that of :func:`fgsm`.

        >>> import torch
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
        >>> mifgsm(brighter, x, y, eps=0.125, steps=5)
        tensor([[[[0.4750, 0.5250]]]])
    """
    if not decay >= 0:
        raise ValueError(f"decay must be at least 0; got {decay}")
    return _ascend(
        model, x, y, x, eps, steps, rel_step, precision, decay, refresh_gradient=refresh_gradient, gradient=gradient
    )


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 40,
    rel_step: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = False,
    generator: torch.Generator | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Projected gradient descent in the L∞ ball. Madry et al., arXiv:1706.06083, section 2.1.

    Args:
        steps: number of steps, ≥ 1.
        rel_step: step size divided by eps; 2.5/steps if None, so that any point of the ball can be reached
            from any start (Madry et al.'s choice for CIFAR-10).
        random_start: begin at a uniform point of the ball instead of at ``x``.
        restarts: runs, ≥ 1, of which each image keeps the one with the largest margin under ``model``.
        early_stop: leave an image as it is once it fools ``model``. This is faster, and stronger by the images that a
            later step would have made harmless again. It is right where ``model`` itself is judged, and gives the same
            answer each time.
        generator: source of the random starts; torch's global one if None.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``.

    Examples:
        The classifier is that of :func:`fgsm`. An image is left alone once it fools the classifier.

        >>> import torch
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
        >>> pgd(brighter, x, y, eps=0.25, steps=10, random_start=False, early_stop=True)
        tensor([[[[0.4750, 0.5250]]]])
    """
    check_budget(x, y, eps, steps)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise ValueError(f"restarts must be at least 1, and 1 without a random start; got {restarts}")
    if eps == 0:
        return x
    rel_step = 2.5 / steps if rel_step is None else rel_step
    if not rel_step > 0:
        raise ValueError(f"rel_step must be positive; got {rel_step}")
    ascend = _ascend_until_fooled if early_stop else _ascend
    climb = partial(ascend, model, eps=eps, steps=steps, rel_step=rel_step, precision=precision)
    best = climb(x, y, _random_start(x, eps, generator) if random_start else x)
    for _ in range(restarts - 1):
        start = _random_start(x, eps, generator)
        if early_stop:
            standing = ~fooled(model, best, y)
            best[standing] = climb(x[standing], y[standing], start[standing])
        else:
            best = _harder(model, y, best, climb(x, y, start))
    return check_adversarial(best, x, eps)


def _random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """A uniform point of each image's ball."""
    offset = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x + eps * (2 * offset - 1)).clamp(0, 1)


@torch.no_grad()
def _harder(model: nn.Module, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """For each image, the one of ``a`` and ``b`` with the larger margin."""
    margins = [margin(model, x_adv, y) for x_adv in (a, b)]
    return torch.where((margins[1] > margins[0]).view(-1, 1, 1, 1), b, a)


def _ascend_until_fooled(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    *,
    eps: float,
    steps: int,
    rel_step: float,
    precision: Precision,
) -> Tensor:
    """Sign steps of rel_step · eps from ``start``, for each image until it fools the model."""
    x_adv, active = start.clone(), torch.arange(len(x), device=x.device)
    for _ in range(steps):
        if not len(active):
            break
        gradient, logits = _gradient_and_logits(model, x_adv[active], y[active], precision)
        standing = ~wrong(logits, y[active])
        if precision != "float32" and not standing.all():  # what is right in float32 goes on
            doubtful = active[~standing]
            standing[~standing] = ~fooled(model, x_adv[doubtful], y[doubtful])
        active, gradient = active[standing], usable(gradient[standing])
        x_adv[active] = project(x_adv[active] + rel_step * eps * gradient.sign(), x[active], eps)
    return x_adv


def _ascend(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    eps: float,
    steps: int,
    rel_step: float | None,
    precision: Precision,
    decay: float | None = None,
    *,
    refresh_gradient: bool = True,
    gradient: Tensor | None = None,
) -> Tensor:
    """The loop of all these attacks: ``steps`` sign steps from ``start``, projected back after each.

    Args:
        gradient: of the loss at ``start``, if it is known.
    """
    check_budget(x, y, eps, steps)
    if gradient is not None and gradient.shape != x.shape:
        raise ValueError(f"gradient must have the shape of x, {tuple(x.shape)}; got {tuple(gradient.shape)}")
    if rel_step is not None and not rel_step > 0:
        raise ValueError(f"rel_step must be positive; got {rel_step}")
    if eps == 0:
        return x
    step = eps * (1 / steps if rel_step is None else rel_step)
    x_adv, momentum, checked = start.detach(), torch.zeros_like(x), False
    for number in range(steps):
        if gradient is None or (refresh_gradient and number):
            gradient, _ = _gradient_and_logits(model, x_adv, y, precision, checked=checked)
            checked = True
        gradient = usable(gradient)
        if decay is None:
            direction = gradient
        else:
            direction = momentum = decay * momentum + _unit_l1(gradient)
        x_adv = project(x_adv + step * direction.sign(), x, eps)
    return check_adversarial(x_adv, x, eps)


def _unit_l1(gradient: Tensor) -> Tensor:
    """Each image's gradient divided by its own L1 norm; a gradient of zero stays zero."""
    for norm in (torch.amax, torch.sum):  # the largest entry first: the sum of huge ones would be infinite
        norms = norm(gradient.abs().flatten(1), 1).clamp_min(torch.finfo(gradient.dtype).tiny)
        gradient = gradient / norms.view(-1, 1, 1, 1)
    return gradient
