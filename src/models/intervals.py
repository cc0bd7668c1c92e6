"""Interval bounds through a small network, as its training needs them: in float32, without care for rounding.

What a certificate rests on is computed apart from this, by :mod:`src.evaluation.bounds`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Interval(NamedTuple):
    """All tensors x with |x − centre| ≤ radius in each entry; both of one shape, radius ≥ 0."""

    centre: Tensor
    radius: Tensor


class BoundedLayer(nn.Module):
    """ReLU(a · (W * x) + b): a convolution or linear map without bias, batch normalization, ReLU.

    In training a and b come from the batch's mean and variance, those of the centres if intervals are passed
    (:meth:`bounds`). In ``eval()`` they are constants, made of the running averages.

    Args:
        map: ``nn.Conv2d`` or ``nn.Linear``, without bias. Its weights are drawn anew, from a normal distribution
            with standard deviation √(2π) / fan-in. With it the intervals neither grow nor shrink from layer to layer
            (Shi et al., arXiv:2103.17268, section 4.1).
        momentum: share of a batch in the running averages, in (0, 1].
        epsilon: added to the variance, > 0.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, map: nn.Conv2d | nn.Linear, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        draw_for_intervals(map.weight)
        channels = map.weight.shape[0]
        self.map, self.momentum, self.epsilon = map, momentum, epsilon
        self.gain = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Activations of ``x``."""
        y = self.map(x)
        scale, shift = (_along_channels(v, y) for v in self.scale_and_shift(y))
        return F.relu(y * scale + shift)

    def bounds(self, x: Interval) -> Interval:
        """An interval that holds the activations of all tensors in ``x``."""
        centre, radius = self.map(x.centre), self._map_of_radius(x.radius)
        scale, shift = (_along_channels(v, centre) for v in self.scale_and_shift(centre))
        centre, radius = centre * scale + shift, radius * scale.abs()
        high, low = F.relu(centre + radius), F.relu(centre - radius)
        return Interval((high + low) * 0.5, (high - low) * 0.5)

    def scale_and_shift(self, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A and b, one a channel; ``y`` is the batch that they are of in training."""
        mean, variance = self.mean, self.variance
        if self.training and y is not None:
            axes = [d for d in range(y.ndim) if d != 1]
            variance, mean = torch.var_mean(y, axes, correction=0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        scale = self.gain * torch.rsqrt(variance + self.epsilon)
        return scale, self.offset - mean * scale

    def _map_of_radius(self, radius: Tensor) -> Tensor:
        """|W| * radius."""
        if isinstance(self.map, nn.Conv2d):
            return F.conv2d(radius, self.map.weight.abs(), None, self.map.stride, self.map.padding)
        return F.linear(radius, self.map.weight.abs())


class BoundedEncoder(nn.Module):
    """Convolutions, then linear layers, all :class:`BoundedLayer`; images (N, C, H, W) to vectors (N, F).

    Args:
        in_channels, image_size: C and H = W.
        convolutions: (channels, kernel, stride, padding) of each.
        linears: width of each; the last is F.
    """

    def __init__(
        self, in_channels: int, image_size: int, convolutions: Sequence[Sequence[int]], linears: Sequence[int]
    ) -> None:
        super().__init__()
        layers, channels, size = [], in_channels, image_size
        for width, kernel, stride, padding in convolutions:
            layers.append(BoundedLayer(nn.Conv2d(channels, width, kernel, stride, padding, bias=False)))
            channels, size = width, (size + 2 * padding - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers)
        layers, inputs = [], channels * size * size
        for width in linears:
            layers.append(BoundedLayer(nn.Linear(inputs, width, bias=False)))
            inputs = width
        self.linears = nn.Sequential(*layers)
        self.width = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (N, F) of images ``x`` (N, C, H, W)."""
        return self.linears(self.convolutions(x).flatten(1))

    def bounds(self, x: Interval) -> Interval:
        """An interval of vectors (N, F) that holds those of all images in ``x``."""
        for layer in self.convolutions:
            x = layer.bounds(x)  # type: ignore[operator]
        x = Interval(x.centre.flatten(1), x.radius.flatten(1))
        for layer in self.linears:
            x = layer.bounds(x)  # type: ignore[operator]
        return x


def draw_for_intervals(weight: Tensor) -> None:
    """Draw a weight (out, in, …) from N(0, 2π / fan-in²), in place."""
    nn.init.normal_(weight, 0, math.sqrt(2 * math.pi) / weight[0].numel())


def least_margins(features: Interval, weight: Tensor, bias: Tensor, y: Tensor) -> Tensor:
    """Lower bounds of (s_y − s_k)(h) over an interval of ``features`` h, for the scores s(h) = ``weight`` h + ``bias``.

    The last linear map is folded into the differences ("elision of the last layer"): each is one linear function,
    whose minimum over the interval is exact, where bounds of the two scores would not know that h is one.

    Args:
        features: (N, F).
        weight, bias: (K, F) and (K,).
        y: (N,), in [0, K).

    Returns:
        (N, K); zero in column y.
    """
    number = len(weight)
    differences = (weight[:, None] - weight[None]).flatten(0, 1)  # K² is small, and one product for all y is faster
    offsets = (bias[:, None] - bias[None]).flatten()
    least = F.linear(features.centre, differences, offsets) - F.linear(features.radius, differences.abs())
    return least.view(-1, number, number)[torch.arange(len(y), device=y.device), y]


def _along_channels(v: Tensor, like: Tensor) -> Tensor:
    return v.view(1, -1, *(1,) * (like.ndim - 2))
