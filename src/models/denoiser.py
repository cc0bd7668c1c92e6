"""What learned purifiers share: convolutional encoder and decoder, shown a noisy image and asked for the clean one."""

from typing import Any

import torch
from torch import Tensor, nn

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


def encoder_of(
    in_channels: int, hidden: int, stem: int, residual_hidden: int, residual_blocks: int, features: int
) -> nn.Sequential:
    """Images (N, C, H, W) to a map (N, ``features``, H/4, W/4): two stride-2 convolutions, a third, residual blocks.

    Args:
        in_channels: C.
        hidden: channels of the feature maps (the first convolution has half).
        stem: channels of a 3×3 convolution before that, at the image's own resolution; 0 has none.
        residual_hidden, residual_blocks: width and number of the residual blocks.
    """
    first = [nn.Conv2d(in_channels, stem, 3, padding=1), nn.ReLU()] if stem else []
    return nn.Sequential(
        *first,
        nn.Conv2d(stem or in_channels, hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden // 2, hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        residual_stack(hidden, residual_hidden, residual_blocks),
        nn.Conv2d(hidden, features, 1),
    )


def decoder_of(
    features: int, hidden: int, residual_hidden: int, residual_blocks: int, out_channels: int
) -> nn.Sequential:
    """A map (N, ``features``, H/4, W/4) to images (N, C, H, W): the encoder's mirror image, with a linear output."""
    return nn.Sequential(
        nn.Conv2d(features, hidden, 3, padding=1),
        residual_stack(hidden, residual_hidden, residual_blocks),
        nn.ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden // 2, out_channels, 4, stride=2, padding=1),
    )


class Denoiser(TraceableModule):
    """Trained to map x + σ·n, n ~ N(0, I), to x; how is the business of its subclasses.

    ``forward`` returns reconstructions, of the shape of the images, H and W divisible by 4. They may leave [0, 1];
    clipping is the purifier's business. The last layer is the last of ``decoder``.

    Args:
        noise: σ of the training noise in pixel units, ≥ 0.
        lr: Adam's learning rate.
    """

    decoder: nn.Sequential

    def __init__(self, noise: float, lr: float) -> None:
        super().__init__()
        self.noise, self.lr = noise, lr

    def corrupt(self, x: Tensor) -> Tensor:
        """X + σ·n with fresh Gaussian n: what the encoder is trained on."""
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

    def losses(self, seen: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Losses of the network at ``seen`` (N, C, H, W), whose targets are the images of ``batch``: scalars by name,
        "loss" and "reconstruction" (mean squared error) among them. All are logged, "loss" is minimized."""
        raise NotImplementedError

    def _loss(self, seen: Tensor, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        parts = self.losses(seen, batch)
        self.log_dict(
            {f"{stage}/{name}": value for name, value in parts.items()},
            on_step=stage == "train",
            on_epoch=stage != "train",
            sync_dist=stage != "train",
            batch_size=len(seen),
        )
        return parts["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
