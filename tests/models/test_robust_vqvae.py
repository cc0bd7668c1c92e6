"""The VQ-VAE that is trained on what an attacker can do behind a threshold."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from src.models import RobustVQVAE

SMALL = {
    "hidden": 8,
    "residual_hidden": 4,
    "num_embeddings": 16,
    "embedding_dim": 4,
    "bottleneck": 6,
    "bottleneck_hidden": 16,
}


@pytest.fixture
def classifier(small_net: nn.Module) -> nn.Module:
    return small_net


@pytest.fixture
def network(classifier: nn.Module) -> RobustVQVAE:
    made = RobustVQVAE.guided_by(classifier, noise=0.4, **SMALL)
    made.log_dict = lambda *_, **__: None  # there is no trainer
    return made


def test_what_it_is_shown_has_two_levels_and_only_what_noise_can_carry_over_is_flipped(network, images):
    flipped = torch.zeros_like(images, dtype=torch.bool)
    for _ in range(30):
        seen = network.corrupt(images)
        assert set(seen.unique().tolist()) <= {0.0, 1.0}
        flipped |= seen != (images > 0.5)
    assert not flipped[(images - 0.5).abs() > 0.4].any()
    assert flipped[(images - 0.5).abs() < 0.1].float().mean() > 0.9


def test_without_a_threshold_it_is_shown_grey_images(images, labels):
    network = RobustVQVAE(threshold=None, noise=0.2, **SMALL)
    blind, attacked = network.corrupt(images), network.shown_in_training(images, labels)
    assert 0 < (blind - images).abs().max() <= 0.2 + 1e-6
    assert 0.2 < (attacked - images).abs().max() <= network.eps + 1e-6
    assert len(attacked.unique()) > 2


@pytest.mark.parametrize("side", [1, 2, 4, 7])
def test_noise_comes_in_blocks(side):
    seen = RobustVQVAE(blocks=(side,), **SMALL).corrupt(torch.full((6, 1, 28, 28), 0.5))
    blocks = seen.unfold(2, side, side).unfold(3, side, side).flatten(4)
    assert (blocks == blocks[..., :1]).all()
    assert 0.2 < seen.mean() < 0.8


def test_its_own_attack_stays_in_the_ball_and_hurts(fit, real_digits):
    x, y = real_digits[0][:64], real_digits[1][:64]
    network = RobustVQVAE(steps=8, **SMALL).train()
    network.features = lambda shown: shown  # as if encoder and head were trained
    network.head = fit(lambda images: (images > 0.5).float())
    before = network.quantizer.codebook.clone()
    x_adv = network._attack(x, y)
    assert (x_adv - x).abs().max() <= network.eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert torch.equal(network.quantizer.codebook, before)
    losses = [F.cross_entropy(network.head((shown > 0.5).float()), y) for shown in (x, x_adv)]
    assert losses[1] > 2 * losses[0]


@pytest.mark.parametrize("scale", [1, 1000])
def test_its_own_attack_does_not_fade_as_the_head_grows_confident(scale, fit, real_digits):
    x, y = real_digits
    network = RobustVQVAE(threshold=None, eps=0.1, steps=8, **SMALL).train()
    network.features = lambda shown: shown  # as if encoder and head were trained
    network.head = fit(lambda images: images)
    for parameter in network.head[-1].parameters():
        parameter.mul_(scale)
    assert (network.head(network._attack(x, y)).argmax(1) == y).float().mean() < 0.3


def test_a_step_trains_the_network_and_leaves_the_classifier(network, classifier, real_digits):
    frozen = {name: value.clone() for name, value in classifier.state_dict().items()}
    batch = (real_digits[0][:32], real_digits[1][:32])
    network.train()
    network.training_step(batch, 0).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert all(torch.equal(value, frozen[name]) for name, value in classifier.state_dict().items())
    assert not any("classifier" in name for name in network.state_dict())


def test_the_share_of_a_batch_that_is_asked_for_is_attacked(network, monkeypatch, images, labels):
    attacked, seen = [], []
    monkeypatch.setattr(network, "_attack", lambda x, y: attacked.append(y) or torch.zeros_like(x))
    monkeypatch.setattr(network, "_loss", lambda shown, *_: seen.append(shown))
    network.share = 0.25
    network.training_step((images, labels), 0)
    assert torch.equal(attacked[0], labels[:3])
    assert not seen[0][:3].any() and seen[0][3:].any()
    network.steps = 0
    network.training_step((images, labels), 0)
    assert len(attacked) == 1 and seen[1][:3].any()


def test_its_arguments_are_plain_and_rebuild_it(network):
    arguments = dict(network.hparams)
    assert arguments["noise"] == 0.4 and arguments["hidden"] == 8 and "classifier" not in arguments
    RobustVQVAE(**arguments).load_state_dict(network.state_dict())


@pytest.mark.parametrize("wrong", [{"threshold": 1.0}, {"share": 1.5}, {"steps": -1}, {"blocks": ()}])
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RobustVQVAE(**SMALL, **wrong)
