"""What an attacker who knows the defense differentiates through."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import input_gradient, pgd
from src.attacks.verdict import is_random
from src.defended import DefendedClassifier, adaptive, gray_box
from src.defenses import Binarize, Chain, Identity, KMeansCompression


class Noise(nn.Module):
    """A random defense."""

    def __init__(self, sigma: float = 0.3) -> None:
        super().__init__()
        self.sigma, self.calls = sigma, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.sigma * torch.randn_like(x)


class Opaque(nn.Module):
    """A defense of another library, which passes no gradient: 8 grey levels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy((x.detach().numpy() * 7).round() / 7)


def test_gray_box_sees_the_classifier_and_adaptive_the_defended_one(images, small_net):
    assert gray_box(small_net, Binarize()) is small_net
    assert torch.equal(adaptive(small_net, Binarize())(images), small_net((images > 0.5).float()))


def test_without_a_defense_both_threats_are_one(images, labels, small_net):
    seen = adaptive(small_net, Identity(), eot_samples=7)
    assert torch.equal(input_gradient(seen, images, labels), input_gradient(small_net, images, labels))


@pytest.mark.parametrize("defense", [Binarize(), KMeansCompression(k=3), Opaque()])
def test_bpda_with_the_identity_is_the_classifiers_gradient_at_the_purified_image(defense, images, labels, small_net):
    with torch.no_grad():
        purified = defense(images)
    found = input_gradient(adaptive(small_net, defense), images, labels)
    assert torch.equal(found, input_gradient(small_net, purified, labels))


def test_eot_of_a_steady_defense_changes_no_bit(images, labels, small_net):
    for defense in (Binarize(), KMeansCompression(k=3)):
        once, often = (adaptive(small_net, defense, eot_samples=n) for n in (1, 9))
        assert torch.equal(once(images), often(images))
        assert torch.equal(input_gradient(once, images, labels), input_gradient(often, images, labels))
        assert not is_random(often, images)


def test_eot_of_a_random_defense_is_the_mean_over_its_answers(images, small_net):
    defense = Noise()
    seen = adaptive(small_net, defense, eot_samples=5)
    seen(images)  # finds out that it is random
    torch.manual_seed(3)
    mean = torch.stack([small_net(defense(images)) for _ in range(5)]).mean(0)
    torch.manual_seed(3)
    before = defense.calls
    assert torch.allclose(seen(images), mean, atol=1e-6)
    assert defense.calls == before + 5
    assert is_random(seen, images), "the next answer of a random defense may be another"


def test_more_eot_samples_make_a_steadier_gradient(images, labels, small_net):
    def spread(samples: int) -> float:
        seen = adaptive(small_net, Noise(), eot_samples=samples)
        return torch.stack([input_gradient(seen, images, labels) for _ in range(12)]).std(0).mean().item()

    torch.manual_seed(0)
    assert spread(16) < spread(1) / 3  # a quarter, but for chance


def test_looking_for_randomness_leaves_the_random_stream_alone(images, small_net):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert is_random(adaptive(small_net, Noise()), images)
    assert torch.equal(torch.rand(3), expected)


def test_a_random_defense_is_known_for_one_though_the_classifier_hides_it(images, small_net):
    class Hiding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return small_net(torch.zeros_like(x))

    assert is_random(DefendedClassifier(Hiding(), Noise()), images)
    assert not is_random(DefendedClassifier(Hiding(), Identity()), images)


def test_a_smooth_surrogate_changes_the_gradient_and_not_the_answer(images, labels, small_net):
    for defense in (Binarize(), KMeansCompression(k=3), Chain(KMeansCompression(k=5), Binarize())):
        plain, smooth = (adaptive(small_net, defense, surrogate=how) for how in ("identity", "smooth"))
        assert torch.equal(plain(images), smooth(images))
        gradients = [input_gradient(seen, images, labels) for seen in (plain, smooth)]
        assert not torch.equal(*gradients)
        assert torch.isfinite(gradients[1]).all() and gradients[1].abs().amax((1, 2, 3)).min() > 0


def test_the_surrogate_of_a_threshold_is_steepest_at_it():
    x = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0]).view(1, 1, 1, 5).requires_grad_(True)
    Binarize(0.5).surrogate(x).sum().backward()
    slopes = x.grad.flatten()
    assert slopes.argmax() == 2 and slopes[0] < slopes[1] < slopes[2]


def test_the_surrogate_of_kmeans_is_kmeans_and_moves_with_its_cluster(images):
    kmeans = KMeansCompression(k=3, iterations=100)
    assert torch.allclose(kmeans.surrogate(images), kmeans(images), atol=1e-5)
    x = images[:1].clone().requires_grad_(True)
    kmeans.surrogate(x)[0, 0, 14, 14].backward()
    cluster = (kmeans(images[:1]) == kmeans(images[:1])[0, 0, 14, 14]).float()
    assert torch.allclose(x.grad, cluster / cluster.sum(), atol=1e-6)


def test_an_adaptive_attack_is_stronger_than_an_oblivious_one(images, labels, small_net):
    """A defense that hides the classifier's weak direction from who does not look: flipped images."""
    flip = nn.Module()
    flip.forward = lambda x: 1 - x
    defended = DefendedClassifier(small_net, flip)

    def loss(model: nn.Module) -> float:
        x_adv = pgd(model, images, labels, eps=0.1, steps=10, random_start=False)
        return nn.functional.cross_entropy(defended(x_adv), labels).item()

    assert loss(adaptive(small_net, flip)) > loss(gray_box(small_net, flip)) + 0.1


def test_refuses_arguments_out_of_range(small_net):
    for arguments in ({"eot_samples": 0}, {"surrogate": "rough"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            adaptive(small_net, Identity(), **arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_no_prediction(value, images, small_net):
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = small_net(x)
            logits[:, 3] = value
            return logits

    with pytest.raises(ValueError, match="returned logits that are not finite for this image") as error:
        DefendedClassifier(Broken(), Identity()).predict(images[0])
    assert "\n" not in str(error.value)
