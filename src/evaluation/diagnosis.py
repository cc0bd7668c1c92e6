"""What an attacker sees of the model that is attacked, as numbers: what a later suspicion rests on."""

from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import input_gradient
from src.attacks.verdict import is_random
from src.randomness import seeded

#: Images that are looked at.
DIAGNOSED = 100


def diagnose(view: nn.Module, defense: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Look at the model that an attack is going to differentiate through.

    Args:
        view: x → logits (N, K), as the attacker has it.
        defense: the defense that it contains, or the identity.
        x, y: clean images (N, C, H, W) in [0, 1] and labels (N,); the first :data:`DIAGNOSED` are used.

    Returns:
        "zero_gradient", "nan_gradient": shares of the images whose loss gradient is zero everywhere, or not finite
        somewhere; "nan_logits": share of the images with a logit that is NaN or infinite; "random": whether the model
        answers differently when asked again; "eot_samples": answers averaged for one gradient; "probabilities":
        whether the logits are probabilities. The same model always gives the same numbers.
    """
    x, y = x[:DIAGNOSED], y[:DIAGNOSED]
    with seeded(0):
        gradient = input_gradient(view, x.clone(), y).flatten(1)
        with torch.no_grad():
            logits = view(x.clone())
    return {
        "zero_gradient": (gradient == 0).all(1).float().mean().item(),
        "nan_gradient": (~gradient.isfinite()).any(1).float().mean().item(),
        "nan_logits": (~logits.isfinite()).any(1).float().mean().item(),
        "random": is_random(view, x) or is_random(defense, x),
        "eot_samples": int(getattr(view, "eot_samples", 1)),
        "probabilities": are_probabilities(logits),
    }


def are_probabilities(logits: Tensor) -> bool:
    """Whether (N, K) logits are all non-negative and add up to 1 for every image: a softmax too many."""
    return bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(len(logits)).to(logits), atol=1e-3))
