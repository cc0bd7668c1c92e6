"""The purifiers without learning: what each does to real digits, in grey and in colour, at sizes other than 28."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from src.attacks import pgd
from src.defended import DefendedClassifier, adaptive
from src.defenses import JPEG, BitDepth, MedianFilter, NonLocalMeans, RandomResizePad, TotalVariation

STEADY = {
    "jpeg": JPEG,
    "bits": BitDepth,
    "median": MedianFilter,
    "median 2": lambda: MedianFilter(2),
    "tv": lambda: TotalVariation(steps=20),
    "nlm": lambda: NonLocalMeans(window=5),
}
ALL = STEADY | {"resize_pad": RandomResizePad}


@pytest.fixture(params=ALL)
def purifier(request) -> nn.Module:
    return ALL[request.param]()


@pytest.fixture(params=STEADY)
def steady(request) -> nn.Module:
    return STEADY[request.param]()


@pytest.fixture(params=["grey", "colour", "odd sizes"])
def pictures(request, real_digits) -> Tensor:
    """Real digits; in colour each channel is another digit."""
    grey = real_digits[0][:24]
    return {"grey": grey[:8], "colour": grey.view(8, 3, 28, 28), "odd sizes": grey[:6, :, 3:26, 5:22]}[request.param]


def test_shape_range_and_type_stay(purifier, pictures):
    before = pictures.clone()
    purified = purifier(pictures)
    assert purified.shape == pictures.shape and purified.dtype == pictures.dtype
    assert purified.min() >= 0 and purified.max() <= 1
    assert not torch.equal(purified, pictures) and torch.equal(pictures, before)


def test_an_image_does_not_depend_on_its_batch(steady, pictures):
    alone = torch.cat([steady(picture[None]) for picture in pictures])
    assert torch.allclose(steady(pictures), alone, atol=1e-6)


def test_the_memory_format_changes_nothing(steady, real_digits):
    colour = real_digits[0][:12].view(4, 3, 28, 28)
    assert torch.allclose(steady(colour.to(memory_format=torch.channels_last)), steady(colour), atol=1e-6)


def test_a_useful_gradient_reaches_the_input(purifier, real_digits, knows_digits):
    """One step along it raises the loss of the classifier behind the purifier, for most of the images."""
    x, y = (part[:64] for part in real_digits)
    defended = DefendedClassifier(knows_digits, purifier)

    def loss(images: Tensor) -> Tensor:
        torch.manual_seed(1)
        return nn.functional.cross_entropy(defended(images), y, reduction="none")

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    assert gradient.isfinite().all()
    stepped = (x + 0.15 * gradient.sign()).clamp(0, 1)
    assert (loss(stepped) > loss(x)).float().mean() > 0.9


def test_an_attacker_who_knows_it_breaks_it(purifier, real_digits, knows_digits):
    x, y = (part[:32] for part in real_digits)
    view = adaptive(knows_digits, purifier, eot_samples=4)
    x_adv = pgd(view, x, y, eps=0.3, steps=20)
    assert (DefendedClassifier(knows_digits, purifier)(x_adv).argmax(1) == y).float().mean() < 0.2


def test_bits():
    x = torch.tensor([0.0, 0.2, 0.49, 0.51, 0.8, 1.0]).view(1, 1, 1, 6)
    assert BitDepth(1)(x).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.allclose(BitDepth(2)(x).flatten() * 3, torch.tensor([0.0, 1, 1, 2, 2, 3]))


def test_all_levels_of_a_byte_survive_eight_bits(pictures):
    assert torch.allclose(BitDepth(8)(pictures), pictures, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_median_is_that_of_scipy(size, pictures):
    expected = ndimage.median_filter(pictures.numpy(), size=(1, 1, size, size), mode="nearest")
    assert np.array_equal(MedianFilter(size)(pictures).numpy(), expected)


def test_a_lower_quality_is_further_from_the_image(pictures):
    errors = [(JPEG(quality)(pictures) - pictures).square().mean() for quality in (100, 75, 25, 5)]
    assert errors[0] < 2e-2 and errors == sorted(errors)
    with pytest.raises(ValueError, match="1 or 3 channels; got 2"):
        JPEG()(pictures[:, :1].expand(-1, 2, -1, -1))


def variation(x: Tensor) -> Tensor:
    """Σ |∇x| of each image (N, C, H, W)."""
    down, right = torch.zeros_like(x), torch.zeros_like(x)
    down[:, :, :-1], right[..., :-1] = x.diff(dim=2), x.diff(dim=3)
    return (down.square() + right.square()).sqrt().flatten(1).sum(1)


def test_total_variation_is_at_its_minimum(pictures):
    """Of the objective, which is convex: nothing near is lower, and the mean of an image stays."""
    weight = 0.2
    smooth = TotalVariation(weight, steps=500)(pictures)

    def objective(x: Tensor) -> Tensor:
        return (x - pictures).square().flatten(1).sum(1) / 2 + weight * variation(x)

    reached = objective(smooth)
    assert (reached < objective(pictures)).all()
    generator = torch.Generator().manual_seed(0)
    others = [smooth + size * torch.randn(smooth.shape, generator=generator) for size in (0.003, 0.03)]
    others += [0.98 * smooth + 0.02 * pictures, 0.98 * smooth + 0.02 * pictures.mean((2, 3), keepdim=True)]
    assert all((reached <= objective(other) + 2e-2).all() for other in others)
    assert torch.allclose(smooth.mean((2, 3)), pictures.mean((2, 3)), atol=1e-3)
    assert torch.equal(TotalVariation(0)(pictures), pictures)


def non_local_means(x: np.ndarray, strength: float, window: int, patch: int) -> np.ndarray:
    """The definition, pixel by pixel, of one image (C, H, W)."""
    reach, border = window // 2, patch // 2
    pad = reach + border
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad)], mode="edge")
    result = np.zeros_like(x)
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            here = padded[:, i + reach : i + reach + patch, j + reach : j + reach + patch]
            total = 0.0
            for k in range(i, i + window):
                for m in range(j, j + window):
                    there = padded[:, k : k + patch, m : m + patch]
                    weight = np.exp(-np.square(here - there).mean() / strength**2)
                    result[:, i, j] += weight * padded[:, k + border, m + border]
                    total += weight
            result[:, i, j] /= total
    return result


def test_non_local_means_is_its_definition(pictures):
    crop = pictures[:1, :, 6:15, 4:14]
    expected = non_local_means(crop[0].numpy(), 0.2, 5, 3)
    assert np.allclose(NonLocalMeans(0.2, 5, 3)(crop)[0].numpy(), expected, atol=1e-5)
    assert torch.allclose(NonLocalMeans(1e-3)(pictures), pictures, atol=1e-4)  # nothing else is alike


def test_resize_pad_draws_a_size_and_a_place_for_each_image():
    white = torch.ones(200, 1, 20, 20)
    seen = RandomResizePad(noise=0, smallest=0.5)(white)
    sides = seen.flatten(1).sum(1).sqrt()
    assert 9.5 < sides.min() < 11 and 19 < sides.max() <= 20
    corners = [seen[:, :, r, c].flatten() > 0.9 for r in (0, -1) for c in (0, -1)]
    assert all(0 < corner.float().mean() < 0.5 for corner in corners)
    assert torch.equal(RandomResizePad(noise=0, smallest=1)(white), white)
    noise = RandomResizePad(noise=0.1, smallest=1)(torch.full_like(white, 0.5)) - 0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: JPEG(0),
        lambda: JPEG(101),
        lambda: BitDepth(0),
        lambda: BitDepth(9),
        lambda: MedianFilter(0),
        lambda: MedianFilter(2.5),
        lambda: TotalVariation(-1),
        lambda: TotalVariation(float("nan")),
        lambda: TotalVariation(steps=0),
        lambda: NonLocalMeans(0),
        lambda: NonLocalMeans(window=4),
        lambda: NonLocalMeans(patch=2),
        lambda: RandomResizePad(noise=-1),
        lambda: RandomResizePad(smallest=0),
        lambda: RandomResizePad(smallest=1.1),
    ],
)
def test_strengths_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
