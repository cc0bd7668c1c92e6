"""Steepest ascent on the bits behind thresholds: an attack on a certified VQ-VAE, for images that have no proof."""

import torch
from torch import Tensor

from src.models.certified_vqvae import CertifiedVQVAE

#: Pixels that are changed at once in the tries of one round.
TRIES = (1, 2, 4, 8, 16, 32, 64)

#: Rounds at most, and classes that an image is driven to, one after the other.
ROUNDS, TARGETS = 20, 3

#: Images at a time.
BATCH = 64


class BitAttack:
    """Looks for an image within eps whose code is another one, by first-order gains of changing single pixels.

    All that the network sees of a pixel is between which thresholds it lies, its level. Each round computes for
    every pixel the level that raises s_k − s_y most to first order (s: the negative distance to a code), changes the
    1, 2, 4, … pixels that promise most, and goes on from the best of these tries. It ends where none is better.

    Args:
        network: in ``eval()``.
    """

    def __init__(self, network: CertifiedVQVAE) -> None:
        self.network = network
        levels = torch.tensor(network.thresholds, dtype=torch.float32).double()
        self.thresholds = levels.sort().values
        self.rank = levels.argsort().argsort()  #: how many thresholds are below each, (T,)
        # Bit of threshold t at level l: whether l is above its rank. (T + 1, T)
        self.patterns = (torch.arange(len(levels) + 1)[:, None] > self.rank).float()

    def __call__(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """The strongest image within ``eps`` found for each of ``x`` (N, 1, H, W), N ≥ 0, with classes ``y`` (N,)."""
        if not len(x):
            return x
        return torch.cat([self._attacked(*part, eps) for part in zip(x.split(BATCH), y.split(BATCH), strict=True)])

    def _attacked(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        values, allowed = self.choices(x, eps)
        start = (x.flatten(1).double()[:, None] > self.thresholds[:, None]).sum(1)
        with torch.no_grad():
            scores = self._scores(self._bits(start, x)).scatter(1, y[:, None], -torch.inf)
        best = start.clone()
        height = torch.full((len(x),), -torch.inf)
        for target in scores.topk(min(TARGETS, scores.shape[1] - 1), 1).indices.unbind(1):
            active = (height <= 0).nonzero().flatten()  # the others fool it already
            if not len(active):
                break
            reached, levels = self._climb(start[active], x[active], y[active], target[active], allowed[active])
            better = reached > height[active]
            height[active[better]], best[active[better]] = reached[better], levels[better]
        return values.gather(1, best[:, None]).view_as(x).float()

    def choices(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """For each level and pixel, a value of that level within eps (the pixel's own where that is its level), and
        whether there is one; both (N, T + 1, H·W)."""
        pixels = x.flatten(1).double()[:, None]
        edges = torch.cat([torch.tensor([-1.0]).double(), self.thresholds, torch.tensor([2.0]).double()])
        # In float32 an image on a threshold counts as below it.
        low = torch.maximum(edges[:-1, None] + 1e-6, pixels - eps).clamp(min=0)
        high = torch.minimum(edges[1:, None], pixels + eps).clamp(max=1)
        return torch.where((low <= pixels) & (pixels <= high), pixels, (low + high) / 2), low <= high

    def _bits(self, levels: Tensor, x: Tensor) -> Tensor:
        """(N, T, H, W) of levels (N, H·W)."""
        return self.patterns[levels].movedim(2, 1).reshape(len(levels), -1, *x.shape[2:])

    def _scores(self, bits: Tensor) -> Tensor:
        return self.network.scores(self.network.to_code(self.network.encoder(bits)))

    def _climb(self, levels: Tensor, x: Tensor, y: Tensor, target: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """s_target − s_y (N,) where the ascent from ``levels`` (N, H·W) ends, and the levels there."""
        levels, height = levels.clone(), torch.full((len(x),), -torch.inf)
        active = torch.arange(len(x))
        for _ in range(ROUNDS):
            gains, choice, current = self._gains(levels[active], x[active], y[active], target[active], allowed[active])
            height[active] = current
            ranks = gains.argsort(1, descending=True).argsort(1)
            tries = torch.stack([torch.where((ranks < m) & (gains > 0), choice, levels[active]) for m in TRIES], 1)
            with torch.no_grad():
                scores = self._scores(self._bits(tries.flatten(0, 1), x)).view(len(active), len(TRIES), -1)
            index = torch.arange(len(active))
            reached, number = (scores[index, :, target[active]] - scores[index, :, y[active]]).max(1)
            better = reached > current
            levels[active[better]] = tries[index, number][better]
            height[active[better]] = reached[better]
            active = active[better & (reached <= 0)]
            if not len(active):
                break
        return height, levels

    def _gains(
        self, levels: Tensor, x: Tensor, y: Tensor, target: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """First-order gain of each pixel's best level, and that level, (N, H·W) each; s_target − s_y now, (N,)."""
        index = torch.arange(len(x))
        with torch.enable_grad():
            bits = self._bits(levels, x).requires_grad_()
            scores = self._scores(bits)
            margin = scores[index, target] - scores[index, y]
            (gradient,) = torch.autograd.grad(margin.sum(), bits)
        worth = torch.einsum("ntp,lt->nlp", gradient.flatten(2), self.patterns)
        worth = worth - worth.gather(1, levels[:, None])
        gains, choice = worth.masked_fill(~allowed, -torch.inf).max(1)
        return gains, choice, margin.detach()
