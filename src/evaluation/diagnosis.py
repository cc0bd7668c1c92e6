"""What an attacker who knows the defense sees of it, as numbers: what a later suspicion rests on."""

from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import input_gradient
from src.attacks.verdict import is_random

#: Images that are looked at.
DIAGNOSED = 100


def diagnose(view: nn.Module, defense: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Look at the model that an attack is going to differentiate through.

    Args:
        view: x → logits (N, K), as the attacker has it.
        defense: the defense that it is, or contains.
        x, y: clean images (N, C, H, W) in [0, 1] and labels (N,); the first :data:`DIAGNOSED` are used.

    Returns:
        "zero_gradient", "nan_gradient": shares of the images whose loss gradient is zero everywhere, or not finite;
        "random": whether the defense answers differently when asked again; "eot_samples": answers averaged for one
        gradient; "probabilities": whether the logits are probabilities.
    """
    x, y = x[:DIAGNOSED], y[:DIAGNOSED]
    gradient = input_gradient(view, x, y).flatten(1)
    finite = gradient.isfinite().all(1)
    with torch.no_grad():
        logits = view(x)
    return {
        "zero_gradient": (gradient == 0).all(1).float().mean().item(),
        "nan_gradient": (~finite).float().mean().item(),
        "random": is_random(defense, x),
        "eot_samples": int(getattr(view, "eot_samples", 1)),
        "probabilities": are_probabilities(logits),
    }


def are_probabilities(logits: Tensor) -> bool:
    """Whether (N, K) logits are all non-negative and add up to 1 for every image: a softmax too many."""
    return bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(len(logits)).to(logits), atol=1e-3))
