"""Diffusion as a purifier: noise is added, and taken away again step by step."""

from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from src.models.checkpoint import load_trained
from src.models.diffusion import DiffusionModel


class ReverseDiffusion(nn.Module):
    """x + σ·n, n ~ N(0, I), and from there back to an image without noise: DiffPure (Nie et al., arXiv:2205.07460).

    σ is the largest noise of the model, and falls to 0 in equal steps. A step from σ to σ' draws the image with noise
    σ' given the one with noise σ, as if D = D(x; σ) were the clean one (Song et al., arXiv:2011.13456, appendix F):

        x' = D + (σ'/σ)² · (x − D) + σ' · √(1 − (σ'/σ)²) · n.

    The last step ends at D. With one step it is a denoiser that adds its noise itself.

    It is random: the noise comes from torch's global generator. The gradient is its own, through all steps; an attacker
    who knows the defense averages over its answers (``eot_samples``). Images are not clipped:
    ``AutoencoderPurifier(ReverseDiffusion(model))`` is the purifier.

    Args:
        model: the trained model.
        steps: evaluations of the model an image, ≥ 1.

    Raises:
        ValueError: there are fewer steps.
    """

    def __init__(self, model: DiffusionModel, steps: int = 10) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1; got {steps}")
        self.model, self.steps = model, steps

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        noise: float,
        steps: int = 10,
        remedy: str = "python -m src.train model=diffusion noise=0.5",
    ) -> Self:
        """As :meth:`src.defenses.AutoencoderPurifier.from_checkpoint`, of a model trained for noise up to ``noise``."""
        return cls(load_trained(DiffusionModel, Path(checkpoint), noise, remedy), steps)

    def forward(self, x: Tensor) -> Tensor:
        """A purified version of ``x`` (N, C, H, W), H and W divisible by 4; same shape."""
        x = x + self.model.noise * torch.randn_like(x)
        levels = [self.model.noise * (1 - i / self.steps) for i in range(self.steps)]
        for sigma, next_sigma in pairwise(levels):
            denoised, kept = self.model.denoised(x, sigma), (next_sigma / sigma) ** 2
            x = denoised + kept * (x - denoised) + next_sigma * (1 - kept) ** 0.5 * torch.randn_like(x)
        return self.model.denoised(x, levels[-1])
