"""Robust accuracy: each image counts as right only if no attack of the suite fools the defended classifier."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from src.attacks import fgsm, ifgsm
from src.evaluation import AttackSpec, CellSpec
from src.evaluation.worst_case import worst_case


def darker(model, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    return (x - eps).clamp(0, 1)


ATTACKS = {"fgsm": fgsm, "darker": darker, "ifgsm": partial(ifgsm, steps=3)}


@pytest.fixture
def suite(specify, shelf):
    """``suite(binarize=…)``: the specification of a worst case over three attacks."""

    def make(eps: float = 0.2, **fields) -> CellSpec:
        members = {name: AttackSpec(name, shelf.put(name, attack)) for name, attack in ATTACKS.items()}
        return replace(specify(eps=eps, **fields), attack=AttackSpec("worst", members=members))

    return make


@pytest.mark.parametrize("knows", [False, True])
@pytest.mark.parametrize("binarize", [False, True])
def test_is_the_minimum_of_every_image_and_so_at_most_every_attack(evaluator, suite, binarize, knows):
    spec = suite(eps=0.45 if binarize else 0.2, binarize=binarize, knows=knows)
    cell = evaluator(spec)
    members = {name: evaluator(member) for name, member in spec.members.items()}
    right = torch.tensor([[outcome == "1" for outcome in member.outcomes] for member in members.values()])
    assert cell.outcomes == "".join("1" if each else "0" for each in right.all(0).tolist())
    assert all(cell.correct <= member.correct for member in members.values())
    assert cell.correct < max(member.correct for member in members.values()), "this test wants attacks that differ"
    assert {name: told["key"] for name, told in cell.members.items()} == {n: m.key for n, m in members.items()}
    for i, name in enumerate(members):
        others = torch.cat([right[:i], right[i + 1 :]]).all(0)
        assert cell.members[name]["alone"] == (others & ~right[i]).sum().item()


def test_its_images_are_those_of_the_attacks_that_were_chosen(evaluator, suite, digits):
    cell = evaluator(suite())
    again = evaluator.cells.get(cell.key)
    assert again == cell
    assert 0.1 < cell.perturbation_linf <= 0.2 + 1e-6
    predicted = torch.tensor(cell.predictions)
    assert [str(int(right)) for right in predicted == digits.labels] == list(cell.outcomes)
    assert cell.examples["predictions"] == cell.predictions[: len(cell.examples["predictions"])]


def test_members_are_computed_once_and_found_again(evaluator, another, suite, shelf):
    spec = suite()
    counted = []

    def counting(model, x, y, *, eps):
        counted.append(len(x))
        return darker(model, x, y, eps=eps)

    shelf.put("darker", counting)
    first = evaluator(spec)
    batches = len(counted)
    assert batches == 4  # 64 images in batches of 16
    (evaluator.cells.path(spec.key)).unlink()
    assert another()(spec).outcomes == first.outcomes
    assert len(counted) == batches


def test_without_attack_there_is_no_worst_case(evaluator, suite):
    cell = evaluator(suite(eps=0))
    assert cell.members == {}
    assert cell.accuracy == cell.clean_accuracy


def test_an_image_counts_as_right_only_where_all_say_so(evaluator, specify):
    cells = {name: evaluator(specify(eps=eps)) for name, eps in (("small", 0.05), ("large", 0.3))}
    assert (worst_case(cells).right == cells["large"].right).all()
    assert worst_case(cells).members["small"]["alone"] == 0
    with pytest.raises(ValueError, match="the same images"):
        worst_case(cells | {"fewer": replace(cells["small"], outcomes="11", predictions=[1, 1], n=2)})
    with pytest.raises(ValueError, match="needs attacks"):
        worst_case({})
