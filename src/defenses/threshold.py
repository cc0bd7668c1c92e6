"""Thresholding: the baseline that any learned purifier of black-and-white images has to beat."""

from torch import Tensor, nn

from src.images import ImageCheck
from src.straight_through import straight_through

#: Width of the sigmoid that stands for the step where a gradient is wanted, in pixel units.
TEMPERATURE = 0.1


class Binarize(nn.Module):
    """x̂ = 1 where x > threshold, else 0. The gradient passes straight through.

    With a threshold of 0.5 a perturbation of less than 0.5 cannot flip a pixel that was 0 or 1 (Xu et al.'s
    feature squeezing to one bit, arXiv:1704.01155); what it can flip are the grey pixels at the edge of a stroke.

    Args:
        threshold: in pixel units, in (0, 1).

    Examples:
        >>> import torch
        >>> Binarize(0.5)(torch.tensor([[[[0.2, 0.5, 0.7]]]]))
        tensor([[[[0., 0., 1.]]]])
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), in pixel units; got {threshold}")
        self.threshold = threshold
        self._check = ImageCheck()

    def forward(self, x: Tensor) -> Tensor:
        """Two-level images of the shape of ``x`` (N, C, H, W).

        Raises:
            ValueError: ``x`` cannot be images in [0, 1], see :class:`src.images.ImageCheck`.
        """
        self._check(x)
        return straight_through((x > self.threshold).to(x.dtype), x)

    def surrogate(self, x: Tensor) -> Tensor:
        """σ((x − threshold) / :data:`TEMPERATURE`): a step with a slope, for attackers who want a gradient."""
        return ((x - self.threshold) / TEMPERATURE).sigmoid()
