"""Attacks and purifiers by name, as Python asks for them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from src.attacks import fgsm, pgd
from src.attacks.verdict import fooled
from src.defenses import Binarize, KMeansCompression
from src.errors import UserError
from src.workflows.command import register_resolvers
from src.workflows.named import attack_by_name, purifier_by_name


def too_far(model, x, y, *, eps):
    return (x + 2 * eps).clamp(0, 1)


def test_an_attack_by_name_is_that_of_its_yaml_with_the_values_that_are_given(knows_digits, real_digits):
    x, y = (part[:8] for part in real_digits)
    torch.manual_seed(0)
    named = attack_by_name("pgd", "attack.steps=3", "attack.restarts=1")(knows_digits, x, y, eps=0.1)
    torch.manual_seed(0)
    assert torch.equal(named, pgd(knows_digits, x, y, eps=0.1, steps=3, restarts=1, early_stop=True))


def test_it_works_within_a_program_of_hydras_and_leaves_its_state_alone(tmp_path):
    (tmp_path / "host.yaml").write_text("mine: ${values:}\n")
    OmegaConf.register_new_resolver("values", lambda: "the host's", replace=True)  # a name of one of ours
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            attack_by_name("fgsm")
            purifier_by_name("binarize")
            assert compose("host").mine == "the host's"
    finally:
        register_resolvers()  # for the tests after this one


def test_threads_may_ask_at_the_same_time():
    names = ["fgsm", "pgd", "uniform"] * 2
    with ThreadPoolExecutor(len(names)) as threads:
        found = [attack.args[0].func.__name__ for attack in threads.map(attack_by_name, names)]
    assert found == names


def test_a_suite_by_name_leaves_at_most_what_one_of_its_attacks_leaves(knows_digits, real_digits):
    x, y = (part[:48] for part in real_digits)
    x_adv = attack_by_name("worst_gradient", "attack.members.pgd.steps=5")(knows_digits, x, y, eps=0.1)
    assert (x_adv - x).abs().max() <= 0.1 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1
    by_one_step = fooled(knows_digits, fgsm(knows_digits, x, y, eps=0.1), y)
    by_the_suite = fooled(knows_digits, x_adv, y)
    assert by_the_suite.sum() > by_one_step.sum() and by_the_suite[by_one_step].all()


def test_a_suite_refuses_a_model_that_answers_at_random(real_digits):
    x, y = (part[:8] for part in real_digits)
    random = nn.Sequential(nn.Flatten(), nn.Dropout(0.9)).train()
    with pytest.raises(ValueError, match="which images still stand is not known"):
        attack_by_name("worst_gradient")(random, x, y % 4, eps=0.1)


def test_a_suite_of_ones_own_need_not_speak_of_survivors(small_net, images, labels):
    attack = attack_by_name("worst_gradient", "~attack.survivors")
    x_adv = attack(small_net, images, labels, eps=0.1)
    assert 0 < (x_adv - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("name", ["fgsm", "pgd", "worst_gradient"])
def test_images_that_are_none_are_refused_before_the_model_is_asked(name, small_net, images, labels):
    with pytest.raises(ValueError, match="x must be a torch tensor"):
        attack_by_name(name)(small_net, images.numpy(), labels, eps=0.1)


def test_an_attack_of_ones_own_that_spends_more_than_eps_is_refused(small_net, images, labels):
    attack = attack_by_name("fgsm", "attack._target_=tests.workflows.test_named.too_far")
    with pytest.raises(ValueError, match="eps"):
        attack(small_net, images, labels, eps=0.1)


def test_a_purifier_by_name_is_that_of_its_yaml_with_the_values_that_are_given(images):
    assert torch.equal(purifier_by_name("binarize", "defense.purifier.threshold=0.25")(images), Binarize(0.25)(images))
    assert torch.equal(purifier_by_name("kmeans", "defense.purifier.k=3")(images), KMeansCompression(k=3)(images))
    assert torch.equal(purifier_by_name("none")(images), images)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: attack_by_name("pgdd"), "there is no attack=pgdd; did you mean pgd"),
        (lambda: attack_by_name("pgd", "attack.step=3"), r"there is no attack\.step with attack=pgd"),
        (lambda: attack_by_name("[fgsm,ifgsm]"), "chooses several where one is wanted"),
        (lambda: attack_by_name("null"), "attack=null chooses none"),
        (lambda: attack_by_name("pgd", "attack.steps=${nope}"), "'nope' not found"),
        (lambda: attack_by_name("pgd", "eot_samples=50"), "eot_samples=50 has no effect here"),
        (lambda: attack_by_name("pgd", "threat=gray_box"), "threat=gray_box has no effect here"),
        (lambda: purifier_by_name("kmeans", "+noize=3"), r"\+noize=3 has no effect here"),
        (lambda: purifier_by_name("kmeans", "+defense.kk=3"), "no part of defense is called kk"),
        (lambda: purifier_by_name("vqvae", "noise=0.25", "data=folder"), r"data\.root has no default"),
        (lambda: attack_by_name("certified"), "attack=certified is a proof and no attack"),
        (lambda: purifier_by_name("kmeen"), "there is no defense=kmeen; did you mean kmeans"),
    ],
)
def test_a_name_or_value_that_is_not_there_is_a_line(ask, said):
    with pytest.raises(UserError, match=said) as refused:
        ask()
    assert "\n" not in str(refused.value)


def test_what_has_a_checkpoint_says_how_to_train_it(mnist, tmp_path):
    elsewhere = (f"data.root={mnist.root}", f"paths.outputs={tmp_path}")
    with pytest.raises(UserError, match=r"no checkpoint .*train it with: .* model=vqvae noise=0\.25"):
        purifier_by_name("vqvae", "noise=0.25", *elsewhere)
    with pytest.raises(UserError, match=r"no checkpoint .*train it with: .* model=classifier"):
        attack_by_name("transfer", *elsewhere)
