"""Each check of a grid, triggered by a defense built for it, and silent about an honest one."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from src.attacks import fgsm, ifgsm
from src.defenses import Binarize
from src.evaluation import AttackSpec, Cell, CellSpec, SweepManifest
from src.evaluation.sanity_checks import Evidence, Finding, Probing, doubted, probes
from src.straight_through import straight_through
from src.workflows.sweeping import _warn
from tests.reporting import reporting_factories as make

EPS = 0.2
FAMILIES = {"fgsm": "one-step", "ifgsm": "iterative", "noise": "noise"}


class Honest(nn.Module):
    """Half the contrast: nothing that an attacker who knows of it could not undo."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.25


class Flat(nn.Module):
    """A step function whose gradient is zero everywhere, as autograd has it."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 7).round() / 7


class Undefined(nn.Module):
    """√0 has no derivative, and MNIST is mostly 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0 * (x * 0).sqrt()


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.01 * torch.randn_like(x)


class Reversed(nn.Module):
    """Lies about its gradient: what follows it goes the wrong way."""

    def forward(self, x: Tensor) -> Tensor:
        return straight_through(x, -x)


class ReversedOffTheGrid(nn.Module):
    """Lies about its gradient as soon as an image is not one that was scanned with 8 bits."""

    def forward(self, x: Tensor) -> Tensor:
        scanned = ((255 * x - (255 * x).round()).abs().amax((1, 2, 3), keepdim=True) < 1e-3).to(x)
        return straight_through(x, scanned * x - 3 * (1 - scanned) * x)


def uniform(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    return (x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)


ATTACKS = {"fgsm": fgsm, "ifgsm": ifgsm, "noise": uniform}

Judge = Callable[..., list[Finding]]


@pytest.fixture
def judge(specify, evaluator, tmp_path) -> Judge:
    """``judge(defense, "ifgsm", "fgsm gray_box")``: the findings of a sweep over these attacks, as a sweep has them."""

    def spec(defense: nn.Module, wish: str, eot_samples: int, **arguments: float) -> CellSpec:
        name, _, threat = wish.partition(" ")
        iterative = name == "ifgsm"
        return specify(
            eps=EPS,
            defense=defense,
            attack=ATTACKS[name],
            arguments={"steps": 10} | arguments if iterative else {},
            stronger=("steps",) if iterative else (),
            knows=threat != "gray_box",
            eot_samples=eot_samples,
            family=FAMILIES[name],
            names={"attack": name},
        )

    def judge(defense: nn.Module, *wishes: str, eot_samples: int = 8, **arguments: float) -> list[Finding]:
        specs = [spec(defense, wish, eot_samples, **arguments) for wish in wishes]
        checked = [probe for each in specs for probe in probes(each, Probing(images=40))]
        for each in [*specs, *(probe.spec for probe in checked)]:
            evaluator(each)
        SweepManifest(
            rows=tuple((each.coordinates, each.key) for each in specs),
            probes=tuple((probe.of, probe.kind, probe.spec.key) for probe in 2 * checked),  # a row and a member
        ).save(tmp_path)
        found = SweepManifest.load(tmp_path).check_report(evaluator.cells)
        assert found.probed == found.asked == len(checked)
        return list(found.findings)

    return judge


def names(found: list[Finding]) -> set[str]:
    return {each.name for each in found}


@pytest.mark.parametrize("defense", [Honest(), Binarize()])
def test_nothing_is_held_against_an_honest_defense(judge, defense):
    found = judge(defense, "fgsm", "ifgsm", "noise", "fgsm gray_box", "ifgsm gray_box")
    assert names(found) <= ({"stronger-attack-lowers"} if isinstance(defense, Binarize) else set())


@pytest.mark.parametrize(("defense", "said"), [(Flat(), "zero at 100%"), (Undefined(), "not finite at 100%")])
def test_a_gradient_that_is_none(judge, defense, said):
    found = {each.name: each.message for each in judge(defense, "fgsm")}
    assert said in found["zero-gradient"]


def test_probabilities_taken_for_logits(judge, classifier, monkeypatch):
    monkeypatch.setattr(classifier, "forward", partial(probabilities, classifier.forward))
    assert "probabilities-as-logits" in names(judge(Honest(), "fgsm"))


def probabilities(logits: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return logits(x).softmax(1)


def test_a_random_defense_attacked_with_one_sample(judge):
    assert "random-without-eot" in names(judge(Noisy(), "fgsm", eot_samples=1))
    assert "random-without-eot" not in names(judge(Noisy(), "ifgsm", eot_samples=2))
    assert "random-without-eot" not in names(judge(Honest(), "ifgsm", eot_samples=1))


def test_one_step_beats_iterative(judge):
    assert "one-step-beats-iterative" in names(judge(ReversedOffTheGrid(), "fgsm", "ifgsm"))


def test_a_black_box_beats_the_white_box(judge):
    found = {each.name: each for each in judge(Reversed(), "ifgsm", "ifgsm gray_box")}
    assert "ifgsm (gray_box) leaves" in found["black-box-beats-white-box"].message
    assert found["black-box-beats-white-box"].where.threat == "gray_box"


def test_a_worst_case_is_no_attack_of_its_own(specify, evaluator, caplog):
    """It leaves less than its best iterative member and has no gradient, but it is no black box."""
    common = {"eps": EPS, "defense": Honest(), "knows": True}
    weak = specify(**common, attack=ifgsm, arguments={"steps": 3, "rel_step": 0.1}, family="iterative").attack
    strong = specify(**common, attack=fgsm, family="one-step")
    worst = AttackSpec("worst", members={"ifgsm": weak, "fgsm": strong.attack})
    cell = evaluator(replace(strong, attack=worst))
    _warn(cell, [], evaluator.cells)
    assert "one-step-beats-iterative" in caplog.text
    assert "black-box-beats-white-box" not in caplog.text


def test_even_noise_beats_a_white_box_that_is_led_astray(judge):
    assert "black-box-beats-white-box" not in names(judge(Honest(), "ifgsm", "noise"))


def test_something_is_left_at_half_the_range(judge):
    found = {each.name: each for each in judge(Reversed(), "ifgsm")}
    assert found["unbroken-at-half"].where.eps == 0.5
    assert "of 40 images" in found["unbroken-at-half"].message


def test_checks_that_have_nothing_to_look_at_are_named(judge, evaluator, tmp_path):
    judge(Honest(), "ifgsm")
    pairs, proofs = ("one-step-beats-iterative", "black-box-beats-white-box"), ("proved-and-fooled", "nothing-to-prove")
    assert SweepManifest.load(tmp_path).check_report(evaluator.cells).idle == (*pairs, *proofs)
    judge(Honest(), "ifgsm", "fgsm", "noise")
    assert SweepManifest.load(tmp_path).check_report(evaluator.cells).idle == proofs


def test_an_attack_that_has_not_arrived(judge):
    """Steps too small to use the budget: twice as many go twice as far."""
    found = judge(Honest(), "ifgsm", steps=3, rel_step=0.15)
    assert "stronger-attack-lowers" in names(found)
    assert "more of the first 40 images" in next(
        each.message for each in found if each.name == "stronger-attack-lowers"
    )


def test_an_attack_that_has_not_arrived_does_not_matter_where_another_has(judge):
    """FGSM uses all of its budget at once, which is all that a linear classifier needs."""
    assert "stronger-attack-lowers" not in names(judge(Honest(), "ifgsm", "fgsm", steps=3, rel_step=0.15))


@pytest.fixture
def marked(judge, evaluator, tmp_path) -> Callable[..., list[str]]:
    """``marked(defense, "fgsm")``: attack, threat and eps of the accuracies that are marked as doubtful."""

    def marked(defense: nn.Module, *wishes: str, **arguments: int) -> list[str]:
        judge(defense, *wishes, **arguments)
        grid, _ = SweepManifest.load(tmp_path).judged(evaluator.cells)
        places = [(row.coordinates, row.cell.doubtful, row.cell.correct) for row in grid]
        assert all(correct for _, doubtful, correct in places if doubtful)
        return [f"{place.attack} {place.threat}" for place, doubtful, _ in places if doubtful]

    return marked


def test_the_accuracies_that_rest_on_what_was_found_are_marked_and_no_others(marked):
    knowing, unknowing = ("fgsm adaptive", "ifgsm adaptive"), ("fgsm gray_box", "ifgsm gray_box")
    assert marked(Flat(), "fgsm", "ifgsm", *unknowing) == [*knowing]
    assert marked(Honest(), "fgsm", "ifgsm", *unknowing) == []


def test_what_attackers_of_the_bare_classifier_left_is_marked_with_it(marked, classifier, monkeypatch):
    monkeypatch.setattr(classifier, "forward", partial(probabilities, classifier.forward))
    assert marked(Honest(), "fgsm gray_box") == ["fgsm gray_box"]


def test_a_worst_case_is_marked_with_a_member_and_nothing_is_where_nothing_is_left(specify, evaluator, tmp_path):
    common = {"defense": Flat(), "knows": True, "attack": fgsm, "family": "one-step"}
    rows = []
    for eps in (EPS, 1.0):
        single = specify(**common, eps=eps)
        rows.append(replace(single, attack=AttackSpec("worst", members={"fgsm": single.attack})))
    cells = [evaluator(spec) for spec in rows]
    manifest = SweepManifest(rows=tuple((spec.coordinates, spec.key) for spec in rows))
    grid, _ = manifest.judged(evaluator.cells)
    assert [row.cell.doubtful for row in grid] == [cell.correct > 0 for cell in cells]
    assert cells[0].correct and "doubtful" not in cells[0].to_json()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stronger-attack-lowers", [0.3]),
        ("zero-gradient", [0.1, 0.3]),
        ("nothing-to-prove", []),
        ("proved-and-fooled", [0.1, 0.3, "proof"]),
    ],
)
def test_a_check_of_one_eps_puts_that_eps_in_doubt_and_one_of_the_model_all(name, expected):
    def cell_at(eps: float, attack: str = "pgd") -> Cell:
        made = make.cell(make.coordinates(attack, eps, threat="adaptive"), 0.5)
        return replace(made, attacker={"knows_defense": True})

    proof = cell_at(0.3, "certified")
    evidence = Evidence((cell_at(0.1), cell_at(0.3)), proofs=(proof,))
    found = doubted(evidence, [Finding(name, make.coordinates("pgd", 0.3), "a reason")])
    assert ["proof" if cell is proof else cell.coordinates.eps for cell in found] == expected


def test_probes_can_be_turned_off_and_who_does_not_know_the_defense_has_none(specify):
    knowing = specify(eps=EPS, knows=True, arguments={"steps": 10}, stronger=("steps",))
    assert [probe.kind for probe in probes(knowing, Probing())] == ["stronger", "half"]
    assert probes(knowing, Probing())[0].spec.attack.component["steps"] == 20
    assert probes(knowing, Probing(images=0)) == []
    assert [probe.kind for probe in probes(specify(eps=EPS, knows=True), Probing())] == ["half"]  # nothing to double
    unknowing = specify(eps=EPS, binarize=True, arguments={"steps": 10}, stronger=("steps",))
    assert probes(unknowing, Probing()) == []
    assert len(probes(unknowing.without_defense(), Probing())) == 2, "without a defense there is nothing to know"
    assert probes(specify(eps=EPS, knows=True, family="one-step"), Probing()) == []
