"""What is no batch of images in [0, 1] is refused in one line by whoever takes images."""

import pytest
import torch
from torch import nn

from src.defended import DefendedClassifier
from src.defenses import Binarize, Identity, KMeansCompression, VQVAEPurifier
from src.models import VQVAE
from src.straight_through import StraightThrough


def vqvae() -> VQVAEPurifier:
    return VQVAEPurifier(VQVAE(hidden=8, residual_hidden=4, num_embeddings=4))


TAKERS = {
    "k-means": lambda: KMeansCompression(k=3),
    "binarize": Binarize,
    "vqvae": vqvae,
    "defended classifier": lambda: DefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), Identity()),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: (255 * x).byte(), "got torch.uint8: divide by 255 first"),
        (lambda x: 255 * x, "got 0 to 255: divide by 255 first"),
        (lambda x: (255 * x).round().double(), "got 0 to 255: divide by 255 first"),
        (lambda x: x.half(), "must be float32; got torch.float16"),
        (lambda x: x.bfloat16(), "must be float32; got torch.bfloat16"),
        (lambda x: x[0], r"must have the shape \(N, C, H, W\); got \(1, 28, 28\)"),
    ],
)
def test_what_is_no_image_in_0_1_is_refused(images, taker, change, said):
    x = images.clone()
    x[:, :, 0, 0], x[:, :, 0, 1] = 0, 1
    with pytest.raises(ValueError, match=said) as refused:
        TAKERS[taker]()(change(x))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("taker", TAKERS)
def test_images_noise_and_an_empty_batch_pass(images, taker):
    takes = TAKERS[taker]()
    for x in (images, images + 3 * torch.randn_like(images), torch.zeros_like(images), images[:0]):
        assert len(takes(x)) == len(x)


@pytest.mark.parametrize("side", [30, 27])
def test_a_size_that_a_vqvae_cannot_give_back_is_refused(side):
    with pytest.raises(ValueError, match=rf"divisible by 4; got \(2, 1, {side}, {side}\)"):
        vqvae()(torch.rand(2, 1, side, side))


@pytest.mark.parametrize("defense", [nn.AvgPool2d(2), StraightThrough(nn.AvgPool2d(2))])
def test_a_defense_that_changes_the_size_is_refused(images, small_net, defense):
    with pytest.raises(ValueError, match=r"\(64, 1, 28, 28\) into \(64, 1, 14, 14\)".replace("64", str(len(images)))):
        DefendedClassifier(small_net, defense)(images)


def test_a_defense_that_writes_in_place_leaves_the_callers_images_alone(images, small_net):
    class Blackens(nn.Module):
        def forward(self, x):
            x[x < 0.35] = 0
            return x

    before = images.clone()
    for defense in (Blackens(), StraightThrough(Blackens())):
        x = images.clone().requires_grad_(True)
        DefendedClassifier(small_net, defense)(x).sum().backward()
        DefendedClassifier(small_net, defense)(images)
        assert torch.equal(x, before) and torch.equal(images, before)


def test_straight_through_changes_the_gradient_and_no_bit_of_the_images(images):
    class Rounded(nn.Module):
        def forward(self, x):
            return (7 * x).round() / 7

    x = images.clone().requires_grad_(True)
    purified = StraightThrough(Rounded())(x)
    assert torch.equal(purified, Rounded()(images))
    weights = torch.randn_like(images)
    (purified * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_nothing_is_looked_at_while_a_model_is_traced(images, small_net, recwarn):
    model = DefendedClassifier(small_net, Binarize())
    traced = torch.jit.trace(model, images[:2], check_trace=False)
    assert not [each for each in recwarn if issubclass(each.category, torch.jit.TracerWarning)]
    assert torch.equal(traced(images), model(images))
