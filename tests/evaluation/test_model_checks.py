"""Models whose numbers would mean nothing, components that write into what others read, answers that are no numbers."""

import json

import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm, ifgsm
from src.defended import adaptive, gray_box
from src.defenses import Binarize, Identity
from src.errors import UserError
from src.evaluation import CellSpec, CellStore
from src.evaluation.attacking import AttackedSets
from src.evaluation.cell import NO_CLASS
from src.evaluation.components import TestSet
from src.evaluation.diagnosis import diagnose
from src.evaluation.evaluator import Evaluator
from src.evaluation.model_checks import check_model, frozen
from src.evaluation.sanity_checks import evidence_of, findings
from src.straight_through import StraightThrough


class Changed(nn.Module):
    """A network whose logits are changed by a function of images and logits."""

    def __init__(self, network: nn.Module, change) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x, self.network(x))


def nan_everywhere(x: Tensor, logits: Tensor) -> Tensor:
    return logits * torch.nan


def nan_at_bright_images(x: Tensor, logits: Tensor) -> Tensor:
    return logits.masked_fill(x.flatten(1).mean(1, keepdim=True) > 0.13, torch.nan)


def standardized_over_the_batch(x: Tensor, logits: Tensor) -> Tensor:
    return (logits - logits.mean(0)) / (logits.std(0, correction=0) + 1e-3)


def noisy(x: Tensor, logits: Tensor) -> Tensor:
    return logits + 0.5 * torch.randn_like(logits)


class Crop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:-1, 1:-1]


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


class BlackensInPlace(nn.Module):
    """A denoiser such as users write it."""

    def forward(self, x: Tensor) -> Tensor:
        x[x < 0.35] = 0
        return x


class Rounded(nn.Module):
    """Its gradient is there, and it is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x * 7) / 7


class Forgetful(nn.Module):
    """Changes a buffer of its own with every batch, as a BatchNorm that was left in training mode does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.mean.add_(x.mean())
        return x


@pytest.mark.parametrize(
    ("change", "defense", "said"),
    [
        (nan_everywhere, Identity(), "returned NaN for each of 8 clean images"),
        (standardized_over_the_batch, Identity(), "depend on batch_size"),
        (lambda x, logits: logits[:, :5], Identity(), r"returned \(8, 5\), not logits \(8, 10\)"),
        (lambda x, logits: logits, Crop(), r"turned images \(8, 1, 28, 28\) into \(8, 1, 26, 26\)"),
        (lambda x, logits: logits, NotANumber(), "returned pixels that are not finite in each of 8"),
    ],
)
def test_what_would_give_no_honest_number_is_refused_before_any_work(
    specify, evaluator, classifier, change, defense, said
):
    spec = specify(eps=0.1, classifier=Changed(classifier, change), defense=defense)
    with pytest.raises(UserError, match=said) as refused:
        evaluator.rehearse(spec)
    assert "\n" not in str(refused.value)
    assert not evaluator.cells.keys()


@pytest.mark.parametrize("change", [noisy, nan_at_bright_images, lambda x, logits: logits.bfloat16().float()])
def test_random_models_and_a_few_nans_are_not_refused(digits, classifier, change):
    check_model(Changed(classifier, change), Binarize(), digits.images, 10)


def test_an_image_whose_logits_are_nan_is_wrong_and_a_finding(specify, evaluator, classifier, digits):
    spec = specify(eps=0.1, classifier=Changed(classifier, nan_at_bright_images))
    cell = evaluator(spec)
    json.dumps(cell.to_json(), allow_nan=False)
    lost = [index for index, prediction in enumerate(cell.predictions) if prediction == NO_CLASS]
    assert 0 < len(lost) < 64
    assert all(cell.outcomes[index] == "0" for index in lost)
    clean = evaluator(spec.without_attack())
    assert clean.accuracy < 1, "torch's argmax takes NaN for the largest, which would be right for zeros"
    assert cell.attacker["nan_logits"] == pytest.approx(clean.predictions.count(NO_CLASS) / 64)
    (evidence,) = evidence_of([cell, clean], {}, evaluator.cells.get)
    assert {"not-finite-logits", "zero-gradient"} <= {each.name for each in findings(evidence)}


@pytest.mark.parametrize("defense", [Identity(), Binarize()])
def test_an_attacker_who_does_not_know_the_defense_is_looked_at_as_well(specify, evaluator, classifier, defense):
    softmax = Changed(classifier, lambda x, logits: logits.softmax(1))
    spec = specify(eps=0.1, binarize=isinstance(defense, Binarize), classifier=softmax)
    assert not spec.threat.knows_defense
    cell = evaluator(spec)
    assert cell.attacker["probabilities"] is True
    found = [each.name for evidence in evidence_of([cell], {}, evaluator.cells.get) for each in findings(evidence)]
    assert found.count("probabilities-as-logits") == 1


def test_one_look_at_a_model_serves_all_attacks_and_budgets(specify, evaluator, monkeypatch):
    looks = []
    monkeypatch.setattr("src.evaluation.evaluator.diagnose", lambda *seen: looks.append(seen) or diagnose(*seen))
    for eps in (0.1, 0.2):
        for binarize in (False, True):
            evaluator(specify(eps=eps, binarize=binarize))
    assert len(looks) == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_defense_that_writes_in_place_reaches_nobody_else(specify, shelf, tmp_path, first):
    """Two defenses in one process: what the other is credited with does not depend on the one that writes."""

    def swept(folder: str, *specs: CellSpec) -> dict[str, dict]:
        cells, sets = CellStore(tmp_path / folder / "cells"), AttackedSets(tmp_path / folder / "adversarial")
        evaluator = Evaluator(shelf, cells, sets, accelerator="cpu", batch_size=16)
        return {spec.coordinates.defense: evaluator(spec) for spec in specs}

    writing, honest = specify(eps=0.3, defense=BlackensInPlace()), specify(eps=0.3, binarize=True)
    together = swept("together", *((writing, honest) if first else (honest, writing)))
    for spec in (writing, honest):
        (alone,) = swept(spec.coordinates.defense, spec).values()
        beside = together[spec.coordinates.defense]
        for name in ("predictions", "clean_accuracy", "undefended_accuracy", "perturbation_linf", "reconstruction_mse"):
            assert getattr(alone, name) == getattr(beside, name), name
    assert together["blackensinplace"].reconstruction_mse > 0, "it was compared with what it had overwritten"


def test_an_attack_that_writes_in_place_does_not_pass_the_budget_check(specify, evaluator):
    def overspends(model, x, y, *, eps):
        return x.add_(3 * eps).clamp_(0, 1)

    with pytest.raises(ValueError, match="spent"):
        evaluator(specify(eps=0.1, attack=overspends))


def test_a_classifier_that_writes_in_place_sees_what_the_defense_made(specify, evaluator, classifier):
    class WritesInPlace(nn.Module):
        def forward(self, x):
            return classifier(x.fill_(0.5))

    cell = evaluator(specify(eps=0, classifier=WritesInPlace()))
    assert cell.reconstruction_mse == 0
    assert evaluator(specify(eps=0)).accuracy == 1, "its test set was written into"


def test_what_a_module_learns_while_it_is_evaluated_is_refused_and_taken_back(specify, evaluator):
    defense = Forgetful()
    with pytest.raises(UserError, match="changed mean of the defense"):
        evaluator(specify(eps=0.1, defense=defense))
    assert defense.mean == 0
    with frozen(defense=defense):
        pass


def test_randomness_inside_the_classifier_is_averaged_like_that_of_a_defense(digits, classifier):
    """The same noise, once before and once inside the classifier: the attacker fares the same."""

    class Noise(nn.Module):
        def forward(self, x):
            return x + 0.5 * torch.randn_like(x)

    x, y = digits.images, digits.labels
    inside = nn.Sequential(Noise(), classifier)
    models = {
        "before": adaptive(classifier, Noise(), eot_samples=10),
        "inside": adaptive(inside, Identity(), eot_samples=10),
        "gray box": gray_box(inside, Binarize(), eot_samples=10),
    }
    gradients = {}
    for name, model in models.items():
        assert model.is_random(x)
        torch.manual_seed(0)
        gradients[name] = fgsm(model, x, y, eps=0.2)
    assert torch.equal(gradients["before"], gradients["inside"])
    assert torch.equal(gradients["before"], gradients["gray box"])


def test_a_rounding_is_found_with_its_remedy_which_works(specify, evaluator):
    def knowing(defense):
        return specify(eps=0.3, defense=defense, knows=True, attack=ifgsm)

    cell = evaluator(knowing(Rounded()))
    (message,) = (
        each.message
        for evidence in evidence_of([cell], {}, evaluator.cells.get)
        for each in findings(evidence)
        if each.name == "zero-gradient"
    )
    assert "defense.bpda=true" in message
    passed_through = evaluator(knowing(StraightThrough(Rounded())))
    assert passed_through.attacker["zero_gradient"] == 0
    assert passed_through.clean_accuracy == cell.clean_accuracy
    assert passed_through.accuracy < 0.1 < 0.9 < cell.accuracy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": torch.zeros(4, 1, 28, 28, dtype=torch.uint8)}, "images must be float32"),
        ({"images": torch.full((4, 1, 28, 28), 255.0)}, r"images must be in \[0, 1\]; got values from 255 to 255"),
        ({"images": torch.full((4, 1, 28, 28), torch.nan)}, r"images must be in \[0, 1\]"),
        ({"images": torch.zeros(4, 1, 28, 28).half()}, "images must be float32"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, "labels must be 0 to 9; got 0 to 10"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, "labels must be 0 to 9; got -1 to 2"),
        ({"labels": torch.zeros(4)}, "labels int64"),
    ],
)
def test_a_test_set_is_images_and_their_labels(change, said):
    with pytest.raises(ValueError, match=said):
        TestSet(**{"images": torch.zeros(4, 1, 28, 28), "labels": torch.arange(4), "num_classes": 10} | change)
