"""The gradient that attacks follow: the direction of cross-entropy's, without the factor that vanishes."""

import torch
from torch import Tensor


def log_odds_gradient(logits: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """∇ₓu for the log-odds of an error, u = log Σ exp(z_k) over k ≠ y, minus z_y, of each image by itself.

    This is an attack on the cross-entropy. Cross-entropy is log(1 + eᵘ), so its gradient is sigmoid(u) · ∇ₓu: both
    point in the same direction, and a step along the sign, or along the gradient divided by its own norm, is the same.
    The factor sigmoid(u) is the probability of an error. In float32 it rounds to 0 for a confident network, and an
    attack that follows cross-entropy itself then stands still: the network looks robust because its logits are large.

    Args:
        logits: z, (N, K), K ≥ 2, computed from ``x``. Half precision and infinite values are allowed; an infinite
            logit counts as the largest number of its sign. NaN makes the image's gradient NaN.
        y: labels (N,), int64, each in 0 … K − 1.
        x: images (N, C, H, W) that require a gradient.

    Returns:
        The gradient, of the shape of ``x``. It is not finite where the network's own derivative is not.
    """
    z = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    true, largest = y.unsqueeze(1), torch.finfo(z.dtype).max
    others = z.clamp(-largest, largest).scatter(1, true, float("-inf")).softmax(1)
    return torch.autograd.grad(logits, x, others.scatter(1, true, -1).to(logits.dtype))[0]
