"""What an attack may do to an image, and the check that it did no more."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

ROUNDING = 1e-6  # float32 rounding of x + eps for x and eps in [0, 1]


def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Nearest point to ``x_adv`` with ‖· − x‖∞ ≤ eps and values in [0, 1]; shapes (N, C, H, W)."""
    return x_adv.clamp(x - eps, x + eps).clamp(0, 1)


def check_budget(x: Tensor, y: Tensor, eps: float, steps: int = 1) -> None:
    """Refuse what no attack can work with.

    Raises:
        ValueError: ``eps`` is not one number in [0, 1], ``steps`` is not positive, ``x`` is not a float32 or float64
            batch (N, C, H, W) in [0, 1], or ``y`` is not a tensor (N,), int64, and at least 0.
    """
    _check_eps(eps)
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch tensor of images; got {type(x).__name__}: torch.as_tensor(x) makes one")
    if not isinstance(y, Tensor):
        raise ValueError(
            f"y must be a torch tensor of int64 labels; got {type(y).__name__}: torch.as_tensor(y) makes one"
        )
    if x.ndim != 4 or y.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, C, H, W) and y (N,); got {tuple(x.shape)} and {tuple(y.shape)}")
    _check_images(x)
    if y.dtype != torch.int64:
        raise ValueError(f"y must be int64 labels; got {_name(y.dtype)}")
    if y.numel() and y.min() < 0:
        raise ValueError(f"labels must be 0 or more; the smallest is {int(y.min())}")


def _check_eps(eps: Any) -> None:
    """Numbers of Python, NumPy and torch are numbers; a truth value, a text and an eps for each image are not."""
    if getattr(eps, "ndim", 0):
        raise ValueError(f"eps must be one number in [0, 1], in pixel units; got the shape {tuple(eps.shape)}")
    value = eps.item() if isinstance(eps, Tensor) else eps
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:  # true for NaN as well
        raise ValueError(f"eps must be one number in [0, 1], in pixel units; got {value!r}")


def _check_images(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(f"images must be float32 in [0, 1]; got {_name(x.dtype)}: use x.float() / 255")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"images must be float32, because {_name(x.dtype)} cannot hold x + eps exactly enough; "
            "convert them, the model may still compute in half precision"
        )
    if not x.numel():
        return
    low, high = (bound.item() for bound in x.aminmax())
    if not (low >= 0 and high <= 1):  # false for NaN as well
        bytes_ = low >= 0 and 1 < high <= 255
        remedy = "divide them by 255" if bytes_ else "normalization belongs into the model"
        raise ValueError(f"images must be in [0, 1]; got {low:.4g} to {high:.4g}: {remedy}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_labels(y: Tensor, classes: int) -> None:
    """Refuse labels (N,) that are no index of one of ``classes`` logits.

    Raises:
        ValueError: a label is negative, or too large.
    """
    if not y.numel():
        return
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, as the model has {classes} logits; got {low} to {high}")


def check_adversarial(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return ``x_adv`` if it is an admissible adversarial batch for ``x``.

    Args:
        x_adv: attacked images, shape (N, C, H, W).
        x: clean images of the same shape, in [0, 1].
        eps: L∞ budget in pixel units.

    Raises:
        ValueError: the shape or the type differs, a value is not finite or outside [0, 1], or ‖x_adv − x‖∞ > eps.
    """
    if not isinstance(x_adv, Tensor):
        raise ValueError(f"the attack must return images as one tensor; got {type(x_adv).__name__}")
    if x_adv.shape != x.shape:
        raise ValueError(f"the attack changed the shape from {tuple(x.shape)} to {tuple(x_adv.shape)}")
    if x_adv.dtype != x.dtype:
        raise ValueError(f"the attack turned {_name(x.dtype)} images into {_name(x_adv.dtype)}")
    if x_adv.numel() == 0:
        return x_adv
    low, high = x_adv.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN as well
        raise ValueError(f"the attack left [0, 1]: values from {low:.4g} to {high:.4g}")
    largest = (x_adv - x).abs().amax().item()
    if not largest <= eps + ROUNDING:
        raise ValueError(f"the attack spent {largest:.6g} of an eps of {eps:.6g}")
    return x_adv


def within_budget(
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor], model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> Tensor:
    """What ``attack`` makes of ``x``, checked by :func:`check_adversarial`; without a gradient. The attack itself may
    ask for gradients as usual, also where the caller is under ``torch.no_grad()``.

    The attack gets copies of ``x`` and ``y``. One that writes into what it is given would otherwise change the images
    that its result is checked against, and could spend any eps unseen.

    Args:
        attack: (model, x, y) → x_adv, its eps bound.
        model, x, y, eps: as in :mod:`src.attacks.gradient`.

    Raises:
        ValueError: the result is not admissible.
    """
    with torch.enable_grad():
        x_adv = attack(model, x.clone(), y.clone())
    return check_adversarial(x_adv.detach() if isinstance(x_adv, Tensor) else x_adv, x, eps)
