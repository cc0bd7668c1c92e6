"""A VQ-VAE trained on what an attacker can do to an image that is thresholded first."""

from typing import Any

import torch
from torch import Tensor

from src.log_odds import log_odds_gradient
from src.models.bottleneck_vqvae import BottleneckVQVAE
from src.straight_through import straight_through


class RobustVQVAE(BottleneckVQVAE):
    """VQ-VAE for images of two levels: asked for the clean grey image x, shown what an attacker makes of it.

    At the budgets of interest thresholding leaves an attacker only the grey pixels at the edges of strokes. Which of
    them to flip he takes from the whole image; the bottleneck looks at the whole image, too.

    A ``share`` of each training batch is attacked: ``steps`` sign steps from a random point of the ball, along the
    gradient through threshold, encoder and bottleneck that raises the head's cross-entropy (Madry et al.,
    arXiv:1706.06083; what learns is the purifier). Neither decoder nor classifier take part, which makes a step cheap.
    The other images are disturbed blindly and thresholded, 1[x + s·n > threshold], with n = ±1 in square blocks and
    s ~ U(0, ``noise``); with a share of 1 these are the validation images and the illustrations alone.

    In use, thresholding is a defense of its own before this one: see conf/defense/vqvae_robust.yaml.

    Args:
        noise: largest size of the blocks' noise, in pixel units, ≥ 0.
        threshold: in pixel units, in (0, 1); None has none, and the network is shown grey images.
        blocks: side lengths of the blocks, in pixels; each image gets one of them at random.
        share: of a batch that is attacked, in [0, 1].
        eps: L∞ budget of that attack, in pixel units.
        steps: of that attack, ≥ 0, each 1.5 · eps / steps long, or eps if it is the only one.
        network: further arguments of :class:`BottleneckVQVAE`.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        noise: float = 0.45,
        threshold: float | None = 0.5,
        blocks: tuple[int, ...] = (1, 2, 4, 7),
        share: float = 1.0,
        eps: float = 0.3,
        steps: int = 2,
        **network: Any,
    ) -> None:
        super().__init__(noise=noise, **network)
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), or None; got {threshold}")
        if not 0 <= share <= 1 or steps < 0 or not blocks or min(blocks) < 1:
            raise ValueError(
                "share must be in [0, 1], steps at least 0 and blocks whole numbers from 1; "
                f"got {share}, {steps} and {list(blocks)}"
            )
        self.threshold, self.blocks = threshold, tuple(blocks)
        self.share, self.eps, self.steps = share, eps, steps

    def corrupt(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) with noise of ± one random size in blocks of one random side, thresholded."""
        sizes = self.noise * torch.rand(len(x), 1, 1, 1, device=x.device)
        sides = torch.randint(len(self.blocks), (len(x), 1, 1, 1), device=x.device)
        signs = torch.zeros_like(x)
        for i, side in enumerate(self.blocks):
            signs = torch.where(sides == i, _block_signs(x, side), signs)
        return self._thresholded(x + sizes * signs)

    def shown_in_training(self, x: Tensor, y: Tensor) -> Tensor:
        """Images of two levels, the first of them attacked, the others disturbed blindly."""
        images = self.corrupt(x)
        attacked = round(self.share * len(x)) if self.steps else 0
        if attacked:
            images[:attacked] = self._thresholded(self._attack(x[:attacked], y[:attacked]))
        return images

    def _thresholded(self, x: Tensor) -> Tensor:
        return x if self.threshold is None else (x > self.threshold).to(x.dtype)

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        """Images within eps of ``x`` whose class the head does not see, as far as a few steps lead; same shape."""
        x_adv = (x + self.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
        length = self.eps * (1 if self.steps == 1 else 1.5 / self.steps)
        for _ in range(self.steps):
            x_adv = x_adv.detach().requires_grad_()
            features = self.features(straight_through(self._thresholded(x_adv), x_adv))
            gradient = log_odds_gradient(self.head(features), y, x_adv)
            x_adv = (x_adv.detach() + length * gradient.sign()).clamp(x - self.eps, x + self.eps).clamp(0, 1)
        return x_adv.detach()


def _block_signs(x: Tensor, side: int) -> Tensor:
    """±1 in squares of ``side`` pixels, the shape of ``x`` (N, C, H, W)."""
    rows, columns = (-(-length // side) for length in x.shape[2:])
    coarse = torch.randint(0, 2, (*x.shape[:2], rows, columns), device=x.device, dtype=x.dtype) * 2 - 1
    fine = coarse.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return fine[:, :, : x.shape[2], : x.shape[3]]
