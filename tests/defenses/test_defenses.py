import pytest
import torch
from torch import nn

from src.defended import DefendedClassifier
from src.defenses import AutoencoderPurifier, Binarize, Chain, Identity, KMeansCompression, VQVAEPurifier
from src.models import VAE, VQVAE, Autoencoder


def tiny_vqvae() -> VQVAE:
    """A small network whose codes, after one training pass, tell images apart."""
    torch.manual_seed(1)
    vqvae = VQVAE(hidden=16, residual_hidden=4, num_embeddings=32, embedding_dim=4)
    vqvae.train()(torch.rand(16, 1, 28, 28))
    nn.init.constant_(vqvae.decoder[-1].bias, 0.5)  # away from 0 and 1, where clipping stops the gradient
    return vqvae.eval()


def tiny(kind: type[Autoencoder] | type[VAE]) -> AutoencoderPurifier:
    torch.manual_seed(1)
    network = kind(hidden=16, residual_hidden=4, dimension=4)
    nn.init.constant_(network.decoder[-1].bias, 0.5)
    return AutoencoderPurifier(network)


PURIFIERS = {
    "identity": Identity,
    "kmeans": KMeansCompression,
    "binarize": Binarize,
    "vqvae": lambda: VQVAEPurifier(tiny_vqvae()),
    "autoencoder": lambda: tiny(Autoencoder),
    "vae": lambda: tiny(VAE),
    "chain": lambda: Chain(Binarize(), KMeansCompression(k=2)),
}


@pytest.fixture(params=PURIFIERS)
def purifier(request) -> nn.Module:
    return PURIFIERS[request.param]()


def test_keeps_shape_and_range(purifier, images):
    purified = purifier(images)
    assert purified.shape == images.shape
    assert purified.min() >= 0 and purified.max() <= 1


def test_does_not_depend_on_the_batch(purifier, images):
    together = purifier(images)
    alone = torch.cat([purifier(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_same_input_same_output(purifier, images):
    assert torch.equal(purifier(images), purifier(images))


def test_a_gradient_reaches_the_input(purifier, images, labels, small_net):
    x = images.clone().requires_grad_(True)
    nn.functional.cross_entropy(DefendedClassifier(small_net, purifier)(x), labels).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("step_function", [Binarize(), KMeansCompression(k=3)])
def test_straight_through_passes_exactly_the_classifiers_gradient(step_function, images, labels, small_net):
    """BPDA with the identity: the gradient at x is the bare classifier's gradient at x̂."""
    x = images.clone().requires_grad_(True)
    nn.functional.cross_entropy(DefendedClassifier(small_net, step_function)(x), labels).backward()
    x_hat = step_function(images).detach().requires_grad_(True)
    nn.functional.cross_entropy(small_net(x_hat), labels).backward()
    assert torch.equal(x.grad, x_hat.grad)


def test_defended_classifier_composes_and_stays_frozen(images, small_net):
    defended = DefendedClassifier(small_net, Binarize())
    assert torch.equal(defended(images), small_net((images > 0.5).float()))
    defended.train()
    assert not any(module.training for module in defended.modules())
    assert not any(parameter.requires_grad for parameter in defended.parameters())


def test_binarize_thresholds():
    x = torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0]).view(1, 1, 1, 5)
    assert Binarize(0.5)(x).flatten().tolist() == [0, 0, 0, 1, 1]
    assert Binarize(0.3)(x).flatten().tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="threshold"):
        Binarize(1.0)


def test_chain_applies_in_order(images):
    halve = nn.Module()
    halve.forward = lambda x: x / 2
    assert torch.equal(Chain(halve, Binarize())(images), torch.zeros_like(images))
    assert torch.equal(Chain(Binarize(), halve)(images), (images > 0.5).float() / 2)
    assert torch.equal(Chain()(images), images)


def test_vqvae_purifier_clips_only_if_asked(images):
    vqvae = tiny_vqvae()
    nn.init.constant_(vqvae.decoder[-1].bias, 2.0)
    assert VQVAEPurifier(vqvae)(images).max() == 1
    assert VQVAEPurifier(vqvae, clip=False)(images).max() > 1


def test_vqvae_purifier_stays_in_eval_mode_and_noise_is_seeded(images):
    noisy = VQVAEPurifier(tiny_vqvae(), inference_noise=0.5)
    state = {name: value.clone() for name, value in noisy.state_dict().items()}
    noisy.train()
    torch.manual_seed(1)
    first, second = noisy(images), noisy(images)
    torch.manual_seed(1)
    assert torch.equal(noisy(images), first)
    assert not torch.equal(first, second)
    assert all(torch.equal(state[name], value) for name, value in noisy.state_dict().items())
    with pytest.raises(ValueError, match="inference_noise"):
        VQVAEPurifier(tiny_vqvae(), inference_noise=-1)
