"""The VQ-VAE's rivals: its encoder and decoder with nothing between them, and with a Gaussian between them."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.denoiser import Denoiser, decoder_of, encoder_of

#: The log-variance stays within ± this: beyond, exp() makes sampling and KL worthless in float32.
LOG_VARIANCE = 10.0


class Autoencoder(Denoiser):
    """Denoising autoencoder trained to map x + σ·n, n ~ N(0, I), to x: the reformer of MagNet (Meng & Chen 2017).

    A :class:`VQVAE` without its quantizer: encoder and decoder have the same layers. Loss: mean squared error to the
    clean image. MagNet's own network is smaller and has a detector beside it, which is not here.

    Args:
        noise: σ of the training noise in pixel units, ≥ 0.
        in_channels: C of the images.
        hidden, stem, residual_hidden, residual_blocks: layers of encoder and decoder, as in :class:`VQVAE`.
        dimension: channels D of the map (D, H/4, W/4) between encoder and decoder.
        lr: Adam's learning rate.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        noise: float = 0.0,
        in_channels: int = 1,
        hidden: int = 128,
        stem: int = 0,
        residual_hidden: int = 32,
        residual_blocks: int = 2,
        dimension: int = 64,
        lr: float = 2e-4,
    ) -> None:
        super().__init__(noise, lr)
        self.save_hyperparameters()
        self.encoder = encoder_of(in_channels, hidden, stem, residual_hidden, residual_blocks, dimension)
        self.decoder = decoder_of(dimension, hidden, residual_hidden, residual_blocks, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` (N, C, H, W), H and W divisible by 4; same shape, not clipped, no noise added."""
        return self.decoder(self.encoder(x))

    def losses(self, seen: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The reconstruction error, which is all of the loss."""
        reconstruction = F.mse_loss(self(seen), batch[0])
        return {"loss": reconstruction, "reconstruction": reconstruction}


class Posterior(NamedTuple):
    """N(mean, exp(log_variance)) at each place of a map, independent; both (N, D, H/4, W/4)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """A map drawn from it, with a gradient: mean + exp(log_variance / 2) · n."""
        return self.mean + (self.log_variance / 2).exp() * torch.randn_like(self.mean)

    def divergence(self) -> Tensor:
        """KL(posterior ‖ N(0, I)) = ½ Σ (μ² + s² − 1 − log s²) of each image, (N,), in nats."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return terms.flatten(1).sum(1) / 2


class VAE(Denoiser):
    """Variational autoencoder trained to map x + σ·n, n ~ N(0, I), to x: Defense-VAE (Li & Ji, arXiv:1812.06570).

    A :class:`VQVAE` with a Gaussian (Kingma & Welling, arXiv:1312.6114) where that one has its quantizer; the other
    layers are the same, but for the last of the encoder, which gives means and log-variances. Loss of an image of P
    values (channels times pixels):

        (‖x̂ − x‖² + β · KL) / P,

    the negative evidence bound for pixels of variance β/2, times β/P, so that the first term is the mean squared error
    as in its rivals; β = 0.02 is a standard deviation of 0.1 in pixel units. Defense-VAE has the cross-entropy of
    pixels there, which is for black and white, and images attacked beforehand in the place of the noise; its published
    code weighs the KL by 0 unless told. Training draws from the Gaussian. In ``eval()`` its mean is decoded, as
    Defense-VAE does: the purifier is deterministic.

    Args:
        noise: σ of the training noise in pixel units, ≥ 0.
        in_channels: C of the images.
        hidden, stem, residual_hidden, residual_blocks: layers of encoder and decoder, as in :class:`VQVAE`.
        dimension: D of the latent map (D, H/4, W/4).
        beta: β, the weight of the KL divergence, ≥ 0.
        lr: Adam's learning rate.

    Raises:
        ValueError: ``beta`` is negative.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        noise: float = 0.0,
        in_channels: int = 1,
        hidden: int = 128,
        stem: int = 0,
        residual_hidden: int = 32,
        residual_blocks: int = 2,
        dimension: int = 64,
        beta: float = 0.02,
        lr: float = 2e-4,
    ) -> None:
        super().__init__(noise, lr)
        if not beta >= 0:
            raise ValueError(f"beta must be at least 0; got {beta}")
        self.save_hyperparameters()
        self.beta = beta
        self.encoder = encoder_of(in_channels, hidden, stem, residual_hidden, residual_blocks, 2 * dimension)
        self.decoder = decoder_of(dimension, hidden, residual_hidden, residual_blocks, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` (N, C, H, W), H and W divisible by 4; same shape, not clipped, no noise added. From a
        sample in ``train()``, from the mean in ``eval()``."""
        return self._decoded(self.posterior(x))

    def posterior(self, x: Tensor) -> Posterior:
        """What the encoder makes of ``x`` (N, C, H, W)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE))

    def _decoded(self, posterior: Posterior) -> Tensor:
        return self.decoder(posterior.sample() if self.training else posterior.mean)

    def losses(self, seen: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The reconstruction error, the divergence in nats an image, and their weighted sum."""
        posterior = self.posterior(seen)
        reconstruction = F.mse_loss(self._decoded(posterior), batch[0])
        divergence = posterior.divergence().mean()
        loss = reconstruction + self.beta * divergence / batch[0][0].numel()
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}
