"""The noise-augmented VQ-VAE: sees a noisy image, is asked for the clean one."""

from torch import Tensor
from torch.nn import functional as F

from src.models.denoiser import Denoiser, decoder_of, encoder_of
from src.models.quantizer import EMAQuantizer, Quantized, Unquantized, code_usage


class VQVAE(Denoiser):
    """VQ-VAE (van den Oord et al., arXiv:1711.00937) trained to map x + σ·n, n ~ N(0, I), to x.

    Loss: mean squared error to the clean image + ``commitment_cost`` · ‖z − e‖² (the paper's equation 3, with the
    codebook term replaced by moving averages). Two stride-2 convolutions make a 28×28 image a 7×7 map of codes.
    The output is linear and may leave [0, 1]; clipping is the purifier's business.

    Args:
        noise: σ of the training noise in pixel units, ≥ 0.
        in_channels: C of the images.
        hidden: channels of the feature maps (the first convolution has half).
        stem: channels of a 3×3 convolution before that, at the image's own resolution; 0 has none, as the paper.
        residual_hidden, residual_blocks: width and number of the residual blocks.
        num_embeddings, embedding_dim, decay, epsilon, dead_code_threshold: see :class:`EMAQuantizer`; no embeddings
            leave the quantizer out.
        commitment_cost: weight of the commitment term, the paper's β.
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
        num_embeddings: int = 512,
        embedding_dim: int = 64,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        dead_code_threshold: float = 0.05,
        commitment_cost: float = 0.25,
        lr: float = 2e-4,
    ) -> None:
        super().__init__(noise, lr)
        self.save_hyperparameters()
        self.commitment_cost, self.num_embeddings, self.embedding_dim = commitment_cost, num_embeddings, embedding_dim
        self.encoder = encoder_of(in_channels, hidden, stem, residual_hidden, residual_blocks, embedding_dim)
        quantizer = (num_embeddings, embedding_dim, decay, epsilon, dead_code_threshold)
        self.quantizer = EMAQuantizer(*quantizer) if num_embeddings else Unquantized()
        self.decoder = decoder_of(embedding_dim, hidden, residual_hidden, residual_blocks, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` (N, C, H, W), H and W divisible by 4; same shape, not clipped, no noise added."""
        return self.decoder(self.quantize(x).values)

    def quantize(self, x: Tensor) -> Quantized:
        """Encode ``x`` (N, C, H, W) into codes of shape (N, D, H/4, W/4)."""
        return self.codes_of(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What the codes of ``x`` (N, C, H, W) are made from; here the map (N, D, H/4, W/4) to be quantized."""
        return self.encoder(x)

    def codes_of(self, features: Tensor) -> Quantized:
        """The codes (N, D, H/4, W/4) that stand for :meth:`features`."""
        return self.quantizer(features)

    def other_losses(self, features: Tensor, reconstruction: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Terms that are added to the loss, by name; ``batch`` has clean images and classes. None here."""
        return {}

    def losses(self, seen: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Reconstruction, commitment and :meth:`other_losses`, and how many codes are at work."""
        features = self.features(seen)
        quantized = self.codes_of(features)
        decoded = self.decoder(quantized.values)
        reconstruction, others = F.mse_loss(decoded, batch[0]), self.other_losses(features, decoded, batch)
        loss = sum(others.values(), start=reconstruction + self.commitment_cost * quantized.commitment)
        parts = {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": quantized.commitment,
            **others,
        }
        if self.num_embeddings:
            perplexity, used = code_usage(quantized.indices, self.num_embeddings)
            parts |= {"perplexity": perplexity, "codes_used": used.float()}
        return parts
