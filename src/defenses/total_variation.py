"""Total-variation minimization."""

import torch
from torch import Tensor, nn

#: Length of a step; the iteration converges for any up to 1/4 (Chambolle 2004, theorem 3.1, allows 1/8 for certain).
STEP = 0.125
#: Keeps the gradient of the norm finite where an image is flat.
TINY = 1e-12


class TotalVariation(nn.Module):
    """x̂ minimizes ‖x̂ − x‖² / 2 + weight · Σ |∇x̂|, in each channel by itself (Rudin, Osher & Fatemi 1992).

    As a defense: Guo et al., arXiv:1711.00117, section 4.2, there with some pixels dropped first. It is solved by a
    fixed number of steps of Chambolle's projection algorithm (J. Math. Imaging Vis. 20, 2004), so that an image does
    not depend on its batch. The gradient is that of those steps.

    Args:
        weight: of the total variation, in pixel units, ≥ 0; 0 changes nothing.
        steps: of the algorithm, ≥ 1.
    """

    def __init__(self, weight: float = 0.1, steps: int = 50) -> None:
        super().__init__()
        if not 0 <= weight < float("inf") or steps < 1:
            raise ValueError(f"weight must be finite and at least 0, steps at least 1; got {weight} and {steps}")
        self.weight, self.steps = weight, steps

    def forward(self, x: Tensor) -> Tensor:
        """Smoothed images of the shape of ``x`` (N, C, H, W)."""
        if self.weight == 0:
            return x
        dual = torch.zeros(2, *x.shape, dtype=x.dtype, device=x.device)
        for _ in range(self.steps):
            slope = _gradient(_divergence(dual) - x / self.weight)
            length = (slope.square().sum(0) + TINY).sqrt()
            dual = (dual + STEP * slope) / (1 + STEP * length)
        return (x - self.weight * _divergence(dual)).clamp(0, 1)


def _gradient(x: Tensor) -> Tensor:
    """Differences to the pixel below and to the right, 0 at the far edges: (2, N, C, H, W)."""
    down = nn.functional.pad(x.diff(dim=2), (0, 0, 0, 1))
    right = nn.functional.pad(x.diff(dim=3), (0, 1))
    return torch.stack([down, right])


def _divergence(field: Tensor) -> Tensor:
    """Minus the adjoint of :func:`_gradient`, of a field (2, N, C, H, W) that is 0 at the far edges; (N, C, H, W)."""
    down, right = field
    return down - nn.functional.pad(down[:, :, :-1], (0, 0, 1, 0)) + right - nn.functional.pad(right[..., :-1], (1, 0))
