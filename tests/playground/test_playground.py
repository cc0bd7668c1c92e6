"""What is shown of one image is what attacks and defenses do, on real digits with networks that know them."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from src.attacks import fgsm, ifgsm, mifgsm, threshold_crossing
from src.defended import DefendedClassifier, adaptive
from src.evaluation.evaluator import STRIDE
from src.models import VQVAE, Classifier
from src.playground.choices import Choice, Playground
from src.playground.demonstration import Demonstration, OutOfTimeError, demonstrate
from src.playground.rendering import sentences, to_html
from src.workflows.cells import evaluator_for
from tests.conftest import REPO
from tests.playground.play_world import overrides_for, playing, shared_world
from tests.workflows.conftest import USERS_OWN

pytestmark = pytest.mark.slow  # networks are trained first, in the world that all of these share

EPS = 0.2
OPTIONS = {group: {path.stem for path in (REPO / "conf" / group).glob("*.yaml")} for group in ("attack", "defense")}


@pytest.fixture(scope="module")
def world(slice_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return overrides_for(shared_world(tmp_path_factory, tmp_path_factory.mktemp("play"), slice_root), slice_root)


@pytest.fixture(scope="module")
def playground(world: list[str]) -> Playground:
    return playing(*world)


def parts(playground: Playground, defense: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The classifier, and a defense by its label."""
    spec = playground.spec(Choice("fgsm", 0, defense, "gray_box"))
    components = playground.components
    return components.classifier(spec.classifier), components.build(spec.defense.component)


def right(playground: Playground) -> list[int]:
    """The first test images that the classifier knows."""
    test, (classifier, _) = playground.test, parts(playground, "none")
    with torch.no_grad():
        return (classifier(test.images).argmax(1) == test.labels).nonzero().flatten().tolist()


def test_the_world_is_worth_playing_in(playground):
    classifier, _ = parts(playground, "none")
    assert isinstance(classifier, Classifier)
    assert isinstance(parts(playground, "vqvae 0.5")[1].vqvae, VQVAE)
    assert len(right(playground)) > 0.7 * len(playground.test.labels)


@pytest.mark.parametrize("attack", [fgsm, ifgsm, mifgsm, threshold_crossing], ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("threat", ["gray_box", "adaptive"])
@pytest.mark.parametrize("defense", ["none", "binarize", "kmeans", "vqvae 0.5"])
def test_pictures_and_confidences_are_those_of_the_parts(playground, attack, threat, defense):
    index = right(playground)[0]
    image, label = playground.test.images[index], int(playground.test.labels[index])
    name = "threshold" if attack is threshold_crossing else attack.__name__
    shown = playground.show(image, label, Choice(name, EPS, defense, threat))
    classifier, purifier = parts(playground, defense)
    defended = DefendedClassifier(classifier, purifier)
    x, y = image[None], torch.tensor([label])
    arguments = {"steps": 10} if name in ("ifgsm", "mifgsm") else {}
    if name == "threshold":
        arguments["early_stop"] = threat == "adaptive"
    attacked = attack(
        adaptive(classifier, purifier) if threat == "adaptive" else classifier, x, y, eps=EPS, **arguments
    )
    with torch.no_grad():
        assert torch.equal(shown.original, image)
        assert torch.allclose(shown.attacked, attacked[0], atol=1e-6)
        assert torch.allclose(shown.purified, purifier(attacked)[0], atol=1e-6)
        assert torch.allclose(shown.before, classifier(x).softmax(1)[0], atol=1e-5)
        assert torch.allclose(shown.undefended, classifier(attacked).softmax(1)[0], atol=1e-5)
        assert torch.allclose(shown.defended, defended(attacked).softmax(1)[0], atol=1e-5)
    assert torch.equal(shown.perturbation, shown.attacked - shown.original)
    if name == "fgsm" and threat == "gray_box":
        assert shown.perturbation.abs().max() == pytest.approx(EPS)


def test_it_is_what_a_sweep_counts(playground):
    choice = Choice("ifgsm", EPS, "vqvae 0.5", "adaptive")
    cell = evaluator_for(playground.config)(playground.spec(choice).on_first(12))
    shown = [
        playground.show(image, int(label), choice)
        for image, label in zip(playground.test.images[:12], playground.test.labels[:12], strict=True)
    ]
    assert [int(each.defended.argmax()) for each in shown] == cell.predictions
    assert len(set(cell.outcomes)) == 2  # the attack fails on some and not on others


def test_at_eps_0_nothing_is_attacked(playground):
    image = playground.test.images[0]
    shown = playground.show(image, 7, Choice("worst", 0, "kmeans", "adaptive"))
    assert not shown.perturbation.any()
    assert torch.equal(shown.before, shown.undefended)
    assert torch.equal(shown.purified, parts(playground, "kmeans")[1](image[None])[0])


@pytest.mark.parametrize("attack", ["pgd", "uniform", "apgd_ce", "transfer"])
def test_other_attacks_keep_to_their_budget_and_can_be_repeated(playground, attack):
    image, label = playground.test.images[1], int(playground.test.labels[1])
    choice = Choice(attack, 0.1, "binarize", "gray_box")
    state = torch.get_rng_state()
    first, second = (playground.show(image, label, choice) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.attacked, second.attacked)
    assert 0 < first.perturbation.abs().max() <= 0.1 + 1e-6
    assert first.attacked.min() >= 0 and first.attacked.max() <= 1


def test_of_a_worst_case_the_first_member_that_fools_is_shown(playground):
    spec = playground.spec(Choice("worst", 0.1, "none", "gray_box"))
    assert set(spec.members) > {"fgsm", "ifgsm", "transfer", "square"}
    kept = {name: spec.attack.members[name] for name in ("uniform", "fgsm", "ifgsm", "transfer")}
    spec = replace(spec, attack=replace(spec.attack, members=kept))
    components = playground.components
    seen = set()
    for image, label in zip(playground.test.images[:8], playground.test.labels[:8], strict=True):
        alone = [demonstrate(member, image, int(label), components=components) for member in spec.members.values()]
        fooling = [each for each in alone if each.defended.argmax() != label]
        expected = fooling[0] if fooling else alone[-1]
        shown = demonstrate(spec, image, int(label), components=components)
        assert shown.attack == expected.attack
        assert torch.equal(shown.attacked, expected.attacked)
        seen.add((shown.attack, bool(fooling)))
    assert len(seen) > 1


def test_without_a_label_it_is_what_the_classifier_says(playground):
    choice = Choice("fgsm", EPS, "none", "gray_box")
    wrong = next(i for i in range(len(playground.test.labels)) if i not in right(playground))
    image = playground.test.images[wrong]
    supposed = int(playground.show(image, None, choice).before.argmax())
    assert supposed != playground.test.labels[wrong]
    assert playground.show(image, None, choice).label == supposed
    assert torch.equal(playground.show(image, None, choice).attacked, playground.show(image, supposed, choice).attacked)


def test_an_attack_that_takes_too_long_is_given_up(playground):
    spec = playground.spec(Choice("autoattack", EPS, "none", "gray_box"))
    show = partial(demonstrate, image=playground.test.images[0], label=7, components=playground.components)
    with pytest.raises(OutOfTimeError, match=r"autoattack was given up after 0\.2 s"):
        show(spec, patience=0.2)
    assert show(spec.at(0.1).without_attack(), patience=60).eps == 0


def test_every_yaml_file_is_offered(playground):
    assert set(playground.attacks) == OPTIONS["attack"] - {"certified"}  # a proof, no attack
    untrained = {"autoencoder", "vae", "diffpure"}
    assert set(playground.defenses) == OPTIONS["defense"] - untrained - {"vqvae"} | {"vqvae 0", "vqvae 0.5"}
    assert set(playground.threats) == {"gray_box", "adaptive"}
    left_out = {sentence.partition(": ")[0] for sentence in playground.left_out}
    assert left_out == {f"defense {name} {noise}" for name in untrained for noise in (0, 0.5)}
    assert playground.first == Choice("fgsm", 0.2, "binarize", "gray_box")


def test_other_data_anyones_classifier_and_components_and_what_is_missing(slice_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    own = ("data=fashion_mnist", "classifier=tests.workflows.components:linear_classifier", USERS_OWN)
    playground = playing(*overrides_for(tmp_path, slice_root), *own)
    said = {sentence.partition(": ")[0]: sentence for sentence in playground.left_out}
    assert not any("\n" in sentence for sentence in said.values())
    libraries = {
        f"attack {name}" for name in ("apgd_ce", "apgd_dlr", "apgd_t", "autoattack", "autoattack_rand", "square")
    }
    assert set(said) == libraries | {
        *("attack transfer", "attack worst", "attack noted", "defense noted"),
        *("defense vqvae 0", "defense vqvae_robust", "defense vqvae_certified"),
        *("defense autoencoder 0", "defense vae 0", "defense diffpure 0"),
    }
    assert all("pip install" in said[name] and "[attacks]" in said[name] for name in libraries)
    assert "python -m src.train model=vqvae noise=0 data=fashion_mnist" in said["defense vqvae 0"]
    assert "python -m src.train model=classifier data=fashion_mnist data.root=" in said["attack transfer"]
    offered = {name for name in OPTIONS["attack"] - {"certified"} if f"attack {name}" not in said}
    assert set(playground.attacks) == offered | {"random_signs"}
    untrained = {"vqvae", "vqvae_robust", "vqvae_certified", "autoencoder", "vae", "diffpure"}
    assert set(playground.defenses) >= OPTIONS["defense"] - untrained | {"blur"}
    image, label = playground.test.images[0], int(playground.test.labels[0])
    shown = playground.show(image, label, Choice("random_signs", 0.1, "blur", "gray_box"))
    blurred = torch.nn.functional.avg_pool2d(shown.attacked[None], 3, stride=1, padding=1)[0]
    assert torch.allclose(shown.purified, blurred, atol=1e-6)
    assert shown.perturbation.abs().max() == pytest.approx(0.1)


def test_what_the_command_line_changes_in_the_chosen_does_not_reach_the_others(world):
    playground = playing(
        *world, "attack=ifgsm", "attack.steps=3", "defense=vqvae", "noise=0.5", "noises=[0.6]", "eps=0.6"
    )
    assert playground.first == Choice("ifgsm", 0.6, "vqvae 0.5", "gray_box")
    assert [sentence for sentence in playground.left_out if "python -m src.train model=vqvae noise=0.6" in sentence]
    steps = {name: OmegaConf.select(node, "steps") for name, node in playground.attacks.items()}
    assert (steps["ifgsm"], steps["pgd"]) == (3, 100)
    image, label = playground.test.images[0], int(playground.test.labels[0])
    shown = playground.show(image, label, Choice("ifgsm", EPS, "none", "gray_box"))
    classifier, _ = parts(playground, "none")
    attack = partial(ifgsm, classifier, image[None], torch.tensor([label]), eps=EPS)
    assert torch.equal(shown.attacked, attack(steps=3)[0])
    assert not torch.equal(shown.attacked, attack(steps=10)[0])


def test_a_random_defense_is_judged_on_noise_that_the_attacker_has_not_seen(playground):
    """As in a cell, the defense's stream begins away from the attacker's."""
    (image,), (label,) = playground.test.images[:1], playground.test.labels[:1]
    shown = playground.show(image, int(label), Choice("fgsm", EPS, "resize_pad", "adaptive"))
    _, purifier = parts(playground, "resize_pad")
    torch.manual_seed(STRIDE)
    with torch.no_grad():
        assert torch.equal(shown.purified, purifier(shown.attacked[None])[0])


def test_an_answer_that_is_not_a_number_is_no_class():
    shown, nothing, zero = torch.rand(1, 4, 4), torch.zeros(3), torch.tensor([1.0, 0, 0])
    demonstration = Demonstration(0, "fgsm", 0.1, shown, shown, shown + 0.1, zero, zero, nothing)
    *_, last = sentences(demonstration, "mine", "gray_box", False)
    assert last.startswith("Through mine it is taken for no class, because") and last.endswith("the defense harms.")
    assert "0 (0.0" not in to_html(demonstration, "mine", "gray_box")
