import pytest
import torch

from src.models.quantizer import EMAQuantizer, code_usage


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(6, 4, 5, 5)


@pytest.fixture
def quantizer(vectors) -> EMAQuantizer:
    """Sixteen codes, initialized from data."""
    quantizer = EMAQuantizer(num_embeddings=16, embedding_dim=4)
    quantizer.train()(vectors)
    return quantizer


def test_every_vector_becomes_its_nearest_code(quantizer, vectors):
    values, indices, commitment = quantizer.eval()(vectors)
    flat = vectors.movedim(1, -1).reshape(-1, 4)
    nearest = torch.cdist(flat, quantizer.codebook).argmin(1)
    assert torch.equal(indices.flatten(), nearest)
    assert torch.equal(values.movedim(1, -1).reshape(-1, 4), quantizer.codebook[nearest])
    assert torch.isclose(commitment, (flat - quantizer.codebook[nearest]).square().mean())


@pytest.mark.parametrize("mode", [True, False])
def test_gradient_passes_straight_through_in_both_modes(quantizer, vectors, mode):
    z = vectors.clone().requires_grad_(True)
    weights = torch.randn_like(z)
    (quantizer.train(mode)(z).values * weights).sum().backward()
    assert torch.equal(z.grad, weights)


def test_codebook_changes_in_training_and_only_there(quantizer, vectors):
    def state() -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in quantizer.state_dict().items()}

    before = state()
    quantizer.eval()(vectors)
    assert all(torch.equal(before[name], value) for name, value in state().items())
    quantizer.train()(vectors + 1)
    assert not torch.equal(before["codebook"], quantizer.codebook)


def test_moving_averages_are_the_papers(vectors):
    """Appendix A.1 of van den Oord et al.: n and m decay by γ, e = m / n with n smoothed."""
    quantizer = EMAQuantizer(num_embeddings=3, embedding_dim=4, decay=0.9, epsilon=1e-5, dead_code_threshold=0)
    quantizer.train()(vectors)
    size, total = quantizer.cluster_size.clone(), quantizer.cluster_sum.clone()
    flat = vectors.movedim(1, -1).reshape(-1, 4)
    assigned = torch.nn.functional.one_hot(torch.cdist(flat, quantizer.codebook).argmin(1), 3).float()
    quantizer(vectors)
    size = 0.9 * size + 0.1 * assigned.sum(0)
    total = 0.9 * total + 0.1 * assigned.T @ flat
    smoothed = (size + 1e-5) / (size.sum() + 3e-5) * size.sum()
    assert torch.allclose(quantizer.cluster_size, size)
    assert torch.allclose(quantizer.codebook, total / smoothed[:, None], atol=1e-6)


def test_training_on_fixed_clusters_finds_them():
    centers = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    quantizer = EMAQuantizer(num_embeddings=3, embedding_dim=2, decay=0.8, dead_code_threshold=0.5)
    for _ in range(200):
        points = centers[torch.randint(3, (8, 4, 4))] + 0.1 * torch.randn(8, 4, 4, 2)
        commitment = quantizer.train()(points.movedim(-1, 1)).commitment
    assert commitment < 0.05
    assert torch.cdist(centers, quantizer.codebook).amin(1).max() < 0.2


def test_dead_codes_come_back(quantizer, vectors):
    quantizer.codebook[3:] = 1e4
    quantizer.cluster_sum[3:] = 1e4 * quantizer.cluster_size[3:, None]
    quantizer.cluster_size[3:] = 0.01
    quantizer.train()(vectors)
    assert quantizer.codebook.abs().max() < 100
    _, used = code_usage(quantizer.eval()(vectors).indices, 16)
    assert used > 3


def test_state_travels_in_the_state_dict(quantizer, vectors):
    copy = EMAQuantizer(num_embeddings=16, embedding_dim=4)
    copy.load_state_dict(quantizer.state_dict())
    quantizer.train(), copy.train()
    quantizer(vectors), copy(vectors)
    assert torch.equal(copy.codebook, quantizer.codebook)


def test_code_usage():
    uniform, used = code_usage(torch.arange(8).repeat(5), 16)
    assert uniform.item() == pytest.approx(8)
    assert used == 8
    single, used = code_usage(torch.zeros(3, 4, 4, dtype=torch.int64), 16)
    assert single.item() == pytest.approx(1)
    assert used == 1
