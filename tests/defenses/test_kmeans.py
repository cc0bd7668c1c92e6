import pytest
import torch
from torch import Tensor

from src.data import ImageDataModule
from src.defenses import KMeansCompression
from src.defenses.kmeans import lloyd, lloyd_1d, seed_centers


def inertia(x: Tensor, compressed: Tensor) -> float:
    return (x - compressed).square().sum().item()


@pytest.fixture(scope="session")
def digits(mnist: ImageDataModule) -> Tensor:
    return mnist.test_set(60)[0]


def test_inertia_is_sklearns_on_real_digits_attacked_or_not(digits):
    noisy = (digits + 0.3 * torch.randn_like(digits).sign()).clamp(0, 1)
    for x in (digits, noisy):
        ours, theirs = KMeansCompression()(x), KMeansCompression(backend="sklearn")(x)
        assert inertia(x, ours) <= 1.1 * inertia(x, theirs)
        assert inertia(x, ours) > 0


def test_colour_images():
    x = torch.rand(8, 3, 12, 12)
    ours = KMeansCompression(k=5)(x)
    assert inertia(x, ours) <= 1.1 * inertia(x, KMeansCompression(k=5, backend="sklearn")(x))
    for image in ours.flatten(2).transpose(1, 2):
        assert len(image.unique(dim=0)) <= 5


def test_colours_are_clustered_together_not_channel_by_channel():
    red, blue = torch.tensor([1.0, 0.0, 0.2]), torch.tensor([0.1, 0.0, 1.0])
    pixels = torch.where(torch.rand(1, 1, 8, 8) < 0.5, red.view(1, 3, 1, 1), blue.view(1, 3, 1, 1))
    assert torch.allclose(KMeansCompression(k=2)(pixels), pixels)


def test_at_most_k_grey_levels_and_each_is_its_clusters_mean(digits):
    compressed = KMeansCompression(k=4, iterations=100)(digits)
    for image, result in zip(digits, compressed, strict=True):
        levels = result.unique()
        assert len(levels) <= 4
        for level in levels:
            assert torch.isclose(image[result == level].mean(), level, atol=1e-5)


def test_the_line_algorithm_is_lloyds(digits):
    untied = (digits + 0.02 * torch.rand_like(digits)).clamp(0, 1)  # a tie may go either way
    pixels = untied.flatten(2).transpose(1, 2)
    centers = seed_centers(pixels, 20, seed=0)
    on_a_line, anywhere = (
        found.gather(1, cluster)
        for found, cluster in (lloyd_1d(pixels[..., 0], centers[..., 0], 20), lloyd(pixels, centers, 20))
    )
    assert torch.allclose(on_a_line, anywhere, atol=1e-5)


def test_few_colours_and_one_cluster():
    flat = torch.full((2, 1, 6, 6), 0.4)
    assert torch.allclose(KMeansCompression()(flat), flat)
    x = torch.rand(3, 1, 6, 6)
    assert torch.allclose(KMeansCompression(k=1)(x), x.mean((1, 2, 3), keepdim=True).expand_as(x))
    two_level = (x > 0.5).float()
    assert torch.equal(KMeansCompression(k=2)(two_level), two_level)


def test_more_images_than_a_chunk_and_none():
    x = torch.rand(300, 1, 6, 6)
    assert torch.equal(KMeansCompression(k=3)(x)[280:], KMeansCompression(k=3)(x[280:]))
    assert KMeansCompression()(x[:0]).shape == (0, 1, 6, 6)


def test_refuses_arguments_out_of_range():
    for arguments in ({"k": 0}, {"iterations": 0}, {"backend": "numpy"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            KMeansCompression(**arguments)
