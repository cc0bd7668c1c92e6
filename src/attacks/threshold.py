"""An attack for defenses that quantize: a search over which pixels to push across a threshold.

Behind a quantizer an image is a combination of levels, and eps matters only where it can carry a pixel from one level
to another. The gradient there is a straight-through guess. It is used for nothing but the order in which moves are
tried; what is done is decided by the model's answer to each try.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.attacks.budget import check_adversarial, check_budget, check_labels
from src.attacks.margin import Best, logits_of, margin, margin_of
from src.precision import Precision, computing_in

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
    targets: int = 3,
    early_stop: bool = False,
    precision: Precision = "float32",
) -> Tensor:
    """Greedy search over the pixels that ``eps`` can carry across a threshold: ranked by gradient, verified by value.

    A pixel is moved by the whole of eps, up or down, if that carries it across at least one threshold; else it stays.
    A step ranks all single moves, taking one back included, by what the gradient promises, tries the first
    ``candidates`` of them and makes the one that raises the loss most. If none raises it, the next step tries the next
    ones: before its steps are used up an image is given up only if no single move helps. Ranking pixels by gradient is
    Papernot et al.'s saliency (arXiv:1511.07528), search over the corners of the ball Moon et al.'s combinatorial
    attack (arXiv:1905.06635).

    One search ends at one of many patterns that no single move betters. So it is made several times, each time towards
    one of the classes that the model finds likeliest at ``x`` besides ``y``, and the outcome with the largest margin is
    taken. The loss is the logit of that class minus that of ``y``, not the cross-entropy: tries are compared by its
    value, see :mod:`src.attacks.margin`. There is nothing random in it.

    Args:
        model: images → logits (N, K), with a gradient, if only a straight-through one. Without one, moves are tried in
            the order of the pixels.
        x: clean images (N, C, H, W), float, in [0, 1].
        y: true labels (N,), int64.
        eps: L∞ budget in pixel units, in [0, 1]; 0 returns ``x`` itself.
        thresholds: where the defense steps from level to level, in pixel units, each in (0, 1): a value belongs above a
            threshold if it is larger. None at all: for defenses without thresholds; every pixel may move.
        steps: of each search, ≥ 1. A step moves one pixel at most.
        candidates: moves tried in a step, ≥ 1; each costs a forward pass of the image.
        targets: searches, ≥ 1; no more are made than there are other classes.
        early_stop: leave images as they are once they fool ``model``; as for :func:`src.attacks.pgd`.
        precision: of the gradient that ranks the moves, as for the other attacks; they are tried in float32.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``. Every pixel is x, or x ± eps clipped.

    Examples:
        Behind a threshold of 0.5 the two pixels 0.6 and 0.1 are 1 and 0. Only the first can be carried across.

        >>> import torch
        >>> from src.straight_through import straight_through
        >>> def binarized(x):
        ...     return straight_through((x > 0.5).float(), x).flatten(1)
        >>> x, y = torch.tensor([[[[0.6, 0.1]]]]), torch.tensor([0])
        >>> threshold_crossing(binarized, x, y, eps=0.25)
        tensor([[[[0.3500, 0.1000]]]])

    Raises:
        ValueError: arguments out of range, or a model whose output is not (N, K).
    """
    check_budget(x, y, eps, steps)
    if candidates < 1 or targets < 1:
        raise ValueError(f"candidates and targets must be at least 1; got {candidates} and {targets}")
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds must be in (0, 1), in pixel units; got {list(thresholds)}")
    if eps == 0 or len(x) == 0:
        return x
    search = _Search(model, x, y, eps, thresholds, candidates, precision)
    best = Best(x)
    for rivals in _rivals(model, x, y, targets):
        standing = (best.margins <= 0).nonzero().flatten() if early_stop else torch.arange(len(x), device=x.device)
        if not len(standing):
            break
        x_adv = search.climb(rivals, standing, steps, early_stop)
        best.offer(x_adv, margin(model, x_adv, y))
    return check_adversarial(best.images, x, eps)


def _rivals(model: nn.Module, x: Tensor, y: Tensor, targets: int) -> Tensor:
    """The classes with the highest logits besides ``y``, highest first: (targets, N)."""
    with torch.no_grad():
        logits = logits_of(model, x)
    check_labels(y, logits.shape[1])
    others = logits.scatter(1, y.unsqueeze(1), NEVER)
    return others.topk(min(targets, logits.shape[1] - 1), dim=1).indices.T


class _Search:
    """The settings that N images of P = C·H·W pixels can be in, and the way from one to a better one.

    Settings are (N, P), each pixel's DOWN, STAY or UP. A move puts one pixel into one setting, and is numbered
    setting · P + pixel.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: float,
        thresholds: Sequence[float],
        candidates: int,
        precision: Precision,
    ) -> None:
        self.model, self.x, self.y, self.precision = model, x, y, precision
        self.values = torch.stack([(x - eps).clamp(min=0), x, (x + eps).clamp(max=1)], 1).flatten(2)  # (N, 3, P)
        #: What the defense makes of the values, up to scale
        self.levels = self.values
        if len(thresholds):
            self.levels = torch.stack([(self.values > threshold).to(x.dtype) for threshold in thresholds]).sum(0)
        self.possible = self.levels != self.levels[:, STAY : STAY + 1]
        self.possible[:, STAY] = True
        self.candidates, self.pixels = min(candidates, self.values[0].numel()), self.values.shape[2]

    def climb(self, rivals: Tensor, active: Tensor, steps: int, early_stop: bool) -> Tensor:
        """Images (N, C, H, W) after ``steps`` steps, or earlier where no single move brings one nearer to its rival.

        Args:
            rivals: the class that each image is to become, (N,).
            active: indices of the images to work on; the others stay as they are.
            early_stop: leave images as they are once they are wrong.
        """
        settings = torch.full_like(self.possible[:, STAY], STAY, dtype=torch.int64)
        tried = torch.zeros_like(self.possible)  # since the image's last move
        for _ in range(steps):
            wrong, reached, gains = self._look(active, settings, rivals)
            gains = gains.masked_fill(tried[active], NEVER)
            promises, moves = gains.flatten(1).topk(self.candidates)
            mask = promises[:, 0] > NEVER
            if early_stop:
                mask &= ~wrong
            active, reached, promises, moves = active[mask], reached[mask], promises[mask], moves[mask]
            if not len(active):
                break
            outcomes = self._try(active, settings, rivals, moves).masked_fill(promises == NEVER, NEVER)
            outcome, first = outcomes.max(1)
            better = outcome > reached
            made = moves.gather(1, first.unsqueeze(1))[better]
            settings[active[better].unsqueeze(1), made % self.pixels] = made // self.pixels
            tried[active] = tried[active].flatten(1).scatter(1, moves, True).view_as(tried[active])
            tried[active[better]] = False
        return self._images(torch.arange(len(self.x), device=self.x.device), settings)

    def _images(self, active: Tensor, settings: Tensor) -> Tensor:
        """The ``active`` images in their settings, (n, C, H, W)."""
        values = self.values[active].gather(1, settings[active].unsqueeze(1))
        return values.view(-1, *self.x.shape[1:])

    def _look(self, active: Tensor, settings: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the ``active`` images are wrong (n,), their loss (n,), and its gain by each move to first order
        (n, 3, P): gradient times change of level, −inf where there is no such move."""
        with torch.enable_grad():
            images = self._images(active, settings).requires_grad_(True)
            with computing_in(self.precision, images.device):
                logits = logits_of(self.model, images)
            reached = margin_of(logits, self.y[active], rivals[active])
            gradient = _gradient(reached, images)
        if self.precision != "float32":  # what is reached is compared with tries in float32
            with torch.no_grad():
                logits = logits_of(self.model, images)
            reached = margin_of(logits, self.y[active], rivals[active])
        current = settings[active].unsqueeze(1)
        levels = self.levels[active]
        gains = gradient.flatten(1).unsqueeze(1) * (levels - levels.gather(1, current))
        gains = gains.nan_to_num().masked_fill(~self.possible[active], NEVER).scatter(1, current, NEVER)
        return margin_of(logits.detach(), self.y[active]) > 0, reached.detach(), gains

    def _try(self, active: Tensor, settings: Tensor, rivals: Tensor, moves: Tensor) -> Tensor:
        """The loss (n, k) of ``active`` images after each of their ``moves`` (n, k), made alone."""
        k = moves.shape[1]
        outcomes = []
        chunk = max(1, CHUNK.get(moves.device.type, 128) // k)
        for part, tries in zip(active.split(chunk), moves.split(chunk), strict=True):
            images = self._images(part, settings).flatten(1).unsqueeze(1).repeat(1, k, 1)
            values = self.values[part].flatten(1).gather(1, tries)
            images.scatter_(2, (tries % self.pixels).unsqueeze(2), values.unsqueeze(2))
            labels, aims = (classes[part].repeat_interleave(k) for classes in (self.y, rivals))
            with torch.no_grad():
                logits = logits_of(self.model, images.view(-1, *self.x.shape[1:]))
            outcomes.append(margin_of(logits, labels, aims).view(-1, k))
        return torch.cat(outcomes)


def _gradient(loss: Tensor, images: Tensor) -> Tensor:
    """The gradient of each image's loss, zero where there is none."""
    gradient = torch.autograd.grad(loss.sum(), images, allow_unused=True)[0] if loss.requires_grad else None
    return torch.zeros_like(images) if gradient is None else gradient
