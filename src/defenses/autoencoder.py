"""Purification by a trained network that is shown an image and draws it anew."""

from pathlib import Path
from typing import Self

import torch
from lightning import LightningModule
from torch import Tensor, nn

from src.images import ImageCheck, is_traced
from src.models.checkpoint import load_trained
from src.precision import PRECISIONS, Precision, computing_in

#: A side of the image by a side of the map between encoder and decoder: two convolutions of stride 2.
REDUCTION = 4


class AutoencoderPurifier(nn.Module):
    """x̂ = network(x + inference_noise · n), n ~ N(0, I), clipped to [0, 1] if ``clip``.

    The network is frozen in ``eval()`` and stays there. The gradient is the network's own.

    Args:
        network: the trained network: an autoencoder, a VAE or a VQ-VAE, or :class:`ReverseDiffusion`, which is random.
        inference_noise: σ of noise added to the input at purification, in pixel units, ≥ 0. The noise is drawn
            from torch's global generator. 0 adds none.
        clip: clip the reconstruction to [0, 1]. The decoder's last layer is linear.
        precision: of the convolutions, see :func:`src.precision.computing_in`; a quantizer stays in float32.
    """

    def __init__(
        self, network: nn.Module, inference_noise: float = 0.0, clip: bool = True, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        if not 0 <= inference_noise < float("inf"):
            raise ValueError(f"inference_noise must be finite and at least 0; got {inference_noise}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be float32 or bfloat16; got {precision!r}")
        self.network = network.eval().requires_grad_(False)
        self.inference_noise, self.clip, self.precision = inference_noise, clip, precision
        self._check = ImageCheck()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        noise: float | None,
        inference_noise: float = 0.0,
        clip: bool = True,
        precision: Precision = "float32",
        remedy: str = "python -m src.train",
        *,
        network: type[LightningModule],
    ) -> Self:
        """Build the purifier from a checkpoint of ``python -m src.train``.

        Args:
            checkpoint: the file.
            noise: σ the network should have been trained with, None for a network without one; a file that says
                otherwise is refused.
            remedy: the command that makes the checkpoint, for error messages.
            network: what the checkpoint is of; images (N, C, H, W) to images of the same shape.

        Raises:
            UserError: the file is missing, damaged, of another shape or noise.
        """
        return cls(load_trained(network, Path(checkpoint), noise, remedy), inference_noise, clip, precision)

    def train(self, mode: bool = True) -> Self:
        """Stay in ``eval()``: a codebook that follows the attacked images would be another defense."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions of ``x`` (N, C, H, W), same shape.

        Raises:
            ValueError: ``x`` cannot be images in [0, 1], see :class:`src.images.ImageCheck`, or the network cannot
                give back their height and width.
        """
        self._check(x)
        if not is_traced() and any(side % REDUCTION for side in x.shape[2:]):
            raise ValueError(
                f"a {type(self.network).__name__} needs images whose height and width are divisible by {REDUCTION}; "
                f"got {tuple(x.shape)}"
            )
        if self.inference_noise:
            x = x + self.inference_noise * torch.randn_like(x)
        with computing_in(self.precision, x.device):
            reconstruction = self.network(x).to(x.dtype)
        return reconstruction.clamp(0, 1) if self.clip else reconstruction
