"""A VQ-VAE trained to be the denoiser of randomized smoothing."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.bottleneck_vqvae import BottleneckVQVAE


class SmoothVQVAE(BottleneckVQVAE):
    """VQ-VAE whose reconstructions of x + σ·n, n ~ N(0, I), a frozen classifier should agree on.

    A certificate's radius is σ Φ⁻¹(p), p the share of an image's noisy copies that get its class (Cohen et al.,
    arXiv:1902.02918), so copies of one image have to come out alike. In training the head sees two copies of each
    image; with P₁ and P₂ its probabilities for them and M their mean, ``consistency`` · (KL(M‖P₁) + KL(M‖P₂))/2 is
    added to the head's cross-entropy (Jeong & Shin, arXiv:2006.04146, without their entropy term), and the sum is
    weighted by ``head``. The rest of the loss is as it is without.

    Args:
        consistency: weight of the divergence, ≥ 0; 0 draws one copy only.
        network: further arguments of :class:`BottleneckVQVAE`; ``noise`` is σ.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(self, noise: float = 0.5, consistency: float = 10.0, **network: Any) -> None:
        super().__init__(noise=noise, **network)
        if consistency < 0:
            raise ValueError(f"consistency must be at least 0; got {consistency}")
        self.consistency = consistency

    def other_losses(self, features: Tensor, reconstruction: Tensor, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Those of :class:`BottleneckVQVAE` and, while it trains, the divergence between two noisy copies."""
        losses = super().other_losses(features, reconstruction, batch)
        if self.training and self.consistency and self.noise:
            copies = (features, self.features(self.corrupt(batch[0])))
            logs = torch.stack([F.log_softmax(self.head(copy), 1) for copy in copies])
            divergence = F.kl_div(logs, logs.exp().mean(0).expand_as(logs), reduction="sum") / logs[..., 0].numel()
            losses["consistency"] = self.head_weight * self.consistency * divergence
        return losses
