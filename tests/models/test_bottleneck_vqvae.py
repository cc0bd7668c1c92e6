"""The VQ-VAE that passes the whole image through one vector, and what it is made into for certificates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from src.models import SmoothVQVAE
from src.models.bottleneck_vqvae import BottleneckVQVAE

SMALL = {
    "hidden": 8,
    "residual_hidden": 4,
    "num_embeddings": 16,
    "embedding_dim": 4,
    "bottleneck": 6,
    "bottleneck_hidden": 16,
}


@pytest.fixture
def network(small_net: nn.Module) -> BottleneckVQVAE:
    return BottleneckVQVAE.guided_by(small_net, noise=0.4, **SMALL)


def test_an_image_becomes_codes_through_the_bottleneck_alone(network, images):
    network.eval()
    assert network.features(images).shape == (len(images), 6)
    expected = network(images[:1])
    network.features = lambda shown: network.summarize(network.encoder(images[:1])).expand(len(shown), -1)
    assert torch.allclose(network(images), expected.expand(len(images), -1, -1, -1), atol=1e-6)


def test_without_a_bottleneck_a_code_sees_its_own_part_of_the_image_alone(images):
    network = BottleneckVQVAE(**SMALL | {"bottleneck": 0}, residual_blocks=0).eval()
    changed = images.clone()
    changed[:, :, :4, :4] = 1 - changed[:, :, :4, :4]
    before, after = (network.spread(network.features(x)) for x in (images, changed))
    assert torch.equal(before, network.encoder(images))
    assert not torch.equal(before[..., 0, 0], after[..., 0, 0])
    assert torch.equal(before[..., 4:, 4:], after[..., 4:, 4:])
    assert network.head(network.features(images)).shape == (len(images), 10)


def test_head_and_classifier_add_their_cross_entropies(network, small_net, images, labels):
    features, half = torch.randn(len(images), 6), round(0.5 * len(images))
    of_head = 0.2 * F.cross_entropy(network.head(features), labels)
    of_classifier = 0.2 * F.cross_entropy(small_net(images[:half].clamp(0, 1)), labels[:half])
    losses = network.other_losses(features, images, (images, labels))
    assert losses["head"].item() == pytest.approx(of_head.item())
    assert losses["guidance"].item() == pytest.approx(of_classifier.item())
    assert set(BottleneckVQVAE(**SMALL).other_losses(features, images, (images, labels))) == {"head"}


@pytest.mark.parametrize("movement", [{"shift": 1}, {"warp": 0.15}])
def test_a_training_image_that_is_moved_is_asked_for_as_it_is_shown(network, real_digits, monkeypatch, movement):
    x, losses = real_digits[0][:64], []
    monkeypatch.setattr(network, "_loss", lambda seen, batch, stage: losses.append((seen, batch)))
    network.noise = 0.0
    for name, value in movement.items():
        setattr(network, name, value)
    network.training_step((x, real_digits[1][:64]), 0)
    seen, (asked, labels) = losses[0]
    assert torch.equal(seen, asked) and torch.equal(labels, real_digits[1][:64])
    assert (seen != x).flatten(1).any(1).float().mean() > 0.7


def test_copies_that_come_out_alike_cost_nothing_others_do(images, labels):
    network = SmoothVQVAE(noise=0.5, consistency=3.0, head=0.5, **SMALL).train()
    features, other = torch.randn(2, len(images), 6)
    shown = []
    network.features = lambda x: shown.append(x) or other
    losses = network.other_losses(features, images, (images, labels))
    ours, theirs = network.head(features).softmax(1), network.head(other).softmax(1)
    mean = (ours + theirs) / 2
    divergence = ((mean * (mean / ours).log()).sum(1) + (mean * (mean / theirs).log()).sum(1)) / 2
    assert losses["consistency"].item() == pytest.approx(1.5 * divergence.mean().item(), rel=1e-4)
    assert (shown[0] - images).std().item() == pytest.approx(0.5, rel=0.05)
    assert network.other_losses(other, images, (images, labels))["consistency"].item() == pytest.approx(0, abs=1e-6)
    assert set(network.eval().other_losses(features, images, (images, labels))) == {"head"}


def test_its_arguments_are_plain_and_rebuild_it(small_net):
    network = SmoothVQVAE.guided_by(small_net, noise=0.25, consistency=2.0, **SMALL)
    arguments = dict(network.hparams)
    assert (arguments["noise"], arguments["consistency"], arguments["hidden"]) == (0.25, 2.0, 8)
    assert "classifier" not in arguments
    SmoothVQVAE(**arguments).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    "wrong",
    [
        {"guided": 0.0},
        {"image_size": 30},
        {"shift": -1},
        {"warp": 1.0},
        {"bottleneck": -1},
        {"bottleneck_hidden": 0},
        {"consistency": -1.0},
    ],
)
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SmoothVQVAE(**SMALL | wrong)
