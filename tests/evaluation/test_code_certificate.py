"""Certificates of a purifier with finitely many codes, against exhaustive enumeration."""

import pytest
import torch
from torch import Tensor, nn

from src.evaluation.code_certificate import CodeCertifier, Verdict, bit_box, readings
from src.models import CertifiedVQVAE
from tests.evaluation.exhaustion import nearly_black_and_white, outcomes, small_network

EPS = 0.2


class Painter(nn.Module):
    """In the place of a decoder: paints the number of the class code as a shade of grey."""

    def forward(self, codes: Tensor) -> Tensor:
        return (codes[:, :4].argmax(1).float() / 10).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)


def reads(images: Tensor) -> Tensor:
    """A classifier that reads what :class:`Painter` paints."""
    return -100 * (10 * images[:, 0, 0, 0, None] - torch.arange(4.0)).square()


@pytest.fixture(scope="module")
def network() -> CertifiedVQVAE:
    made = small_network(0.4, 0.6)
    made.decoder = Painter()
    return made


@pytest.fixture(scope="module")
def images() -> Tensor:
    return nearly_black_and_white(7)


def everything(network: CertifiedVQVAE, x: Tensor) -> set[int]:
    """All classes that an attacker can have given to one image (1, 8, 8)."""
    return outcomes(network, lambda tried: reads(network(tried)).argmax(1), x, EPS, at_most=3**7)


def test_verdicts_are_those_of_exhaustive_enumeration(network, images):
    y = reads(network(images)).argmax(1)
    certificates = CodeCertifier(network, reads, nodes=100_000).certify(images, y, EPS)
    stands = torch.tensor([everything(network, x) == {int(label)} for x, label in zip(images, y, strict=True)])
    assert 10 < stands.sum() < 50
    assert torch.equal(certificates.verdicts == Verdict.PROVED, stands)
    assert torch.equal(certificates.verdicts == Verdict.REFUTED, ~stands)
    wrong = certificates.witnesses[~stands]
    assert (reads(network(wrong)).argmax(1) != y[~stands]).all()
    assert ((wrong - images[~stands]).abs() <= EPS + 1e-6).all() and wrong.min() >= 0 and wrong.max() <= 1
    assert torch.equal(certificates.witnesses[stands], images[stands])


def test_splitting_proves_what_one_box_cannot(network, images):
    y = reads(network(images)).argmax(1)
    once = CodeCertifier(network, reads, nodes=1).certify(images, y, EPS)
    often = CodeCertifier(network, reads, nodes=1000).certify(images, y, EPS)
    proved = [(found.verdicts == Verdict.PROVED) for found in (once, often)]
    assert proved[0].any() and (proved[0] <= proved[1]).all() and proved[0].sum() < proved[1].sum()
    assert (once.verdicts == Verdict.OPEN).any() and (once.nodes <= 1).all()
    box = bit_box(images, torch.tensor([0.4, 0.6]).view(1, 2, 1, 1), EPS)
    assert torch.equal(once.free, (box.radius > 0).flatten(1).sum(1))


def test_an_image_that_is_wrong_without_attack_is_refuted_by_itself(network, images):
    y = (reads(network(images)).argmax(1) + 1) % 4
    found = CodeCertifier(network, reads).certify(images, y, EPS)
    assert (found.verdicts == Verdict.REFUTED).all() and torch.equal(found.witnesses, images)


def test_without_a_budget_what_is_right_is_proved(network, images):
    y = reads(network(images)).argmax(1)
    assert (CodeCertifier(network, reads).certify(images, y, 0.0).verdicts == Verdict.PROVED).all()


def test_one_drawing_that_is_misread_is_enough_to_prove_nothing(network, images):
    y = reads(network(images)).argmax(1)

    def misreads(drawings: Tensor) -> Tensor:
        return reads(drawings).roll(1, 1)

    certifier = CodeCertifier(network, misreads)
    assert (certifier.certify(images, y, EPS).verdicts == Verdict.REFUTED).all()

    def doubtful(drawings: Tensor) -> Tensor:
        return torch.zeros(len(drawings), 4)

    assert readings(network, doubtful).all()
    assert not (CodeCertifier(network, doubtful, nodes=100).certify(images, y, EPS).verdicts == Verdict.PROVED).any()


def test_a_drawing_that_the_classifier_does_not_read_proves_nothing(network, images):
    def silent_on_one(drawings: Tensor) -> Tensor:
        logits = reads(drawings)
        return torch.where(logits.argmax(1, keepdim=True) == 1, torch.nan, logits)

    assert readings(network, silent_on_one)[1].all()
    ones = torch.ones(len(images), dtype=torch.int64)
    found = CodeCertifier(network, silent_on_one, nodes=100).certify(images, ones, 0.0)
    assert not (found.verdicts == Verdict.PROVED).any()


def test_codes_that_are_read_alike_need_not_be_told_apart(network, images):
    def one(drawings: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(len(drawings), -1)

    zeros = torch.zeros(len(images), dtype=torch.int64)
    assert (CodeCertifier(network, one, nodes=1).certify(images, zeros, 0.4).verdicts == Verdict.PROVED).all()


def test_what_an_attack_is_allowed_by_rounding_is_within_the_box(network):
    x = torch.tensor([0.2, 0.2 + 1e-6, 0.1999, 0.6000001, 0.8, 0.80001]).view(1, 1, 1, 6)
    box = bit_box(x, torch.tensor([0.4]).double().view(1, 1, 1, 1), 0.2)
    assert (box.radius > 0).flatten().tolist() == [True, True, False, True, False, False]
    assert box.centre.flatten().tolist()[2] == 0 and box.centre.flatten().tolist()[4:] == [1, 1]


def test_a_budget_of_no_nodes_is_refused(network):
    with pytest.raises(ValueError, match="nodes"):
        CodeCertifier(network, reads, nodes=0)
