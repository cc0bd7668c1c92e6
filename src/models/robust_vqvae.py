"""A VQ-VAE trained on what an attacker can do to an image that is thresholded first."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.vqvae import VQVAE
from src.straight_through import straight_through


class RobustVQVAE(VQVAE):
    """VQ-VAE for images of two levels: asked for the clean grey image x, shown a disturbed and thresholded one.

    What it is shown is 1[x + s·n > threshold], with n = ±1 in square blocks and s ~ U(0, ``noise``): at the budgets of
    interest thresholding leaves an attacker only the grey pixels at the edges of strokes, and these are what the blocks
    push to and fro, singly and in coherent patches.

    With a classifier (:meth:`guided_by`) a ``share`` of each training batch is attacked instead: by ``steps`` sign
    steps along the gradient through this very network, straight through threshold and quantizer, that raise the
    classifier's cross-entropy (Madry et al., arXiv:1706.06083; what learns is the purifier). And ``guidance`` times
    that cross-entropy is added to the loss of all images. The classifier itself never changes.

    In use, thresholding is a defense of its own before this one: see conf/defense/vqvae_robust.yaml.

    Args:
        noise: largest size of the blocks' noise, in pixel units, ≥ 0.
        threshold: in pixel units, in (0, 1).
        blocks: side lengths of the blocks, in pixels; each image gets one of them at random.
        share: of a batch that is attacked, in [0, 1].
        eps: L∞ budget of that attack, in pixel units.
        steps: of that attack, ≥ 0; half of the attacks begin at a random point of the ball.
        guidance: weight of the classifier's cross-entropy, ≥ 0.
        network: further arguments of :class:`VQVAE`.
    """

    def __init__(
        self,
        noise: float = 0.45,
        threshold: float = 0.5,
        blocks: tuple[int, ...] = (1, 2, 4, 7),
        share: float = 0.5,
        eps: float = 0.3,
        steps: int = 3,
        guidance: float = 0.2,
        **network: Any,
    ) -> None:
        super().__init__(noise=noise, **network)
        if not 0 < threshold < 1 or not 0 <= share <= 1 or steps < 0 or not blocks or min(blocks) < 1:
            raise ValueError(
                "threshold must be in (0, 1), share in [0, 1], steps at least 0 and blocks whole numbers from 1; "
                f"got {threshold}, {share}, {steps} and {list(blocks)}"
            )
        self.threshold, self.blocks = threshold, tuple(blocks)
        self.share, self.eps, self.steps, self.guidance = share, eps, steps, guidance
        self._classifier: tuple[nn.Module, ...] = ()  # in a tuple: its weights are not this network's

    @classmethod
    def guided_by(cls, classifier: nn.Module, **arguments: Any) -> "RobustVQVAE":
        """A network that is trained against and for ``classifier``, x → logits (N, K), which is frozen here."""
        made = cls(**arguments)
        made._classifier = (classifier.eval().requires_grad_(False),)
        return made

    def on_fit_start(self) -> None:
        for classifier in self._classifier:
            classifier.to(self.device)

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
        attacked = round(self.share * len(x)) if self._classifier and self.steps else 0
        if attacked:
            seen[:attacked] = self._thresholded(self._attack(x[:attacked], y[:attacked]))
        return self._loss(seen, batch, "train")

    def other_losses(self, reconstruction: Tensor, y: Tensor) -> dict[str, Tensor]:
        """``guidance`` · cross-entropy of the classifier on the clipped reconstruction."""
        if not self._classifier or not self.guidance:
            return {}
        return {"guidance": self.guidance * self._cross_entropy(reconstruction, y)}

    def _cross_entropy(self, reconstruction: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self._classifier[0](reconstruction.clamp(0, 1)), y)

    def _thresholded(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        """Images within eps of ``x`` that this network purifies badly, as far as a few steps lead; same shape."""
        self.quantizer.eval()  # codes follow what the network is trained on, once
        begin = (torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5) * self.eps
        x_adv = (x + begin * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            reconstruction = self(straight_through(self._thresholded(x_adv), x_adv))
            (gradient,) = torch.autograd.grad(self._cross_entropy(reconstruction, y), x_adv)
            step = self.eps * (1 if self.steps == 1 else 1.5 / self.steps)
            x_adv = (x_adv.detach() + step * gradient.sign()).clamp(x - self.eps, x + self.eps).clamp(0, 1)
        self.quantizer.train()
        return x_adv


def _block_signs(x: Tensor, side: int) -> Tensor:
    """±1 in squares of ``side`` pixels, the shape of ``x`` (N, C, H, W)."""
    rows, columns = (-(-length // side) for length in x.shape[2:])
    coarse = torch.randint(0, 2, (*x.shape[:2], rows, columns), device=x.device, dtype=x.dtype) * 2 - 1
    fine = coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return fine[:, :, : x.shape[2], : x.shape[3]]
