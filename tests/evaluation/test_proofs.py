"""Proofs of a set of images, what they are refused for, and their check against attacks."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from src.defended import DefendedClassifier
from src.defenses import AutoencoderPurifier, Binarize
from src.errors import UserError
from src.evaluation.cell import Cell, content_key
from src.evaluation.components import TestSet
from src.evaluation.contradictions import contradictions
from src.evaluation.proofs import digest_of, prove
from src.evaluation.spec import CERTIFICATE
from src.models import CertifiedVQVAE
from src.straight_through import StraightThrough
from tests.reporting.reporting_factories import cell, coordinates

EPS = 0.05


class Painter(nn.Module):
    """In the place of a decoder: paints the number of the class code as a shade of grey."""

    def forward(self, codes: Tensor) -> Tensor:
        return (codes[:, :10].argmax(1).float() / 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


class Reader(nn.Module):
    """A classifier that reads what :class:`Painter` paints."""

    def forward(self, images: Tensor) -> Tensor:
        return -100 * (10 * images[:, 0, 0, 0, None] - torch.arange(10.0)).square()


@pytest.fixture(scope="module")
def network(real_digits) -> CertifiedVQVAE:
    torch.manual_seed(0)
    small = {"convolutions": ((6, 5, 4, 2),), "linears": (16,), "style_codes": 2, "style_dimension": 2, "hidden": 2}
    made = CertifiedVQVAE(thresholds=(0.4, 0.6), **small)
    made.decoder = Painter()
    for _ in range(40):  # statistics of its own
        made.margins(made.box(real_digits[0][:64], 0.0), real_digits[1][:64])
    return made.eval().requires_grad_(False)


@pytest.fixture
def purifier(network: CertifiedVQVAE) -> AutoencoderPurifier:
    return AutoencoderPurifier(network)


@pytest.fixture
def digits(real_digits, purifier) -> TestSet:
    """Real digits, most of them with the class that the untrained network gives them."""
    x = real_digits[0][:48]
    y = Reader()(purifier(x)).argmax(1)
    y[:3] = (y[:3] + 1) % 10
    return TestSet(x, y, 10)


def test_what_is_proved_stands_random_attacks_and_what_is_refuted_falls(purifier, digits):
    found = prove(Reader().eval(), purifier, digits, EPS, nodes=50)
    model = DefendedClassifier(Reader(), purifier)
    assert 5 < found.proved.sum() < 45 and not found.proved[:3].any()
    for _ in range(20):
        moved = (digits.images + EPS * (2 * torch.randint(0, 2, digits.images.shape) - 1)).clamp(0, 1)
        assert (model(moved).argmax(1) == digits.labels)[found.proved].all()
    refuted = found.verdicts == 0
    assert refuted[:3].all() and (model(found.witnesses).argmax(1) != digits.labels)[refuted].all()
    assert ((found.witnesses - digits.images).abs() <= EPS + 1e-6).all()
    said = found.statistics
    assert said["proved"] + said["refuted"] + said["open"] == 48
    assert said["boxes"] == found.boxes.sum() and said["free_bits"] > 0 and said["digest"] == found.digest


def test_the_digest_is_of_all_that_a_proof_depends_on(network, purifier, digits):
    found = prove(Reader().eval(), purifier, digits, EPS, nodes=5)
    again = prove(Reader().eval(), StraightThrough(purifier), digits, EPS, nodes=5)  # another gradient alone
    assert found.digest == again.digest and torch.equal(found.verdicts, again.verdicts)
    asked = (network, Reader(), digits, EPS, 5, found.verdicts)
    assert digest_of(*asked) == found.digest
    linear = nn.Linear(2, 2)
    fewer = TestSet(digits.images[:47], digits.labels[:47], 10)
    flipped = found.verdicts.clone()
    flipped[0] += 1
    others = [
        (network, linear, digits, EPS, 5, found.verdicts),
        (network, Reader(), fewer, EPS, 5, found.verdicts),
        (network, Reader(), digits, 0.06, 5, found.verdicts),
        (network, Reader(), digits, EPS, 6, found.verdicts),
        (network, Reader(), digits, EPS, 5, flipped),
    ]
    assert len({digest_of(*each) for each in others} | {found.digest}) == 6


class Tampered(AutoencoderPurifier):
    """Looks like the defense, and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.1


@pytest.mark.parametrize(
    ("defense", "said"),
    [
        (lambda network: Binarize(0.5), "Binarize"),
        (lambda network: network, "CertifiedVQVAE"),
        (Tampered, "try defense=vqvae_certified"),
        (lambda network: AutoencoderPurifier(network, precision="bfloat16"), "purify_precision=float32"),
        (lambda network: AutoencoderPurifier(network, inference_noise=0.1), "inference_noise=0"),
        (lambda network: AutoencoderPurifier(network, clip=False), "clip_output=true"),
    ],
)
def test_other_defenses_are_refused(network, digits, defense, said):
    with pytest.raises(UserError, match=said) as refused:
        prove(Reader().eval(), defense(network), digits, EPS)
    assert "\n" not in str(refused.value)


class Random(Reader):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + torch.randn_like(logits)


class OfTheBatch(Reader):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.eye(10)[0] * len(images)


@pytest.mark.parametrize("classifier", [Random, OfTheBatch])
def test_a_classifier_that_is_not_steady_is_refused(purifier, digits, classifier):
    with pytest.raises(UserError, match="time to time or batch to batch"):
        prove(classifier().eval(), purifier, digits, EPS)


def test_images_and_settings_that_the_proof_is_not_about_are_refused(purifier, digits):
    reader = Reader().eval()
    for test, eps, nodes, said in (
        (TestSet(torch.zeros(2, 1, 32, 32), torch.zeros(2, dtype=torch.int64), 10), EPS, 1, "28, 28"),
        (TestSet(torch.zeros(2, 3, 28, 28), torch.zeros(2, dtype=torch.int64), 10), EPS, 1, "28, 28"),
        (replace(digits, num_classes=11), EPS, 1, "classes"),
        (digits, 1.5, 1, "eps"),
        (digits, float("nan"), 1, "eps"),
        (digits, EPS, 0, "nodes"),
    ):
        with pytest.raises(UserError, match=said):
            prove(reader, purifier, test, eps, nodes=nodes)
    with pytest.raises(UserError, match=r"eval\(\)"):
        prove(Reader().train(), purifier, digits, EPS)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match="float32"):
        prove(reader, purifier, digits, EPS)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(UserError, match="float32"):
            prove(reader, purifier, digits, EPS)
    finally:
        torch.set_float32_matmul_precision("highest")


def a_cell(attack: str, outcomes: str, eps: float = 0.3, defense: str = "vqvae_certified", **others: str) -> Cell:
    """A cell of ``len(outcomes)`` images, with an identity as a sweep's."""
    made = cell(coordinates(attack, eps, defense=defense, **others), n=len(outcomes))
    identity = made.identity | {"data": {"name": "mnist", "fingerprint": "f", "n": float(len(outcomes))}}
    family = CERTIFICATE if attack == "certified" else "iterative"
    return replace(made, key=content_key(identity), outcomes=outcomes, identity=identity, attacker={"family": family})


def test_an_image_that_is_proved_and_yet_fooled_is_an_error_of_the_program():
    proof = a_cell("certified", "1100")
    assert not contradictions([proof, a_cell("pgd", "1101"), a_cell("pgd", "1110", eps=0.1, threat="adaptive")])
    fooled = a_cell("pgd", "011", eps=0.2, threat="adaptive")
    (found,) = contradictions([a_cell("pgd", "1100"), fooled, proof])
    assert re.search(r"image 0: proved by certified eps 0\.3 .* fooled by pgd eps 0\.2", str(found))
    wrong = a_cell("fgsm", "0010", eps=0.0)
    (found,) = contradictions([proof, wrong])
    assert found.images == [0, 1] and "image 0 and 1 more" in str(found)


def test_a_proof_says_nothing_of_larger_budgets_and_of_other_models():
    proof = a_cell("certified", "1111")
    of_another = a_cell("pgd", "0000")
    identity = dict(of_another.identity)
    others = [
        a_cell("pgd", "0000", eps=0.4),
        a_cell("pgd", "0000", defense="none"),
        a_cell("certified", "0000"),  # a smaller budget of boxes
        replace(of_another, identity=identity | {"classifier": "d" * 64}),
        replace(of_another, identity=identity | {"data": identity["data"] | {"split": "val"}}),
        replace(of_another, identity=identity | {"protocol": "report"}),
    ]
    assert contradictions([proof, *others]) == []
