"""A VQ-VAE that passes the whole image through one vector and is trained with its class."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.augmentation import shifted, warped
from src.models.guided import Guided
from src.models.quantizer import Quantized
from src.models.vqvae import VQVAE


class BottleneckVQVAE(Guided, VQVAE):
    """VQ-VAE whose codes are all made from one vector for the whole image, the bottleneck.

    A code of a VQ-VAE sees a part of the image, so what is done to that part moves it. Here what the encoder finds
    passes through one vector before it becomes a map of codes: no code can be moved but through that vector. A linear
    head on it says which class the image is of.

    Added to the loss are ``head`` times the head's cross-entropy and, with a classifier (:meth:`guided_by`),
    ``guidance`` times that of the classifier on the clipped reconstruction. The classifier itself never changes, and
    the head is for training: a purifier returns nothing but the image.

    Args:
        noise: see :class:`VQVAE`.
        head: weight of the head's cross-entropy, ≥ 0.
        guidance: weight of the classifier's cross-entropy, ≥ 0.
        guided: share of a batch that the classifier is asked about, in (0, 1]: it costs more than the network.
        shift: pixels that a training image is moved by at most, up or down and to either side, ≥ 0.
        warp: how far the matrix that a training image is turned, stretched and slanted by may be from the identity, in
            each of its four entries; in [0, 1).
        bottleneck: length B of the vector; 0 has none: a code is made from its own place of the encoder's map, as in a
            :class:`VQVAE`, and the head reads the map.
        bottleneck_hidden: width of the layer before it, ≥ 1.
        image_size: H = W of the images, divisible by 4.
        num_classes: K.
        network: further arguments of :class:`VQVAE`.
    """

    plans_ahead = True  #: its learning rate depends on how many epochs are to come

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        noise: float = 0.0,
        head: float = 0.2,
        guidance: float = 0.2,
        guided: float = 0.5,
        shift: int = 0,
        warp: float = 0.0,
        bottleneck: int = 64,
        bottleneck_hidden: int = 128,
        image_size: int = 28,
        num_classes: int = 10,
        **network: Any,
    ) -> None:
        super().__init__(noise=noise, **network)
        if not 0 < guided <= 1 or image_size % 4:
            raise ValueError(f"guided must be in (0, 1] and image_size divisible by 4; got {guided} and {image_size}")
        if not 0 <= warp < 1:
            raise ValueError(f"warp must be in [0, 1); got {warp}")
        if min(shift, bottleneck) < 0 or bottleneck_hidden < 1:
            raise ValueError(
                "shift and bottleneck must be at least 0, bottleneck_hidden at least 1; "
                f"got {shift}, {bottleneck} and {bottleneck_hidden}"
            )
        self.head_weight, self.guidance, self.guided = head, guidance, guided
        self.shift, self.warp = shift, warp
        map_of_codes = (self.embedding_dim, image_size // 4, image_size // 4)
        numbers = prod(map_of_codes)
        self.summarize = nn.Sequential(nn.Flatten())
        self.spread = nn.Sequential(nn.Unflatten(1, map_of_codes))
        if bottleneck:
            hidden = nn.Linear(numbers, bottleneck_hidden)
            self.summarize.extend([hidden, nn.ReLU(), nn.Linear(bottleneck_hidden, bottleneck)])
            self.spread.insert(0, nn.Linear(bottleneck, numbers))
        self.head = nn.Linear(bottleneck or numbers, num_classes)

    def configure_optimizers(self) -> Any:
        """Adam, its rate raised over the first tenth of the training and lowered to nothing over the rest."""
        optimizer = super().configure_optimizers()
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=total, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = warped(shifted(batch[0], self.shift), self.warp), batch[1]
        return self._loss(self.shown_in_training(x, y), (x, y), "train")

    def shown_in_training(self, x: Tensor, y: Tensor) -> Tensor:
        """What the encoder is shown of training images ``x`` (N, C, H, W) with classes ``y`` (N,); same shape."""
        return self.corrupt(x)

    def features(self, x: Tensor) -> Tensor:
        """The bottleneck's vectors (N, B) of images ``x`` (N, C, H, W); without one the encoder's map as vectors."""
        return self.summarize(self.encoder(x))

    def codes_of(self, features: Tensor) -> Quantized:
        """Codes (N, D, H/4, W/4), from vectors (N, B)."""
        return self.quantizer(self.spread(features))

    def other_losses(self, features: Tensor, reconstruction: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The head's cross-entropy and the classifier's on the clipped reconstruction, each times its weight."""
        y = batch[1]
        losses = {"head": self.head_weight * F.cross_entropy(self.head(features), y)}
        if self._classifier and self.guidance:
            number = max(1, round(self.guided * len(y)))
            logits = self._classifier[0](reconstruction[:number].clamp(0, 1))
            losses["guidance"] = self.guidance * F.cross_entropy(logits, y[:number])
        return losses
