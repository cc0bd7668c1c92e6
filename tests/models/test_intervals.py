"""Interval bounds as the training of a certified VQ-VAE computes them."""

import pytest
import torch
from torch import Tensor

from src.models.intervals import BoundedEncoder, Interval, least_margins


@pytest.fixture
def encoder() -> BoundedEncoder:
    torch.manual_seed(0)
    return BoundedEncoder(2, 8, [(6, 3, 2, 1), (8, 3, 1, 1)], [12, 10])


@pytest.fixture
def box() -> Interval:
    torch.manual_seed(1)
    return Interval(torch.rand(5, 2, 8, 8), 0.1 * torch.rand(5, 2, 8, 8))


def points(box: Interval, number: int = 200) -> list[Tensor]:
    return [box.centre + box.radius * (2 * torch.rand_like(box.centre) - 1) for _ in range(number)]


def test_the_bounds_hold_what_is_inside_and_are_not_arbitrarily_wide(encoder, box):
    encoder.eval()
    bounds = encoder.bounds(box)
    for x in points(box):
        assert ((encoder(x) - bounds.centre).abs() <= bounds.radius + 1e-5).all()
    tiny = encoder.bounds(Interval(box.centre, box.radius * 1e-6))
    assert (tiny.radius < 1e-3).all()
    torch.testing.assert_close(tiny.centre, encoder(box.centre), atol=1e-3, rtol=1e-3)


def test_one_layer_is_exact(box):
    torch.manual_seed(0)
    encoder = BoundedEncoder(2, 8, [(6, 8, 1, 0)], []).eval()  # one neuron sees all
    bounds = encoder.bounds(box)
    weight = encoder.convolutions[0].map.weight
    for channel in range(6):
        for sign in (1, -1):
            corner = encoder(box.centre + sign * box.radius * weight[channel].sign())[:, channel]
            torch.testing.assert_close(corner, bounds.centre[:, channel] + sign * bounds.radius[:, channel])


def test_what_the_centres_are_normalized_by_is_kept_and_used_in_eval(encoder, box):
    before = encoder.convolutions[0].mean.clone()
    for _ in range(300):
        trained = encoder.train().bounds(box)
    assert not torch.equal(encoder.convolutions[0].mean, before)
    kept = encoder.eval().bounds(box)
    torch.testing.assert_close(kept.centre, trained.centre, atol=1e-3, rtol=1e-3)
    mean = encoder.convolutions[0].mean.clone()
    encoder.bounds(box)
    assert torch.equal(encoder.convolutions[0].mean, mean)


def test_margins_are_the_least_of_all_corners():
    torch.manual_seed(0)
    features = Interval(torch.randn(4, 3), torch.rand(4, 3))
    weight, bias, y = torch.randn(5, 3), torch.randn(5), torch.tensor([0, 4, 2, 2])
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # (8, 3)
    scores = (features.centre[:, None] + features.radius[:, None] * corners) @ weight.T + bias  # (4, 8, 5)
    own = scores.gather(2, y.view(4, 1, 1).expand(4, 8, 1))
    torch.testing.assert_close(least_margins(features, weight, bias, y), (own - scores).amin(1), atol=1e-5, rtol=1e-5)
