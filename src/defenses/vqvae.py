"""Purification by a trained VQ-VAE."""

from pathlib import Path

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.checkpoint import load_module
from src.models.vqvae import VQVAE


class VQVAEPurifier(nn.Module):
    """x̂ = VQ-VAE(x + inference_noise · n), n ~ N(0, I), clipped to [0, 1] if ``clip``.

    The network is frozen in ``eval()`` and stays there. The gradient is the network's own, straight through its
    quantizer.

    Args:
        vqvae: the trained network.
        inference_noise: σ of noise added to the input at purification, in pixel units, ≥ 0. The noise is drawn
            from torch's global generator. 0 makes the purifier deterministic.
        clip: clip the reconstruction to [0, 1]. The decoder's last layer is linear.
    """

    def __init__(self, vqvae: VQVAE, inference_noise: float = 0.0, clip: bool = True) -> None:
        super().__init__()
        if not 0 <= inference_noise < float("inf"):
            raise ValueError(f"inference_noise must be finite and at least 0; got {inference_noise}")
        self.vqvae = vqvae.eval().requires_grad_(False)
        self.inference_noise, self.clip = inference_noise, clip

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        noise: float,
        inference_noise: float = 0.0,
        clip: bool = True,
        remedy: str = "python -m src.train model=vqvae",
    ) -> "VQVAEPurifier":
        """Build the purifier from a checkpoint of ``python -m src.train model=vqvae``.

        Args:
            checkpoint: the file.
            noise: σ the network should have been trained with; a file that says otherwise is refused.
            remedy: the command that makes the checkpoint, for error messages.

        Raises:
            UserError: the file is missing, damaged, of another shape or noise.
        """
        vqvae, provenance = load_module(VQVAE, Path(checkpoint), remedy)
        if provenance.noise != noise:
            raise UserError(f"{checkpoint} was trained with noise {provenance.noise}, not {noise}: {remedy}")
        return cls(vqvae, inference_noise, clip)

    def train(self, mode: bool = True) -> "VQVAEPurifier":
        """Stay in ``eval()``: a codebook that follows the attacked images would be another defense."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of ``x`` (N, C, H, W), same shape."""
        if self.inference_noise:
            x = x + self.inference_noise * torch.randn_like(x)
        reconstruction = self.vqvae(x)
        return reconstruction.clamp(0, 1) if self.clip else reconstruction
