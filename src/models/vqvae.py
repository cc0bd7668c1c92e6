"""The noise-augmented VQ-VAE: sees a noisy image, is asked for the clean one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.quantizer import EMAQuantizer, Quantized, Unquantized, code_usage
from src.models.traceable import TraceableModule


class ResidualBlock(nn.Module):
    """x + conv1×1(ReLU(conv3×3(ReLU(x)))); (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def residual_stack(channels: int, hidden: int, blocks: int) -> nn.Sequential:
    """``blocks`` residual blocks and a last ReLU."""
    return nn.Sequential(*(ResidualBlock(channels, hidden) for _ in range(blocks)), nn.ReLU())


class VQVAE(TraceableModule):
    """VQ-VAE (van den Oord et al., arXiv:1711.00937) trained to map x + σ·n, n ~ N(0, I), to x.

    Loss: mean squared error to the clean image + ``commitment`` · ‖z − e‖² (the paper's equation 3, with the codebook
    term replaced by moving averages). Two stride-2 convolutions make a 28×28 image a 7×7 map of codes.
    The output is linear and may leave [0, 1]; clipping is the purifier's business.

    Args:
        noise: σ of the training noise in pixel units, ≥ 0.
        in_channels: C of the images.
        hidden: channels of the feature maps (the first convolution has half).
        stem: channels of a 3×3 convolution before that, at the image's own resolution; 0 has none, as the paper.
        residual_hidden, residual_blocks: width and number of the residual blocks.
        codes, dimension, decay, epsilon, revive_below: see :class:`EMAQuantizer`; 0 codes leave the quantizer out.
        commitment: weight of the commitment term, the paper's β.
        lr: Adam's learning rate.
    """

    def __init__(
        self,
        noise: float = 0.0,
        in_channels: int = 1,
        hidden: int = 128,
        stem: int = 0,
        residual_hidden: int = 32,
        residual_blocks: int = 2,
        codes: int = 512,
        dimension: int = 64,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        revive_below: float = 0.05,
        commitment: float = 0.25,
        lr: float = 2e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.noise, self.commitment, self.lr = noise, commitment, lr
        self.codes, self.dimension = codes, dimension
        first = [nn.Conv2d(in_channels, stem, 3, padding=1), nn.ReLU()] if stem else []
        self.encoder = nn.Sequential(
            *first,
            nn.Conv2d(stem or in_channels, hidden // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            residual_stack(hidden, residual_hidden, residual_blocks),
            nn.Conv2d(hidden, dimension, 1),
        )
        self.quantizer = EMAQuantizer(codes, dimension, decay, epsilon, revive_below) if codes else Unquantized()
        self.decoder = nn.Sequential(
            nn.Conv2d(dimension, hidden, 3, padding=1),
            residual_stack(hidden, residual_hidden, residual_blocks),
            nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(hidden // 2, in_channels, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``x`` (N, C, H, W), H and W divisible by 4; same shape, not clipped, no noise added."""
        return self.decoder(self.quantize(x).values)

    def quantize(self, x: Tensor) -> Quantized:
        """Encode ``x`` (N, C, H, W) into codes of shape (N, D, H/4, W/4)."""
        return self.codes_of(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """What ``x`` (N, C, H, W) is before it becomes codes; here the map (N, D, H/4, W/4) to be quantized."""
        return self.encoder(x)

    def codes_of(self, features: Tensor) -> Quantized:
        """The codes (N, D, H/4, W/4) that stand for :meth:`features`."""
        return self.quantizer(features)

    def corrupt(self, x: Tensor) -> Tensor:
        """x + σ·n with fresh Gaussian n: what the encoder is trained on."""
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def illustrate(self, x: Tensor) -> dict[str, Tensor]:
        """Images to look at: ``x`` (N, C, H, W), as the encoder is shown it in training, and reconstructed."""
        noisy = self.corrupt(x)
        return {"original": x, "noisy": noisy, "reconstruction": self(noisy)}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._loss(self.corrupt(batch[0]), batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._loss(self.corrupt(batch[0]), batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._loss(self.corrupt(batch[0]), batch, "test")

    def other_losses(self, features: Tensor, reconstruction: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Terms that are added to the loss, by name; ``batch`` has clean images and classes. None here."""
        return {}

    def _loss(self, seen: Tensor, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        """The loss of what is made of ``seen`` (N, C, H, W), where the images of ``batch`` should come out."""
        features = self.features(seen)
        quantized = self.codes_of(features)
        decoded = self.decoder(quantized.values)
        reconstruction, others = F.mse_loss(decoded, batch[0]), self.other_losses(features, decoded, batch)
        loss = sum(others.values(), start=reconstruction + self.commitment * quantized.commitment)
        parts = {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": quantized.commitment,
            **others,
        }
        if self.codes:
            perplexity, used = code_usage(quantized.indices, self.codes)
            parts |= {"perplexity": perplexity, "codes_used": used.float()}
        self.log_dict(
            {f"{stage}/{name}": value for name, value in parts.items()},
            on_step=stage == "train",
            on_epoch=stage != "train",
            sync_dist=stage != "train",
            batch_size=len(seen),
        )
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
