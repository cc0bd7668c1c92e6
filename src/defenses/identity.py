"""The defense that is none: the column every other is compared with."""

from torch import Tensor, nn


class Identity(nn.Module):
    """x̂ = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x
