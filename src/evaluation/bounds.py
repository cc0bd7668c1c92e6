"""Interval bounds of a network that hold in floating point too.

``docs/certificate.md`` proves what is stated here. u = 2⁻²⁴ is the unit roundoff of float32, and

    γ_n = n u / (1 − n u),

so that a float32 sum of n products is within γ_n Σ|w_i||x_i| of the exact one, in whatever order it is summed and with
or without fused operations (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). TF32, bfloat16
and Winograd's convolutions are outside of this, and so of the statement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.intervals import BoundedEncoder, BoundedLayer, Interval

UNIT = 2.0**-24  #: unit roundoff of float32

#: Added to every radius, for results that are too small for a normal float32.
UNDERFLOW = 1e-30


def gamma(n: int) -> float:
    """γ_n, for n·u < 1."""
    return n * UNIT / (1 - n * UNIT)


@dataclass(frozen=True)
class Stage:
    """ReLU(a · (W * x) + b), as constants: a layer of an encoder in ``eval()``."""

    weight: Tensor  #: (out, in, k, k) of a convolution, (out, in) of a linear map
    stride: int
    padding: int
    scale: Tensor  #: a, (out,)
    shift: Tensor  #: b, (out,)
    size: Tensor  #: |offset| + |mean · a|, what the rounding of b is relative to, (out,)

    @classmethod
    def of(cls, layer: BoundedLayer, dtype: torch.dtype) -> "Stage":
        """The stage of a layer in ``eval()``."""
        map, (scale, shift) = layer.map, layer.scale_and_shift()
        stride, padding = (map.stride[0], map.padding[0]) if isinstance(map, torch.nn.Conv2d) else (1, 0)
        size = layer.offset.abs() + (layer.mean * scale).abs()
        weight, scale, shift, size = (tensor.detach().to(dtype) for tensor in (map.weight, scale, shift, size))
        return cls(weight, stride, int(padding), scale, shift, size)

    def bounds(self, x: Interval) -> Interval:
        """An interval that holds the stage's exact values and its float32 values, for all exact and float32 ``x`` in
        the interval given. Computed in the type of ``x``."""
        size = x.centre.abs() + x.radius  # of the largest input
        eta = slack(self.weight[0].numel(), x.centre.dtype)
        scale = self._along(self.scale.abs())
        centre = self._map(x.centre, self.weight) * self._along(self.scale) + self._along(self.shift)
        # |a| |W| r + η (|a| |W| m + B) = |a| (|W| (r + η m)) + η B
        radius = self._map(x.radius + eta * size, self.weight.abs()) * scale
        radius = radius + eta * self._along(self.size) + UNDERFLOW
        high, low = F.relu(centre + radius), F.relu(centre - radius)
        # The middle of two numbers is rounded again: u of the larger, twice.
        return Interval((high + low) / 2, (high - low) / 2 + 4 * UNIT * high)

    def _map(self, x: Tensor, weight: Tensor) -> Tensor:
        if weight.ndim == 4:
            return F.conv2d(x, weight, None, self.stride, self.padding)
        return F.linear(x.flatten(1), weight)

    def _along(self, v: Tensor) -> Tensor:
        return v.view(1, -1, 1, 1) if self.weight.ndim == 4 else v


def slack(fan_in: int, dtype: torch.dtype) -> float:
    """η of a layer of ``fan_in`` products an output, if its bounds are computed in ``dtype``, float32 or float64: what
    rounding comes to, relative to |a| |W| m + B. It is the network's own rounding, and in float32 as much again for
    each of centre and radius."""
    return gamma(fan_in + 32) if dtype == torch.float64 else gamma(4 * fan_in + 128)


class CodeBounds:
    """Which codes of a quantizer can be the nearest over boxes of the encoder's inputs.

    Args:
        encoder: in ``eval()``; copied.
        weight, bias: (D, F) and (D,), of the linear map from the encoder's features to z.
        codebook: (K, D).
        dtype: what the bounds are computed in, float32 or float64.
    """

    def __init__(
        self,
        encoder: BoundedEncoder,
        weight: Tensor,
        bias: Tensor,
        codebook: Tensor,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        layers: Sequence[BoundedLayer] = [*encoder.convolutions, *encoder.linears]
        self.stages = [Stage.of(layer, dtype) for layer in layers]
        self.weight, self.bias, self.codebook = (v.detach().to(dtype) for v in (weight, bias, codebook))
        exact = [v.detach().double() for v in (weight, bias, codebook)]
        scores, offsets = exact[2] @ exact[0], exact[2] @ exact[1] - exact[2].square().sum(1) / 2
        self.differences = (scores[:, None] - scores[None]).flatten(0, 1).to(dtype)
        self.offsets = (offsets[:, None] - offsets[None]).flatten().to(dtype)
        self.number, self.dtype = len(codebook), dtype

    def features(self, box: Interval) -> Interval:
        """The encoder's features (N, F) over boxes of inputs (N, C, H, W)."""
        box = Interval(box.centre.to(self.dtype), box.radius.to(self.dtype))
        for stage in self.stages:
            box = stage.bounds(box)
        return box

    def margins(self, box: Interval) -> Tensor:
        """Lower bounds (N, K, K) over boxes of inputs (N, C, H, W) of how much nearer code j is than code k.

            [½|e_k|² − z·e_k] − [½|e_j|² − z·e_j] = (e_j − e_k)·z − ½(|e_j|² − |e_k|²),

        less what all rounding may change in it. Entry [n, j, k] > 0: code k is nearest nowhere in box n.
        """
        features = self.features(box)
        least = F.linear(features.centre, self.differences, self.offsets)
        least = least - F.linear(features.radius, self.differences.abs())
        return least.view(-1, self.number, self.number) - self._rounding(features)

    def possible(self, box: Interval) -> Tensor:
        """Which codes can be the nearest somewhere in each box, (N, K), bool. At least one can."""
        return ~(self.margins(box) > 0).any(1)

    def _rounding(self, features: Interval) -> Tensor:
        """What rounding can change in the margins, (N, K, K): of z and the scores as the network computes them, of the
        differences as they were folded, and of the bounds."""
        size = F.linear(features.centre.abs() + features.radius, self.weight.abs(), self.bias.abs())  # of z, (N, D)
        of_scores = F.linear(size, self.codebook.abs(), self.codebook.square().sum(1) / 2)  # (N, K)
        terms = self.weight.shape[1] + 2 * self.weight.shape[0]
        return slack(terms, self.dtype) * (of_scores[:, :, None] + of_scores[:, None, :]) + UNDERFLOW
