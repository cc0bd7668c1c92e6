"""A small diffusion model: a denoiser for every amount of noise up to a largest one."""

import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.denoiser import Denoiser, decoder_of, encoder_of


class DiffusionModel(Denoiser):
    """D(x; σ), trained to map x + σ·n, n ~ N(0, I), to x for all σ in (0, ``noise``].

    The denoiser behind diffusion models (Ho et al., arXiv:2006.11239), in the variance-exploding form that Karras et
    al. (arXiv:2206.00364) write it in: nothing but noise is added to an image, and σ says how much. Loss: the mean
    squared error to the clean image, σ drawn uniformly for each image. It has the layers of an :class:`Autoencoder`
    and one channel more at its input, which holds σ / ``noise``. The diffusion models of that field are much larger.

    ``forward`` is D(x; ``noise``), so it can stand where a denoiser is asked for: in denoised smoothing, as Carlini et
    al. (arXiv:2206.10550) use it. :class:`src.defenses.ReverseDiffusion` goes back in several steps.

    Args:
        noise: the largest σ, in pixel units, > 0.
        in_channels: C of the images.
        hidden, stem, residual_hidden, residual_blocks: layers of encoder and decoder, as in :class:`VQVAE`.
        dimension: channels D of the map (D, H/4, W/4) between encoder and decoder.
        lr: Adam's learning rate.

    Raises:
        ValueError: ``noise`` is not positive.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        noise: float = 0.5,
        in_channels: int = 1,
        hidden: int = 128,
        stem: int = 0,
        residual_hidden: int = 32,
        residual_blocks: int = 2,
        dimension: int = 64,
        lr: float = 2e-4,
    ) -> None:
        super().__init__(noise, lr)
        if not noise > 0:
            raise ValueError(f"noise must be above 0 for a diffusion model, such as 0.5; got {noise}")
        self.save_hyperparameters()
        self.encoder = encoder_of(in_channels + 1, hidden, stem, residual_hidden, residual_blocks, dimension)
        self.decoder = decoder_of(dimension, hidden, residual_hidden, residual_blocks, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The clean images expected behind ``x`` (N, C, H, W) with the largest noise; same shape, not clipped."""
        return self.denoised(x, self.noise)

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """D(x; σ): the clean images expected behind ``x`` (N, C, H, W), which has noise of ``sigma`` in pixel units, in
        (0, ``noise``]; same shape, not clipped."""
        return self.decoder(self.encoder(self._with_sigma(x, torch.full_like(x[:, :1, :1, :1], sigma))))

    def corrupt(self, x: Tensor) -> Tensor:
        """What the encoder is trained on: x + σ·n, with a σ of its own for each image, and σ / ``noise`` as one more
        channel; (N, C + 1, H, W)."""
        sigma = self.noise * torch.rand_like(x[:, :1, :1, :1])
        return self._with_sigma(x + sigma * torch.randn_like(x), sigma)

    def illustrate(self, x: Tensor) -> dict[str, Tensor]:
        """Images to look at: ``x`` (N, C, H, W), with the largest noise, and denoised."""
        noisy = super().corrupt(x)
        return {"original": x, "noisy": noisy, "reconstruction": self(noisy)}

    def losses(self, seen: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The squared error of what is made of ``seen``, which :meth:`corrupt` returned; it is all of the loss."""
        reconstruction = F.mse_loss(self.decoder(self.encoder(seen)), batch[0])
        return {"loss": reconstruction, "reconstruction": reconstruction}

    def _with_sigma(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``x`` (N, C, H, W) and ``sigma`` (N, 1, 1, 1) / ``noise`` as one more channel."""
        return torch.cat([x, (sigma / self.noise).expand(-1, 1, *x.shape[2:])], 1)
