"""An attack for defenses that quantize: a search over which pixels to push across a threshold.

Behind a quantizer an image is a combination of levels, and eps matters only where it can carry a pixel from one level
to another. The gradient there is a straight-through guess. It is used for nothing but the order in which moves are
tried; what is done is decided by the model's answer to each try.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.attacks.budget import check_adversarial, check_budget
from src.attacks.margin import Best, margin, margin_and_gradient
from src.attacks.verdict import may_stop

#: Images in one forward pass of the tries: bounds memory, and on a CPU keeps activations in the cache.
CHUNK = {"cpu": 128, "cuda": 4096}

DOWN, STAY, UP = 0, 1, 2  #: settings of a pixel: x − eps, x, x + eps
NEVER = float("-inf")


def threshold_crossing(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    thresholds: Sequence[float] = (0.5,),
    steps: int = 40,
    candidates: int = 16,
) -> Tensor:
    """Greedy search over the pixels that ``eps`` can carry across a threshold: ranked by gradient, verified by value.

    A pixel is moved by the whole of eps, up or down, if that carries it across at least one threshold; else it stays.
    A step ranks all single moves, taking one back included, by what the gradient promises, tries the first
    ``candidates`` of them and makes the one with the largest margin, if that is larger than before. If none is, the
    next step tries the next ones: an image is given up only when no single move helps. Ranking pixels by gradient is
    Papernot et al.'s saliency (arXiv:1511.07528), search over the corners of the ball Moon et al.'s combinatorial
    attack (arXiv:1905.06635). The search is made twice, from ``x`` and from the corner that the gradient at ``x``
    points to, and the better outcome taken.

    The loss is the margin, not the cross-entropy: tries are compared by its value, see :mod:`src.attacks.margin`.
    There is nothing random in it.

    Args:
        model: images → logits (N, K), with a gradient, if only a straight-through one. Without one, moves are tried in
            the order of the pixels.
        x: clean images (N, C, H, W), float, in [0, 1].
        y: true labels (N,), int64.
        eps: L∞ budget in pixel units, in [0, 1]; 0 returns ``x`` itself.
        thresholds: where the defense steps from level to level, in pixel units, each in (0, 1): a value belongs above a
            threshold if it is larger. None at all: for defenses without thresholds; every pixel may move.
        steps: of each of the two searches, ≥ 1. A step moves one pixel at most.
        candidates: moves tried in a step, ≥ 1; each costs a forward pass of the image.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``. Every pixel is x, or x ± eps clipped.

    Raises:
        ValueError: arguments out of range, or a model whose output is not (N, K).
    """
    check_budget(x, y, eps, steps)
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1; got {candidates}")
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds must be in (0, 1), in pixel units; got {list(thresholds)}")
    if eps == 0 or len(x) == 0:
        return x
    search = _Search(model, x, y, eps, thresholds, candidates)
    rests, best = may_stop(model, x), Best(x)
    for start in (search.untouched, search.along_gradient):
        standing = (best.margins <= 0).nonzero().flatten() if rests else torch.arange(len(x), device=x.device)
        settings = search.climb(start(), standing, steps, rests)
        with torch.no_grad():
            best.offer(found := search.images(settings), margin(model, found, y))
    return check_adversarial(best.images, x, eps)


class _Search:
    """The settings a batch of N images of P = C·H·W pixels can be in, and the way from one to a better one.

    Settings are (N, P), each pixel's DOWN, STAY or UP. A move puts one pixel into one setting, and is numbered
    setting · P + pixel.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, eps: float, thresholds: Sequence[float], candidates: int
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self.values = torch.stack([(x - eps).clamp(min=0), x, (x + eps).clamp(max=1)], 1).flatten(2)  # (N, 3, P)
        #: What the defense makes of the values, up to scale
        self.levels = self.values
        if len(thresholds):
            self.levels = torch.stack([(self.values > each).to(x.dtype) for each in thresholds]).sum(0)
        self.possible = self.levels != self.levels[:, STAY : STAY + 1]
        self.possible[:, STAY] = True
        self.candidates = min(candidates, self.values[0].numel())

    def untouched(self) -> Tensor:
        """The settings of the clean images."""
        return torch.full_like(self.values[:, STAY], STAY, dtype=torch.int64)

    def along_gradient(self) -> Tensor:
        """The settings that the gradient at the clean images promises most of: FGSM, where it can cross."""
        everything = torch.arange(len(self.x), device=self.x.device)
        gain, settings = self._promises(everything, self.untouched())[1].max(1)
        return settings.masked_fill(gain <= 0, STAY)

    def images(self, settings: Tensor) -> Tensor:
        """The images (N, C, H, W) in these settings."""
        return self.values.gather(1, settings.unsqueeze(1)).view_as(self.x)

    def climb(self, settings: Tensor, active: Tensor, steps: int, rests: bool) -> Tensor:
        """Settings from which no single move raises the margin, or which ``steps`` steps have come to.

        Args:
            settings: the start, (N, P).
            active: indices of the images to work on.
            rests: leave images that are wrong by now.
        """
        settings = settings.clone()
        tried = torch.zeros_like(self.possible)  # since the image's last move
        for _ in range(steps):
            margins, gains = self._promises(active, settings[active])
            gains = gains.masked_fill(tried[active], NEVER).scatter(1, settings[active].unsqueeze(1), NEVER)
            promised, moves = gains.flatten(1).topk(self.candidates)
            going = promised[:, 0] > NEVER
            if rests:
                going &= margins <= 0
            active, margins, promised, moves = active[going], margins[going], promised[going], moves[going]
            if not len(active):
                break
            outcomes = self._try(active, settings[active], moves).masked_fill(promised == NEVER, NEVER)
            outcome, first = outcomes.max(1)
            better = outcome > margins
            self._make(settings, active[better], moves.gather(1, first.unsqueeze(1))[better])
            tried[active] = tried[active].flatten(1).scatter(1, moves, True).view_as(tried[active])
            tried[active[better]] = False
        return settings

    def _promises(self, active: Tensor, settings: Tensor) -> tuple[Tensor, Tensor]:
        """The margin (n,) of ``active`` images in their ``settings`` (n, P), and to first order what it would gain by
        each move (n, 3, P): gradient times change of level, −inf where there is no such move."""
        values, levels = self.values[active], self.levels[active]
        images = values.gather(1, settings.unsqueeze(1)).view(-1, *self.x.shape[1:])
        margins, gradient = margin_and_gradient(self.model, images, self.y[active])
        gains = gradient.flatten(1).unsqueeze(1) * (levels - levels.gather(1, settings.unsqueeze(1)))
        return margins, gains.nan_to_num().masked_fill(~self.possible[active], NEVER)

    def _try(self, active: Tensor, settings: Tensor, moves: Tensor) -> Tensor:
        """The margin (n, k) of ``active`` images after each of their ``moves`` (n, k), made alone."""
        k, pixels = moves.shape[1], self.values.shape[2]
        chunk = max(1, CHUNK.get(active.device.type, 128) // k)
        outcomes = []
        for part in torch.arange(len(active), device=active.device).split(chunk):
            values = self.values[active[part]]
            images = values.gather(1, settings[part].unsqueeze(1)).expand(-1, k, -1).clone()
            moved = values.flatten(1).gather(1, moves[part])
            images.scatter_(2, (moves[part] % pixels).unsqueeze(2), moved.unsqueeze(2))
            labels = self.y[active[part]].repeat_interleave(k)
            with torch.no_grad():
                outcomes.append(margin(self.model, images.view(-1, *self.x.shape[1:]), labels).view(-1, k))
        return torch.cat(outcomes)

    def _make(self, settings: Tensor, active: Tensor, moves: Tensor) -> None:
        """Write one move of each ``active`` image (n, 1) into ``settings``."""
        pixels = self.values.shape[2]
        settings[active.unsqueeze(1), moves % pixels] = moves // pixels
