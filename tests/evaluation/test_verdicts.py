"""What counts of the answers of a random defense."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from src.defended import FrozenRandomness
from src.evaluation import CellStore
from src.evaluation.attacking import AttackedSets
from src.evaluation.spec import MAJORITY, WORST_OF_N, Verdict
from src.evaluation.verdicts import judged


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.6 * torch.randn_like(x)).clamp(0, 1)


def test_one_wrong_answer_is_enough_for_the_worst_and_ties_go_against_the_defense():
    labels = torch.tensor([3, 3, 3, 3, 3])
    answers = torch.tensor([[3, 3, 3, 5, 3], [3, 5, 5, 5, 3], [3, 3, 5, 3, 7], [3, 3, 3, 7, 7]])
    assert judged(answers, labels, WORST_OF_N).tolist() == [3, 5, 5, 5, 7]
    assert judged(answers, labels, MAJORITY).tolist() == [3, 3, 5, 5, 7]
    assert judged(answers, labels, "single").tolist() == [3, 3, 3, 5, 3]
    with pytest.raises(ValueError, match="worst_of_n, majority"):
        judged(answers, labels, "best")


@pytest.fixture
def noisy(specify):
    return lambda **changes: replace(specify(eps=0.05, defense=Noisy()), **changes)


def test_a_single_answer_has_the_key_it_always_had_and_one_answer_is_one_answer(noisy, evaluator):
    single = evaluator(noisy())
    assert "verdict" not in single.identity
    for name in (WORST_OF_N, MAJORITY):
        one = evaluator(noisy(verdict=Verdict(name, 1)))
        assert one.predictions == single.predictions and one.key != single.key


def test_verdicts_are_ordered_and_named_beside_the_defense(noisy, evaluator):
    single = evaluator(noisy())
    worst = [evaluator(noisy(verdict=Verdict(WORST_OF_N, n))) for n in (2, 5)]
    majority = evaluator(noisy(verdict=Verdict(MAJORITY, 15)))
    assert 0 < worst[1].accuracy < worst[0].accuracy < single.accuracy < 1
    assert worst[1].accuracy < majority.accuracy
    assert not (worst[1].right & ~worst[0].right).any(), "the first answers are the same"
    assert worst[1].coordinates.defense.endswith("(worst of 5)")
    assert majority.coordinates.defense.endswith("(majority of 15)")
    assert worst[1].clean_accuracy < single.clean_accuracy, "clean images are asked about as often"


def test_it_does_not_depend_on_the_number_of_answers_asked_before(noisy, evaluator, tmp_path):
    spec = noisy(verdict=Verdict(MAJORITY, 3))
    again = replace(evaluator, cells=CellStore(tmp_path / "again"), attacked=AttackedSets(None))
    again(noisy())
    assert again(spec).predictions == evaluator(spec).predictions


def test_a_defense_that_is_not_random_is_asked_once(specify, evaluator):
    asked = 0

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal asked
            asked += len(x) > 16  # more than a probe
            return 0.5 * x + 0.25

    spec = specify(eps=0.0, defense=Counting())
    evaluator(spec)
    once, asked = asked, 0
    cell = evaluator(replace(spec, verdict=Verdict(WORST_OF_N, 7)))
    assert asked == once
    assert cell.predictions == evaluator(spec).predictions


def test_frozen_randomness_is_the_same_for_every_image_query_and_batch(images):
    frozen = FrozenRandomness(Noisy(), seed=3)
    state = torch.get_rng_state()
    x = images[:1].expand(5, -1, -1, -1)
    answers = frozen(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(answer, answers[0]) for answer in answers) and not torch.equal(answers[0], x[0])
    assert torch.equal(frozen(images), torch.cat([frozen(images[:5]), frozen(images[5:])]))
    assert not torch.equal(FrozenRandomness(Noisy(), seed=4)(x), answers)
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(frozen(x).sum(), x)
    assert gradient.abs().sum() > 0
