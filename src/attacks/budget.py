"""What an attack may do to an image, and the check that it did no more."""

import math

from torch import Tensor

ROUNDING = 1e-6  # float32 rounding of x + eps for x and eps in [0, 1]


def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Nearest point to ``x_adv`` with ‖· − x‖∞ ≤ eps and values in [0, 1]; shapes (N, C, H, W)."""
    return x_adv.clamp(x - eps, x + eps).clamp(0, 1)


def check_budget(x: Tensor, y: Tensor, eps: float, steps: int = 1) -> None:
    """Refuse what no attack can work with.

    Raises:
        ValueError: ``eps`` is not in [0, 1], ``steps`` is not positive, ``x`` is not a floating-point
            (N, C, H, W) batch in [0, 1], or ``y`` is not (N,).
    """
    if not (math.isfinite(eps) and 0 <= eps <= 1):
        raise ValueError(f"eps must be in [0, 1], in pixel units; got {eps}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if x.ndim != 4 or y.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, C, H, W) and y (N,); got {tuple(x.shape)} and {tuple(y.shape)}")
    if not x.is_floating_point() or (x.numel() and not (x.min() >= 0 and x.max() <= 1)):
        raise ValueError("x must be floating point in [0, 1]: normalization belongs into the model")


def check_adversarial(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """Return ``x_adv`` if it is an admissible adversarial batch for ``x``.

    Args:
        x_adv: attacked images, shape (N, C, H, W).
        x: clean images of the same shape, in [0, 1].
        eps: L∞ budget in pixel units.

    Raises:
        ValueError: the shape differs, a value is not finite or outside [0, 1], or ‖x_adv − x‖∞ > eps.
    """
    if x_adv.shape != x.shape:
        raise ValueError(f"the attack changed the shape from {tuple(x.shape)} to {tuple(x_adv.shape)}")
    if x_adv.numel() == 0:
        return x_adv
    low, high = x_adv.aminmax()
    if not (low >= 0 and high <= 1):  # false for NaN as well
        raise ValueError(f"the attack left [0, 1]: values from {low:.4g} to {high:.4g}")
    largest = (x_adv - x).abs().amax().item()
    if not largest <= eps + ROUNDING:
        raise ValueError(f"the attack spent {largest:.6g} of an eps of {eps:.6g}")
    return x_adv
