"""What counts of the answers of a random defense."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm
from src.defended import DefendedClassifier, FrozenRandomness, adaptive, with_surrogates
from src.defenses import Binarize, Chain, RandomResizePad
from src.evaluation import CellStore
from src.evaluation.attacking import AttackedSets
from src.evaluation.model_checks import PROBED
from src.evaluation.spec import MAJORITY, WORST_OF_N, Verdict
from src.evaluation.verdicts import judged


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.6 * torch.randn_like(x)).clamp(0, 1)


class Recording(nn.Module):
    """Keeps the numbers that it draws: ``asked`` where a gradient is wanted, ``judged`` on attacked images."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[int] = set()
        self.judged: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        numbers = torch.randint(2**62, (100,)).tolist()
        if x.requires_grad:
            self.asked.update(numbers)
        elif (255 * x).frac().abs().amax() > 0.1:  # clean images have 8 bits
            self.judged.update(numbers)
        return x + 1e-3 * (numbers[0] % 7)


def test_the_attacker_does_not_know_the_numbers_by_which_he_is_judged(specify, evaluator):
    defense = Recording()
    evaluator(specify(eps=0.05, defense=defense, attack=fgsm, knows=True))
    assert defense.asked and defense.judged
    assert defense.asked.isdisjoint(defense.judged)


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


def test_a_single_answer_has_the_key_it_always_had_and_one_answer_is_the_single_one(noisy, evaluator):
    single = evaluator(noisy())
    assert "verdict" not in single.identity
    for name in (WORST_OF_N, MAJORITY):
        one = noisy(verdict=Verdict(name, 1))
        assert (one.key, one.coordinates) == (single.key, single.coordinates)


@pytest.mark.parametrize("name", [WORST_OF_N, MAJORITY])
@pytest.mark.parametrize("defense", [Noisy(), RandomResizePad()], ids=["noise", "resize_pad"])
def test_answers_do_not_depend_on_the_batch_size(specify, evaluator, name, defense):
    spec = specify(eps=0.05, defense=defense, verdict=Verdict(name, 5))
    found = []
    for batch_size in (16, 64, 7):
        evaluator.batch_size = batch_size
        evaluator.cells = CellStore(evaluator.cells.folder / str(batch_size))
        found.append(evaluator(spec).predictions)
    assert found[0] == found[1] == found[2]


def test_more_answers_are_never_better_for_a_defense_image_by_image(noisy, evaluator):
    evaluator.batch_size = 100  # as on a CPU by default, where the first answer is the single one
    right = [evaluator(noisy(verdict=Verdict(WORST_OF_N, n))).right for n in (1, 2, 4, 16)]
    assert all((more <= fewer).all() for fewer, more in pairwise(right))
    assert right[3].sum() < right[1].sum() < right[0].sum()


def test_a_worst_case_takes_the_verdicts_of_its_members_and_asks_no_more(noisy, evaluator):
    spec = noisy(verdict=Verdict(WORST_OF_N, 5))
    weak = replace(spec.attack, name="weak", component=spec.attack.component | {"steps": 1})
    suite = replace(spec.attack, component=None, members={"ifgsm": spec.attack, "weak": weak})
    worst, cells = replace(spec, attack=suite), [evaluator(spec), evaluator(replace(spec, attack=weak))]
    asked = []
    evaluator._other_answers = lambda *_: asked.append(1)
    assert (evaluator(worst).right == (cells[0].right & cells[1].right)).all()
    assert not asked


def test_a_defense_that_votes_pays_for_each_answer(noisy, evaluator):
    took = {n: evaluator(noisy(verdict=Verdict(MAJORITY, n))).stages["purify"] for n in (1, 40)}
    assert took[40] > 5 * took[1]


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
            asked += len(x) if len(x) > PROBED else 0
            return 0.5 * x + 0.25

    spec = specify(eps=0.0, defense=Counting())
    evaluator(spec)
    once, asked = asked, 0
    cell = evaluator(replace(spec, verdict=Verdict(WORST_OF_N, 7)))
    assert asked == once == 64
    assert cell.predictions == evaluator(spec).predictions


def test_a_random_defense_is_asked_again_though_the_first_images_do_not_show_it(specify, evaluator, shelf, digits):
    class Shaky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 0.1 * torch.randn_like(x)).clamp(0, 1)

    threshold = Binarize(0.5)
    grey = 0.5 + 0.05 * (digits.images - 0.5)  # the noise carries its pixels across the threshold
    first, others = threshold(digits.images[:PROBED]), grey[PROBED:]
    shelf.test_sets["digits"] = replace(digits, images=torch.cat([first, others]))
    classifier = nn.Sequential(threshold, shelf.made["linear"])
    spec = specify(eps=0.0, defense=Shaky(), classifier=classifier)
    single, worst = (evaluator(replace(spec, verdict=verdict)) for verdict in (Verdict(), Verdict(WORST_OF_N, 9)))
    assert (single.right == worst.right)[:PROBED].all(), "the noise does not show there"
    assert worst.accuracy < single.accuracy


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


def test_who_knows_a_frozen_defense_has_its_very_draw(images, small_net):
    frozen = FrozenRandomness(RandomResizePad())
    view = adaptive(small_net, frozen, eot_samples=20)
    assert torch.equal(view(images), DefendedClassifier(small_net, frozen)(images))
    assert not view.is_random(images)


def test_a_smooth_surrogate_is_found_behind_frozen_randomness(images):
    x = images.requires_grad_()
    seen = with_surrogates(FrozenRandomness(Chain(Binarize())))
    expected = with_surrogates(Binarize())
    assert torch.equal(seen(x), Binarize()(x))
    found, wanted = (torch.autograd.grad((model(x) * x.detach()).sum(), x)[0] for model in (seen, expected))
    assert torch.allclose(found, wanted)
