"""Bounds that hold in floating point, against exact rational arithmetic."""

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from src.evaluation.bounds import UNIT, CodeBounds, gamma
from src.models.intervals import BoundedEncoder, Interval

Vector = list[Fraction]


@pytest.fixture(params=range(4))
def encoder(request: pytest.FixtureRequest) -> BoundedEncoder:
    """A small network with statistics as if it were trained, some of them extreme."""
    torch.manual_seed(request.param)
    made = BoundedEncoder(2, 4, [(3, 3, 2, 1)], [5, 4])
    for layer in [*made.convolutions, *made.linears]:
        nn.init.normal_(layer.map.weight, 0, [1.0, 1e-3, 1e3, 1.0][request.param])
        nn.init.normal_(layer.gain)
        nn.init.normal_(layer.offset)
        layer.mean.normal_(0, 3)
        layer.variance.uniform_(0.1, 10)
    return made.eval().requires_grad_(False)


@pytest.fixture
def box() -> Interval:
    """Two boxes of bits, three of them free in each."""
    torch.manual_seed(5)
    centre = torch.randint(0, 2, (2, 2, 4, 4)).float()
    radius = torch.zeros_like(centre)
    for image in range(2):
        free = torch.randperm(32)[:3]
        centre[image].view(-1)[free], radius[image].view(-1)[free] = 0.5, 0.5
    return Interval(centre, radius)


def code_bounds(encoder: BoundedEncoder, dtype: torch.dtype) -> tuple[CodeBounds, list[Tensor]]:
    torch.manual_seed(9)
    last = [torch.randn(3, 4), torch.randn(3), torch.randn(6, 3)]
    return CodeBounds(encoder, *last, dtype), last


def corners(box: Interval, image: int) -> list[Tensor]:
    free = (box.radius[image].view(-1) > 0).nonzero().flatten()
    made = []
    for values in itertools.product((0.0, 1.0), repeat=len(free)):
        corner = box.centre[image].clone()
        corner.view(-1)[free] = torch.tensor(values)
        made.append(corner)
    return made


def exact(value: float) -> Fraction:
    return Fraction(value)


def exact_features(encoder: BoundedEncoder, bits: Tensor) -> Vector:
    """The encoder's features in rational arithmetic, its float32 scale and shift taken as they are."""
    maps = [[[exact(v) for v in row] for row in channel] for channel in bits.tolist()]
    for layer in encoder.convolutions:
        (scale, shift), weight = layer.scale_and_shift(), layer.map.weight.tolist()
        stride, padding, size = layer.map.stride[0], layer.map.padding[0], len(maps[0])
        out = (size + 2 * padding - len(weight[0][0])) // stride + 1
        made = []
        for o, kernel in enumerate(weight):
            rows = []
            for i, j in itertools.product(range(out), range(out)):
                total = Fraction(0)
                for c, a, b in itertools.product(range(len(maps)), range(len(kernel[0])), range(len(kernel[0]))):
                    row, column = i * stride - padding + a, j * stride - padding + b
                    if 0 <= row < size and 0 <= column < size:
                        total += exact(kernel[c][a][b]) * maps[c][row][column]
                rows.append(max(Fraction(0), total * exact(scale[o].item()) + exact(shift[o].item())))
            made.append([rows[i * out : (i + 1) * out] for i in range(out)])
        maps = made
    values = [v for channel in maps for row in channel for v in row]
    for layer in encoder.linears:
        scale, shift = layer.scale_and_shift()
        values = [
            max(Fraction(0), sum(exact(w) * v for w, v in zip(row, values, strict=True)) * exact(a) + exact(b))
            for row, a, b in zip(layer.map.weight.tolist(), scale.tolist(), shift.tolist(), strict=True)
        ]
    return values


def exact_scores(last: list[Tensor], features: Vector) -> Vector:
    """z·e_k − ½|e_k|² in rational arithmetic."""
    weight, bias, codebook = (tensor.tolist() for tensor in last)
    z = [
        sum((exact(w) * v for w, v in zip(row, features, strict=True)), exact(b))
        for row, b in zip(weight, bias, strict=True)
    ]
    return [
        sum(exact(e) * v for e, v in zip(code, z, strict=True)) - sum(exact(e) ** 2 for e in code) / 2
        for code in codebook
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_and_margins_hold_for_every_pattern_of_bits_in_exact_arithmetic(encoder, box, dtype):
    bounds, last = code_bounds(encoder, dtype)
    features, margins = bounds.features(box), bounds.margins(box)
    for image in range(2):
        low = [exact(c) - exact(r) for c, r in zip(*(v[image].tolist() for v in features), strict=True)]
        high = [exact(c) + exact(r) for c, r in zip(*(v[image].tolist() for v in features), strict=True)]
        for corner in corners(box, image):
            found = exact_features(encoder, corner)
            assert all(a <= v <= b for a, v, b in zip(low, found, high, strict=True))
            scores = exact_scores(last, found)
            for j, k in itertools.product(range(6), repeat=2):
                assert exact(margins[image, j, k].item()) <= scores[j] - scores[k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_free_bits_the_bounds_are_the_value_and_some_rounding(encoder, box, dtype):
    bounds, _ = code_bounds(encoder, dtype)
    for corner in corners(box, 0)[:3]:
        found = bounds.features(Interval(corner[None], torch.zeros_like(corner[None])))
        for value, centre, radius in zip(
            exact_features(encoder, corner), found.centre[0].tolist(), found.radius[0].tolist(), strict=True
        ):
            assert abs(value - exact(centre)) <= exact(radius)
        assert (found.radius <= 1e-3 * (1 + found.centre.abs().amax())).all()


def test_the_networks_own_float32_values_lie_within_whatever_the_order_of_its_sums(encoder, box):
    bounds, _ = code_bounds(encoder, torch.float64)
    features = bounds.features(box)
    low, high = features.centre - features.radius, features.centre + features.radius
    for image in range(2):
        for corner in corners(box, image):
            one = corner[None]
            for batch in (one, one.to(memory_format=torch.channels_last), corner.expand(9, -1, -1, -1)):
                found = encoder(batch).double()
                assert (found >= low[image]).all() and (found <= high[image]).all()


def test_a_code_that_is_nearest_somewhere_is_possible_and_one_that_is_far_is_not(encoder, box):
    bounds, last = code_bounds(encoder, torch.float64)
    possible = bounds.possible(box)
    for image in range(2):
        for corner in corners(box, image):
            scores = exact_scores(last, exact_features(encoder, corner))
            assert possible[image, scores.index(max(scores))]
    alone = bounds.possible(Interval(box.centre.round(), torch.zeros_like(box.radius)))
    assert (alone.sum(1) == 1).all()


def test_gamma_bounds_a_sum():
    assert gamma(1000) > 1000 * UNIT
    values = torch.rand(2000)
    in_order = torch.zeros(())
    for value in values:
        in_order = in_order + value
    total = values.double().sum().item()
    assert abs(float(in_order) - total) <= gamma(2000) * total
