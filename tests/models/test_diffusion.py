"""The diffusion model, and the purifier that goes back through it."""

import pytest
import torch
from torch import Tensor

from src.defended import DefendedClassifier, FrozenRandomness
from src.defenses import AutoencoderPurifier, ReverseDiffusion
from src.models import Autoencoder, DiffusionModel
from src.randomness import seeded
from tests.models.fitting import fitted

SMALL = {"hidden": 16, "residual_hidden": 4, "dimension": 4}


class Knowing(DiffusionModel):
    """Finds the clean image whatever it is shown, and keeps the noise it was asked about."""

    def __init__(self, clean: Tensor, noise: float) -> None:
        super().__init__(noise, **SMALL)
        self.clean, self.asked = clean, []

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        self.asked.append((sigma, (x - self.clean).std().item()))
        return self.clean


def tiny(noise: float = 0.5) -> DiffusionModel:
    torch.manual_seed(1)
    model = DiffusionModel(noise, **SMALL)
    torch.nn.init.constant_(model.decoder[-1].bias, 0.5)  # away from 0 and 1, where clipping stops the gradient
    return model


def test_it_has_the_layers_of_the_autoencoder_and_a_channel_for_sigma():
    model, autoencoder = DiffusionModel(), Autoencoder()
    shapes, others = ([tuple(p.shape) for p in network.parameters()] for network in (model, autoencoder))
    assert shapes[0] == (64, 2, 4, 4) and others[0] == (64, 1, 4, 4)
    assert shapes[1:] == others[1:]


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 20)])
def test_images_come_out_as_large_as_they_went_in(shape):
    assert DiffusionModel(in_channels=shape[1], **SMALL)(torch.rand(shape)).shape == shape


def test_what_it_learns_from_has_the_noise_that_it_is_told():
    torch.manual_seed(0)
    x = torch.zeros(500, 1, 28, 28)
    seen = DiffusionModel(0.8, **SMALL).corrupt(x)
    assert seen.shape == (500, 2, 28, 28)
    told = seen[:, 1].amax((1, 2))
    assert torch.equal(told, seen[:, 1].amin((1, 2)))
    assert torch.allclose(seen[:, 0].flatten(1).std(1), 0.8 * told, rtol=0.15)
    assert told.max() < 1 and told.mean().item() == pytest.approx(0.5, abs=0.05)


def test_it_answers_for_the_noise_that_it_is_asked_about(images):
    model = tiny(0.5).eval()
    assert torch.equal(model(images), model.denoised(images, 0.5))
    assert not torch.equal(model(images), model.denoised(images, 0.1))


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan")])
def test_without_noise_there_is_no_such_model(noise):
    with pytest.raises(ValueError, match="noise must be above 0"):
        DiffusionModel(noise)


def test_what_is_asked_for_is_the_clean_image():
    """A black image, all that is needed to say nothing, is 0.08 off."""
    assert fitted(tiny())["reconstruction"] < 0.05


def test_on_the_way_back_an_image_has_the_noise_that_the_model_is_asked_about():
    """The posterior of the step: where the model knows the clean image, the image keeps to σ·n around it."""
    torch.manual_seed(0)
    clean = torch.rand(200, 1, 28, 28)
    model = Knowing(clean, 0.8)
    assert torch.equal(ReverseDiffusion(model, steps=4)(clean), clean)
    assert [sigma for sigma, _ in model.asked] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert [seen for _, seen in model.asked] == pytest.approx([0.8, 0.6, 0.4, 0.2], rel=0.01)


def test_one_step_is_the_denoiser(images):
    model = tiny().eval()
    with seeded(3):
        expected = model(images + 0.5 * torch.randn_like(images))
    with seeded(3):
        assert torch.equal(ReverseDiffusion(model, steps=1)(images), expected)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        ReverseDiffusion(model, steps=0)


def test_as_a_purifier_it_draws_images_at_random_and_frozen_ones_alike(images):
    purifier = AutoencoderPurifier(ReverseDiffusion(tiny(), steps=3))
    purified = purifier(images)
    assert purified.shape == images.shape and purified.min() >= 0 and purified.max() <= 1
    assert not torch.equal(purifier(images), purified)
    frozen = FrozenRandomness(purifier)
    assert torch.equal(frozen(images), frozen(images))
    with pytest.raises(ValueError, match="divisible by 4"):
        purifier(torch.rand(1, 1, 10, 10))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_passes_through_all_steps(steps, images, labels, small_net):
    purifier = AutoencoderPurifier(ReverseDiffusion(tiny(), steps), clip=False)
    defended = DefendedClassifier(small_net, purifier).double()

    def loss(x: Tensor) -> Tensor:
        with seeded(0):
            return torch.nn.functional.cross_entropy(defended(x), labels)

    x = images.double().requires_grad_(True)
    loss(x).backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0
    step = 1e-3 * x.grad.sign()
    with torch.no_grad():
        change = loss(images + step) - loss(images - step)
    assert (x.grad * 2 * step).sum().item() == pytest.approx(change.item(), rel=0.02)
