"""Certificates against what is known in closed form, against an attack, and against what must not change them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, kstest, norm
from smoothing_attack import l2_pgd, majority
from torch import Tensor, nn

from src.data import ImageDataModule
from src.defended import DefendedClassifier
from src.defenses import VQVAEPurifier
from src.evaluation.smoothing import (
    ABSTAIN,
    Certificate,
    NoisyCopies,
    certify,
    count_votes,
    image_stream,
)
from src.evaluation.statistics import certified_radius, lower_bound
from src.models import VQVAE, Classifier
from tests.conftest import REPO

CPU = torch.device("cpu")
SHAPE = (1, 6, 6)

Classify = Callable[[Tensor], Tensor]


def linear(classes: int, seed: int = 0) -> tuple[Classify, Tensor]:
    """A linear classifier of images of ``SHAPE``, and its weights (K, D)."""
    weights = torch.randn(classes, 36, generator=torch.Generator().manual_seed(seed))
    return lambda x: x.flatten(1) @ weights.T, weights


def halfspace(x: Tensor) -> Tensor:
    """Two classes: whether w·x + b is positive, w of length 1."""
    margin = x.flatten(1).sum(1) / 6 - 1
    return torch.stack([-margin, margin], 1)


def at_distance(distance: float) -> Tensor:
    """An image at this distance from the boundary of :func:`halfspace`."""
    return torch.full(SHAPE, (1 + distance) / 6)


def of(
    classify: Classify, x: Tensor, index: int = 0, sigma: float = 0.5, seed: int = 0, **settings: float
) -> Certificate:
    usual = {"n0": 50, "n": 1000, "alpha": 0.001, "batch": 200}
    return certify(classify, x, sigma, generator=image_stream(seed, index, CPU), **(usual | settings))  # type: ignore[arg-type]


# ---------------------------------------------------------------- the bound


@pytest.mark.parametrize("n", [1, 7, 100, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_bound_is_scipys_one_sided_clopper_pearson(n, alpha):
    for count in {0, 1, n // 2, n - 1, n}:
        expected = binomtest(count, n, alternative="greater").proportion_ci(1 - alpha, method="exact").low
        assert lower_bound(count, n, alpha) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("p", [0.5, 0.61, 0.9, 0.999])
def test_the_bound_exceeds_the_truth_with_a_probability_of_at_most_alpha_and_not_much_less(p):
    counts = np.arange(401)
    exceeds = np.array([lower_bound(count, 400, 0.05) > p for count in counts])
    wrong = binom.pmf(counts, 400, p)[exceeds].sum()
    assert wrong <= 0.05
    assert wrong > 0.015 or p == 0.999  # where even 400 of 400 do not exceed it


def test_a_copy_whose_logits_are_nan_votes_for_nobody():
    """torch's argmax takes NaN for the largest: class 0 would get these votes."""

    def broken(x: Tensor) -> Tensor:
        logits = halfspace(x)
        return logits.masked_fill(logits[:, :1] > 0, torch.nan)

    x = at_distance(0.1)
    sound, votes = (
        count_votes(classify, NoisyCopies(x, 0.5, 200, image_stream(0, 0, CPU)), 1000, 200)
        for classify in (halfspace, broken)
    )
    assert votes.tolist() == [0, sound[1]]
    assert 0 < votes.sum() < sound.sum() == 1000
    nowhere = of(lambda x: torch.full((len(x), 2), torch.nan), x)
    assert (nowhere.predicted, nowhere.radius) == (ABSTAIN, 0)


def test_nothing_is_certified_up_to_a_half():
    assert certified_radius(500, 1000, 0.5, 0.001) == 0
    assert certified_radius(540, 1000, 0.5, 0.001) == 0
    assert 0 < certified_radius(560, 1000, 0.5, 0.001) < 0.5 * norm.ppf(0.56)


# ---------------------------------------------------------------- closed form


def test_on_a_halfspace_radii_are_below_the_true_distance_and_near_it():
    """The smoothed halfspace is the halfspace, so the distance to it is the radius. One certificate in 1 / alpha may
    be too large; a plug-in estimate instead of a bound would make half of them so."""
    alpha, n, sigma = 0.05, 2000, 0.5
    distances = np.random.default_rng(0).uniform(0.1, 1.2, 300)
    found = [of(halfspace, at_distance(d), i, sigma, n=n, alpha=alpha) for i, d in enumerate(distances)]
    radii = np.array([each.radius for each in found])
    assert {each.predicted for each in found} == {1}
    assert 0 < (radii > distances).sum() <= binom.ppf(0.9999, len(radii), alpha)
    p = norm.cdf(distances / sigma)
    few = np.floor(n * p - 4 * np.sqrt(n * p * (1 - p))).astype(int)
    nearly = np.array([certified_radius(count, n, sigma, alpha) for count in few])
    assert (radii >= nearly).all()


def test_radii_approach_the_true_distance_as_samples_grow():
    gaps = [0.6 - of(halfspace, at_distance(0.6), n=n).radius for n in (200, 2000, 20_000, 200_000)]
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.01


def test_radii_grow_with_sigma_as_the_distance_allows():
    """Far from the boundary the number of samples limits a radius, to σ Φ⁻¹(alpha^(1/n))."""
    for sigma in (0.25, 0.5, 1.0):
        found = of(halfspace, at_distance(100), sigma=sigma)
        assert found.count == 1000
        assert found.radius == pytest.approx(sigma * norm.ppf(0.001 ** (1 / 1000)))


def test_of_many_classes_the_radius_is_below_the_one_of_the_true_probability():
    classify, weights = linear(10)
    base = torch.rand(60, *SHAPE)
    many = torch.Generator().manual_seed(9)
    for i, x in enumerate(base + 0.3 * weights[torch.arange(60) % 10].view(60, *SHAPE)):
        found = of(classify, x, i)
        copies = x + 0.5 * torch.randn(40_000, *SHAPE, generator=many)
        shares = classify(copies).argmax(1).bincount(minlength=10) / 40_000
        if found.predicted == ABSTAIN:
            assert shares.max() < 0.6
        else:
            assert found.predicted == shares.argmax()
            assert found.radius < 0.5 * norm.ppf(min(float(shares.max()) + 0.01, 1))


def test_it_abstains_on_the_boundary():
    found = [of(halfspace, at_distance(0), i) for i in range(50)]
    assert [each.predicted for each in found] == [ABSTAIN] * 50
    assert {each.radius for each in found} == {0.0}
    assert all(400 < each.count < 600 for each in found)
    assert of(halfspace, at_distance(-0.5)).predicted == 0


# ---------------------------------------------------------------- the samples


class Recording:
    """The halfspace, which keeps what it is shown."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.batches.append(x.clone())
        return halfspace(x)

    @property
    def seen(self) -> Tensor:
        return torch.cat(self.batches)


def test_the_noise_is_gaussian_of_exactly_sigma_and_not_clipped():
    shown = Recording()
    x = torch.rand(SHAPE)
    of(shown, x, sigma=0.25, n=3000)
    noise = (shown.seen - x).numpy()
    assert kstest(noise.ravel(), norm(0, 0.25).cdf).pvalue > 0.01
    assert (shown.seen < 0).any()
    assert (shown.seen > 1).any()


def test_the_class_is_chosen_by_other_samples_than_those_that_bound_its_probability():
    shown = Recording()
    found = of(shown, at_distance(0.3), n0=50, n=1000)
    seen = shown.seen.flatten(1)
    assert len(seen) == 50 + 1000
    assert len(seen.unique(dim=0)) == len(seen)
    assert found.count == int(halfspace(shown.seen[50:]).argmax(1).sum())


def test_a_wrong_choice_of_the_first_samples_is_not_mended_by_the_others():
    """Else the bound would be one on the luckiest class."""
    found = [of(halfspace, at_distance(0.05), i, n0=1, n=2000) for i in range(40)]
    wrongly_chosen = [each for each in found if each.count < 1000]
    assert wrongly_chosen
    assert all(each.predicted == ABSTAIN for each in wrongly_chosen)


@pytest.mark.parametrize("batch", [1, 7, 99, 100, 101, 250, 5000])
def test_the_batch_changes_nothing(batch):
    shown, other = Recording(), Recording()
    x = at_distance(0.4)
    assert of(shown, x, batch=batch, n=310, n0=33) == of(other, x, batch=64, n=310, n0=33)
    assert torch.equal(shown.seen, other.seen)
    assert max(map(len, shown.batches)) <= batch


def test_every_image_and_every_seed_has_a_stream_of_its_own():
    def noise(seed: int, index: int) -> Tensor:
        return NoisyCopies(torch.zeros(SHAPE), 1.0, 5, image_stream(seed, index, CPU)).take(5).clone()

    assert torch.equal(noise(0, 3), noise(0, 3))
    different = [noise(0, 3), noise(0, 4), noise(1, 3), noise(3, 0), noise(10, 3), noise(1, 30)]
    assert not any(torch.equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_other_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    first = of(halfspace, at_distance(0.4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert of(halfspace, at_distance(0.4)) == first


@pytest.mark.parametrize(
    "wrong",
    [{"sigma": 0.0}, {"sigma": -1.0}, {"sigma": float("nan")}, {"n": 0}, {"n0": 0}, {"alpha": 0.0}, {"alpha": 1.0}],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        of(halfspace, at_distance(1), **wrong)


def test_what_is_no_classifier_is_refused():
    with pytest.raises(ValueError, match=r"logits \(N, K\)"):
        of(lambda x: x, at_distance(1))


# ---------------------------------------------------------------- against an attack


def hold_against_attack(
    classify: Classify, x: Tensor, y: Tensor, sigma: float, radii: list[float], n: int, **attack: int
) -> tuple[list[Certificate], dict[float, Tensor]]:
    """Certify images, attack them within each radius; no certificate may be broken. Returns certificates, and which
    images the attack left correct at each radius."""
    votes = attack.pop("votes", 200)
    found = [of(classify, each, i, sigma, n=n) for i, each in enumerate(x)]
    correct = torch.tensor([each.predicted for each in found]) == y
    radius = torch.tensor([each.radius for each in found])
    survived = {}
    for r in radii:
        attacked = l2_pgd(classify, x, y, sigma, r, **attack)
        assert (attacked - x).flatten(1).norm(dim=1).max() <= r * 1.0001
        survived[r] = majority(classify, attacked, sigma, votes) == y
        certified = correct & (radius >= r)
        assert certified.float().mean() <= survived[r].float().mean()
        assert not (certified & ~survived[r]).any()
    return found, survived


@pytest.fixture(scope="module")
def quickly_trained(mnist: ImageDataModule) -> nn.Module:
    """Linear, trained on 3,000 noisy digits: right on nine of ten under noise, and not robust."""
    mnist.setup("fit")
    x, y = mnist._sets["fit"][slice(0, 3000)]
    network, noise = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(120):
        rows = slice(step * 250 % 3000, step * 250 % 3000 + 250)
        copies = x[rows] + 0.25 * torch.randn(x[rows].shape, generator=noise)
        loss = nn.functional.cross_entropy(network(copies), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.mark.slow
def test_no_attack_breaks_a_certificate_on_digits(mnist, quickly_trained):
    """On 200 test images; and the attack is strong enough to break certificates of twice their radius."""
    x, y = mnist.test_set(200)
    found, survived = hold_against_attack(quickly_trained, x, y, 0.25, [0.25, 0.5, 0.75], n=500)
    correct = torch.tensor([each.predicted for each in found]) == y
    radius = torch.tensor([each.radius for each in found])
    certified = (correct & (radius >= 0.5)).float().mean()
    assert 0.2 < certified <= survived[0.5].float().mean() < correct.float().mean()
    inflated = correct & (2 * radius >= 0.75)
    assert (inflated & ~survived[0.75]).any()


@pytest.mark.very_slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("denoise", [True, False])
def test_no_attack_breaks_a_certificate_of_the_trained_networks(mnist, denoise):
    folder = Path(REPO) / "outputs" / "checkpoints" / "mnist"
    if not (folder / "vqvae-noise0.5.ckpt").is_file():
        pytest.skip("needs the trained networks: make demo")
    classifier = Classifier.load_from_checkpoint(folder / "classifier.ckpt", map_location="cpu").eval()
    vqvae = VQVAE.load_from_checkpoint(folder / "vqvae-noise0.5.ckpt", map_location="cpu").eval()
    base = DefendedClassifier(classifier, VQVAEPurifier(vqvae)) if denoise else classifier
    x, y = mnist.test_set(200)
    hold_against_attack(base, x, y, 0.5, [0.5], n=300, steps=5, draws=8)
