"""A VQ-VAE trained on what an attacker can do to an image that is thresholded first."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.quantizer import Quantized
from src.models.vqvae import VQVAE
from src.straight_through import straight_through


class RobustVQVAE(VQVAE):
    """VQ-VAE for images of two levels: asked for the clean grey image x, shown what an attacker makes of it.

    At the budgets of interest thresholding leaves an attacker only the grey pixels at the edges of strokes. Which of
    them to flip he takes from the whole image, while a code of a VQ-VAE sees a part of it. So what the encoder finds
    passes through one vector for the whole image, the bottleneck, before it becomes a map of codes: no code can be
    moved but through that vector. A linear head on it says which class the image is of.

    A ``share`` of each training batch is attacked: ``steps`` sign steps from a random point of the ball, along the
    gradient through threshold, encoder and bottleneck that raises the head's cross-entropy (Madry et al.,
    arXiv:1706.06083; what learns is the purifier). Neither decoder nor classifier take part, which makes a step cheap.
    The other images are disturbed blindly and thresholded, 1[x + s·n > threshold], with n = ±1 in square blocks and
    s ~ U(0, ``noise``). Added to the loss are ``head`` times the head's cross-entropy and, with a classifier
    (:meth:`guided_by`), ``guidance`` times that of the classifier on the clipped reconstruction. The classifier itself
    never changes.

    In use, thresholding is a defense of its own before this one: see conf/defense/vqvae_robust.yaml. The head is for
    training; a purifier returns nothing but the image.

    Args:
        noise: largest size of the blocks' noise, in pixel units, ≥ 0.
        threshold: in pixel units, in (0, 1).
        blocks: side lengths of the blocks, in pixels; each image gets one of them at random.
        share: of a batch that is attacked, in [0, 1].
        eps: L∞ budget of that attack, in pixel units.
        steps: of that attack, ≥ 0, each 1.5 · eps / steps long, or eps if it is the only one.
        head: weight of the head's cross-entropy, ≥ 0.
        guidance: weight of the classifier's cross-entropy, ≥ 0.
        guided: share of a batch that the classifier is asked about, in (0, 1]: it costs more than the network.
        bottleneck: length of the vector.
        bottleneck_hidden: width of the layer before it.
        image_size: H = W of the images, divisible by 4.
        num_classes: K.
        network: further arguments of :class:`VQVAE`.
    """

    def __init__(
        self,
        noise: float = 0.45,
        threshold: float = 0.5,
        blocks: tuple[int, ...] = (1, 2, 4, 7),
        share: float = 1.0,
        eps: float = 0.3,
        steps: int = 2,
        head: float = 0.2,
        guidance: float = 0.2,
        guided: float = 0.5,
        bottleneck: int = 64,
        bottleneck_hidden: int = 128,
        image_size: int = 28,
        num_classes: int = 10,
        **network: Any,
    ) -> None:
        super().__init__(noise=noise, **network)
        if not 0 < threshold < 1 or not 0 <= share <= 1 or steps < 0 or not blocks or min(blocks) < 1:
            raise ValueError(
                "threshold must be in (0, 1), share in [0, 1], steps at least 0 and blocks whole numbers from 1; "
                f"got {threshold}, {share}, {steps} and {list(blocks)}"
            )
        if not 0 < guided <= 1 or image_size % 4:
            raise ValueError(f"guided must be in (0, 1] and image_size divisible by 4; got {guided} and {image_size}")
        self.threshold, self.blocks = threshold, tuple(blocks)
        self.share, self.eps, self.steps = share, eps, steps
        self.head_weight, self.guidance, self.guided = head, guidance, guided
        map_of_codes = (self.quantizer.codebook.shape[1], image_size // 4, image_size // 4)
        self.summarize = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(map_of_codes), bottleneck_hidden),
            nn.ReLU(),
            nn.Linear(bottleneck_hidden, bottleneck),
        )
        self.spread = nn.Sequential(nn.Linear(bottleneck, prod(map_of_codes)), nn.Unflatten(1, map_of_codes))
        self.head = nn.Linear(bottleneck, num_classes)
        self._classifier: tuple[nn.Module, ...] = ()  # in a tuple: its weights are not this network's

    @classmethod
    def guided_by(cls, classifier: nn.Module, **arguments: Any) -> "RobustVQVAE":
        """A network that is trained against and for ``classifier``, x → logits (N, K), which is frozen here."""
        made = cls(**arguments)
        made._classifier = (classifier.eval().requires_grad_(False),)
        return made

    def on_fit_start(self) -> None:
        for classifier in self._classifier:
            classifier.to(self.device).to(memory_format=torch.channels_last)  # as the network itself, for speed

    def configure_optimizers(self) -> Any:
        """Adam, its rate raised over the first tenth of the training and lowered to nothing over the rest."""
        optimizer = super().configure_optimizers()
        total = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=total, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def corrupt(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) with noise of ± one random size in blocks of one random side, thresholded."""
        sizes = self.noise * torch.rand(len(x), 1, 1, 1, device=x.device)
        sides = torch.randint(len(self.blocks), (len(x), 1, 1, 1), device=x.device)
        signs = torch.zeros_like(x)
        for i, side in enumerate(self.blocks):
            signs = torch.where(sides == i, _block_signs(x, side), signs)
        return self._thresholded(x + sizes * signs)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        seen = self.corrupt(x)
        attacked = round(self.share * len(x)) if self.steps else 0
        if attacked:
            seen[:attacked] = self._thresholded(self._attack(x[:attacked], y[:attacked]))
        return self._loss(seen, batch, "train")

    def features(self, x: Tensor) -> Tensor:
        """The bottleneck's vectors (N, B) of images ``x`` (N, C, H, W)."""
        return self.summarize(self.encoder(x))

    def codes_of(self, features: Tensor) -> Quantized:
        """Codes (N, D, H/4, W/4), from vectors (N, B)."""
        return self.quantizer(self.spread(features))

    def other_losses(self, features: Tensor, reconstruction: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The head's cross-entropy and the classifier's on the clipped reconstruction, each times its weight."""
        losses = {"head": self.head_weight * F.cross_entropy(self.head(features), y)}
        if self._classifier and self.guidance:
            some = max(1, round(self.guided * len(y)))
            logits = self._classifier[0](reconstruction[:some].clamp(0, 1))
            losses["guidance"] = self.guidance * F.cross_entropy(logits, y[:some])
        return losses

    def _thresholded(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        """Images within eps of ``x`` whose class the head does not see, as far as a few steps lead; same shape."""
        x_adv = (x + self.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        length = self.eps * (1 if self.steps == 1 else 1.5 / self.steps)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            features = self.features(straight_through(self._thresholded(x_adv), x_adv))
            (gradient,) = torch.autograd.grad(F.cross_entropy(self.head(features), y), x_adv)
            x_adv = (x_adv.detach() + length * gradient.sign()).clamp(x - self.eps, x + self.eps).clamp(0, 1)
        return x_adv.detach()


def _block_signs(x: Tensor, side: int) -> Tensor:
    """±1 in squares of ``side`` pixels, the shape of ``x`` (N, C, H, W)."""
    rows, columns = (-(-length // side) for length in x.shape[2:])
    coarse = torch.randint(0, 2, (*x.shape[:2], rows, columns), device=x.device, dtype=x.dtype) * 2 - 1
    fine = coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return fine[:, :, : x.shape[2], : x.shape[3]]
