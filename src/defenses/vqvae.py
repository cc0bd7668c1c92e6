"""Purification by a trained VQ-VAE."""

from pathlib import Path
from typing import Self

from lightning import LightningModule

from src.defenses.autoencoder import AutoencoderPurifier
from src.models.vqvae import VQVAE
from src.precision import Precision


class VQVAEPurifier(AutoencoderPurifier):
    """x̂ = VQ-VAE(x + inference_noise · n), n ~ N(0, I), clipped to [0, 1] if ``clip``.

    The gradient is the network's own, straight through its quantizer. The rest is as in :class:`AutoencoderPurifier`.

    Args:
        vqvae: the trained network.
        inference_noise, clip, precision: see :class:`AutoencoderPurifier`.
    """

    def __init__(
        self, vqvae: VQVAE, inference_noise: float = 0.0, clip: bool = True, precision: Precision = "float32"
    ) -> None:
        super().__init__(vqvae, inference_noise, clip, precision)

    @property
    def vqvae(self) -> VQVAE:
        """The trained network."""
        return self.network  # type: ignore[return-value]

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        noise: float | None,
        inference_noise: float = 0.0,
        clip: bool = True,
        precision: Precision = "float32",
        remedy: str = "python -m src.train model=vqvae",
        *,
        network: type[LightningModule] = VQVAE,
    ) -> Self:
        """As :meth:`AutoencoderPurifier.from_checkpoint`, of a :class:`VQVAE` unless ``network`` is said."""
        return super().from_checkpoint(checkpoint, noise, inference_noise, clip, precision, remedy, network=network)
