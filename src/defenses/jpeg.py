"""JPEG compression."""

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.straight_through import straight_through


class JPEG(nn.Module):
    """x̂ is x as it comes out of a JPEG file (Dziugaite et al., arXiv:1608.00853; Guo et al., arXiv:1711.00117).

    Images are rounded to 256 levels first. Encoder and decoder are torchvision's and run on the CPU. They have no
    gradient: it passes straight through.

    Args:
        quality: of the file, 1 (smallest) to 100.

    Raises:
        UserError: torchvision is not installed.
    """

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        if quality not in range(1, 101):
            raise ValueError(f"quality must be a whole number from 1 to 100; got {quality}")
        try:
            from torchvision.transforms.v2.functional import jpeg  # takes a second, which other defenses need not pay
        except ImportError as error:
            raise UserError("defense=jpeg needs the package torchvision: pip install torchvision") from error
        self.quality, self._jpeg = quality, jpeg

    def forward(self, x: Tensor) -> Tensor:
        """Decompressed images of the shape of ``x`` (N, C, H, W), C being 1 or 3.

        Raises:
            ValueError: another number of channels.
        """
        if x.shape[1] not in (1, 3):
            raise ValueError(f"JPEG images have 1 or 3 channels; got {x.shape[1]}")
        levels = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
        value = self._jpeg(levels, self.quality).to(x.device, x.dtype) / 255
        return straight_through(value, x)
