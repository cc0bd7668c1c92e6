"""Several purifiers, one after the other."""

from torch import Tensor, nn


class Chain(nn.Module):
    """x̂ = pₙ(… p₂(p₁(x))). A chain of none is the identity."""

    def __init__(self, *purifiers: nn.Module) -> None:
        super().__init__()
        self.purifiers = nn.ModuleList(purifiers)

    def forward(self, x: Tensor) -> Tensor:
        for purifier in self.purifiers:
            x = purifier(x)
        return x
