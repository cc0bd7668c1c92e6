import pytest
import torch
from torch import nn

from src.models import VQVAE, Classifier


def test_classifier_is_the_reports():
    classifier = Classifier()
    assert [tuple(p.shape) for p in classifier.parameters()] == [
        *((32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,)),
        *((128, 9216), (128,), (10, 128), (10,)),
    ]
    assert classifier(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_pooling_before_the_relu_is_the_reports_function():
    classifier = Classifier().eval()
    conv1, _, conv2, pool, relu, *rest = classifier.network
    x = torch.rand(8, 1, 28, 28, requires_grad=True)
    as_reported = torch.nn.Sequential(*rest)(pool(relu(conv2(relu(conv1(x))))))
    assert torch.equal(classifier(x), as_reported)
    (ours,), (reported,) = (torch.autograd.grad(out.logsumexp(1).sum(), x) for out in (classifier(x), as_reported))
    assert torch.allclose(ours, reported, atol=1e-6)


def test_classifier_takes_other_images():
    assert Classifier(in_channels=3, image_size=32, num_classes=7)(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_vqvae_is_the_reports():
    vqvae = VQVAE()
    x = torch.rand(2, 1, 28, 28)
    values, indices, _ = vqvae.quantize(x)
    assert values.shape == (2, 64, 7, 7)
    assert indices.shape == (2, 7, 7)
    assert vqvae.quantizer.codebook.shape == (512, 64)
    assert vqvae(x).shape == x.shape
    shapes = [tuple(p.shape) for p in vqvae.encoder.parameters() if p.ndim == 4]
    residual = [(32, 128, 3, 3), (128, 32, 1, 1)]
    assert shapes == [(64, 1, 4, 4), (128, 64, 4, 4), (128, 128, 3, 3), *residual, *residual, (64, 128, 1, 1)]


class ReportsResidual(nn.Module):
    """x + conv1×1(ReLU(conv3×3(ReLU(x)))), with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(128, 32, 3, padding=1), nn.Conv2d(32, 128, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(self.wide(x.relu()).relu())


def test_weights_of_the_reports_network_can_be_laid_into_ours_tensor_by_tensor():
    """The report's network, written down once more from its description; its published weights are 30 tensors."""
    residuals = (ReportsResidual(), ReportsResidual(), nn.ReLU())
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 64, 4, 2, 1), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, 1, 1)),
        *residuals,
        nn.Conv2d(128, 64, 1),
    )
    decoder = nn.Sequential(
        *(nn.Conv2d(64, 128, 3, 1, 1), ReportsResidual(), ReportsResidual(), nn.ReLU()),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(64, 1, 4, 2, 1)),
    )
    published = [*encoder.parameters(), *decoder.parameters()]
    vqvae = VQVAE().eval()
    ours = list(vqvae.parameters())
    assert [tuple(each.shape) for each in ours] == [tuple(each.shape) for each in published]
    assert len(ours) == 30
    with torch.no_grad():
        for mine, theirs in zip(ours, published, strict=True):
            mine.copy_(theirs)
        x = torch.rand(2, 1, 28, 28)
        assert torch.allclose(vqvae.encoder(x), encoder(x), atol=1e-6)
        codes = vqvae.quantize(x).values
        assert torch.allclose(vqvae(x), decoder(codes), atol=1e-6)


def test_a_stem_looks_at_the_image_before_it_is_halved():
    vqvae = VQVAE(stem=8, hidden=16, residual_hidden=4, num_embeddings=8, embedding_dim=4)
    convolutions = [module for module in vqvae.encoder if isinstance(module, nn.Conv2d)]
    assert [tuple(each.weight.shape) for each in convolutions[:2]] == [(8, 1, 3, 3), (8, 8, 4, 4)]
    x = torch.rand(2, 1, 28, 28)
    assert convolutions[0](x).shape == (2, 8, 28, 28)
    assert vqvae(x).shape == x.shape


def test_without_codes_it_is_an_autoencoder(monkeypatch):
    vqvae, logged = VQVAE(num_embeddings=0, hidden=16, residual_hidden=4, embedding_dim=4).train(), {}
    monkeypatch.setattr(vqvae, "log_dict", lambda values, **_: logged.update(values))
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(vqvae(x), vqvae.decoder(vqvae.encoder(x)))
    loss = vqvae.training_step((x, torch.zeros(2, dtype=torch.long)), 0)
    assert loss.item() == pytest.approx(nn.functional.mse_loss(vqvae(x), x).item())
    assert "train/reconstruction" in logged and "train/perplexity" not in logged


def test_corrupt_adds_gaussian_noise_of_the_given_size():
    x = torch.full((50, 1, 28, 28), 0.5)
    noise = VQVAE(noise=0.75).corrupt(x) - x
    assert noise.std().item() == pytest.approx(0.75, rel=0.02)
    assert noise.mean().abs() < 0.02
    assert torch.equal(VQVAE(noise=0).corrupt(x), x)


def test_vqvae_target_is_the_clean_image():
    """A loss of the noisy target would be at least σ²; a network that learns to denoise goes far below."""
    vqvae = VQVAE(noise=0.5, hidden=16, residual_hidden=4, num_embeddings=32, embedding_dim=8)
    optimizer = torch.optim.Adam(vqvae.parameters(), 2e-3)
    vqvae.log_dict = lambda *_, **__: None
    x = torch.zeros(16, 1, 28, 28)
    x[:, :, 10:18, 10:18] = 1
    for _ in range(60):
        loss = vqvae.training_step((x, torch.zeros(16)), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 < 0.5**2
