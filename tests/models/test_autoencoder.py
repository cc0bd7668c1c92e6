"""The VQ-VAE's rivals."""

import math

import pytest
import torch
from torch import nn

from src.models import VAE, VQVAE, Autoencoder
from src.models.autoencoder import Posterior
from tests.models.fitting import fitted

SMALL = {"hidden": 16, "residual_hidden": 4, "dimension": 4}
BOTH = pytest.mark.parametrize("kind", [Autoencoder, VAE])


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(each.shape) for each in network.parameters()]


def test_encoder_and_decoder_are_the_vqvaes():
    vqvae, autoencoder, vae = VQVAE(), Autoencoder(), VAE()
    assert shapes(autoencoder) == shapes(vqvae)
    assert shapes(vae.decoder) == shapes(vqvae.decoder)
    assert shapes(vae.encoder)[:-2] == shapes(vqvae.encoder)[:-2]
    assert shapes(vae.encoder)[-2:] == [(128, 128, 1, 1), (128,)]  # means and log-variances of 64 numbers


@BOTH
@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 20)])
def test_images_come_out_as_large_as_they_went_in(kind, shape):
    assert kind(in_channels=shape[1], **SMALL)(torch.rand(shape)).shape == shape


@BOTH
def test_in_use_the_answer_is_the_same_every_time(kind, images):
    network = kind(noise=0.5, **SMALL).eval()
    assert torch.equal(network(images), network(images))


def test_the_vae_draws_in_training_and_decodes_the_mean_in_use(images):
    vae = VAE(**SMALL).train()
    assert not torch.equal(vae(images), vae(images))
    assert torch.equal(vae.eval()(images), vae.decoder(vae.posterior(images).mean))


def test_the_divergence_is_that_of_the_distributions():
    mean, log_variance = torch.randn(3, 4, 7, 7), torch.randn(3, 4, 7, 7)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1)).sum((1, 2, 3))
    assert torch.allclose(Posterior(mean, log_variance).divergence(), expected, rtol=1e-4)


def test_samples_have_the_posteriors_mean_and_variance():
    posterior = Posterior(torch.full((1, 1, 100, 100), 2.0), torch.full((1, 1, 100, 100), math.log(0.25)))
    drawn = posterior.sample()
    assert drawn.mean().item() == pytest.approx(2, abs=0.03)
    assert drawn.std().item() == pytest.approx(0.5, rel=0.03)


def test_the_vaes_loss_is_the_bound_of_an_image_over_its_pixels(images):
    vae = VAE(beta=0.5, **SMALL).eval()
    parts = vae.losses(images, (images, torch.zeros(12)))
    summed = (vae(images) - images).square().flatten(1).sum(1)
    expected = (summed + 0.5 * vae.posterior(images).divergence()).mean() / 784
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["reconstruction"].item() == pytest.approx(summed.mean().item() / 784, rel=1e-5)
    with pytest.raises(ValueError, match="beta"):
        VAE(beta=-1)


@pytest.mark.slow
def test_a_vae_that_has_to_pay_more_says_less_about_the_image():
    def divergence(beta: float) -> float:
        torch.manual_seed(0)
        return fitted(VAE(beta=beta, **SMALL))["divergence"].item()

    assert divergence(10) < 0.5 * divergence(0.01)


@BOTH
def test_what_is_asked_for_is_the_clean_image(kind):
    """A loss of the noisy target would be at least σ²; a network that learns to denoise goes far below."""
    assert fitted(kind(noise=0.5, **SMALL))["reconstruction"] < 0.1 < 0.5**2
