"""The attack on the bits behind thresholds, against exhaustive enumeration."""

import pytest
import torch
from torch import Tensor

from src.evaluation.bit_attack import BitAttack
from src.models import CertifiedVQVAE
from tests.evaluation.exhaustion import nearly_black_and_white, outcomes, small_network

EPS = 0.2


@pytest.fixture(scope="module", params=[(0.4, 0.6), (0.65, 0.35, 0.5)], ids=["two thresholds", "three, in no order"])
def network(request: pytest.FixtureRequest) -> CertifiedVQVAE:
    return small_network(*request.param)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return nearly_black_and_white(6)


def codes(network: CertifiedVQVAE, x: Tensor) -> Tensor:
    return network.nearest(network.to_code(network.encoder(network.bits(x))))


def test_it_stays_within_eps_and_finds_most_of_what_enumeration_finds(network, images):
    y = codes(network, images)
    found = BitAttack(network)(images, y, EPS)
    assert ((found - images).abs() <= EPS + 1e-6).all() and found.min() >= 0 and found.max() <= 1
    fooled = codes(network, found) != y
    possible = torch.tensor(
        [
            outcomes(network, lambda tried: codes(network, tried), x, EPS, at_most=4**6) != {int(label)}
            for x, label in zip(images, y, strict=True)
        ]
    )
    assert not (fooled & ~possible).any()
    assert possible.sum() >= 10 and fooled.sum() >= 0.8 * possible.sum()


def test_without_a_budget_images_stay_as_they_are(network, images):
    assert torch.equal(BitAttack(network)(images, codes(network, images), 0.0), images)


def test_the_size_of_a_batch_changes_nothing(network, images, monkeypatch):
    y = codes(network, images)
    together = BitAttack(network)(images, y, EPS)
    monkeypatch.setattr("src.evaluation.bit_attack.BATCH", 7)
    assert torch.equal(BitAttack(network)(images, y, EPS), together)
