"""One gradient serves every attack that begins with it; one attacked set serves every defense."""

import json
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from src.attacks import fgsm, ifgsm, input_gradient, mifgsm, pgd
from src.defended import DefendedClassifier, adaptive
from src.defenses import Binarize
from src.evaluation.attacking import AttackedModel, attack_images

BATCHES = 4  # 64 images in batches of 16
LOOKED_AT = 1  # the batch that a process diagnoses a model by, for all attacks and eps


class Counted(torch.nn.Module):
    """A classifier that counts the batches it is differentiated for."""

    def __init__(self, network):
        super().__init__()
        self.network, self.gradients = network, 0

    def forward(self, x):
        self.gradients += torch.is_grad_enabled() and x.requires_grad
        return self.network(x)


@pytest.fixture
def counted(classifier):
    return Counted(classifier)


@pytest.fixture
def folders(another):
    """An evaluator of a new process on the same folders."""
    return another


@pytest.fixture
def attacked(specify, counted):
    """``attacked(attack, eps=…, …)``: the cell of a named attack on the counted classifier."""

    def make(attack, eps, knows=False, **arguments):
        return specify(eps, attack=attack, arguments=arguments, classifier=counted, knows=knows, eot_samples=20)

    return make


@pytest.fixture
def frozen(attacked):
    """Cells of attacks that follow one gradient alone, at several eps."""
    iterative = [
        attacked(attack, eps, steps=9, rel_step=0.1, refresh_gradient=False)
        for attack in (ifgsm, mifgsm)
        for eps in (0.1, 0.3)
    ]
    return [attacked(fgsm, eps) for eps in (0.1, 0.2, 0.3)] + iterative


def test_one_gradient_serves_every_attack_that_follows_it(folders, frozen, counted):
    evaluator = folders()
    for spec in frozen:
        evaluator(spec)
    assert counted.gradients == BATCHES + LOOKED_AT


def test_the_first_step_of_an_iterative_attack_costs_nothing(folders, attacked, counted):
    evaluator = folders()
    evaluator(attacked(fgsm, 0.1))
    evaluator(attacked(ifgsm, 0.3, steps=5))
    assert counted.gradients == BATCHES + 4 * BATCHES + LOOKED_AT


def test_an_attack_that_starts_elsewhere_asks_for_no_gradient_at_the_clean_images(folders, attacked, counted, tmp_path):
    folders()(attacked(pgd, 0.3, steps=3))
    assert counted.gradients == 3 * BATCHES + LOOKED_AT
    assert not (tmp_path / "gradients").exists()


def test_sharing_changes_no_bit(folders, attacked, digits, counted, tmp_path):
    evaluator = folders()
    for attack, arguments in ((fgsm, {}), (ifgsm, {"steps": 4}), (mifgsm, {"steps": 4})):
        spec = attacked(attack, 0.2, **arguments)
        evaluator(spec)
        shared = load_file(tmp_path / "adversarial" / f"{spec.attacked_key}.safetensors")["x_adv"]
        pairs = zip(digits.images.split(16), digits.labels.split(16), strict=True)
        assert torch.equal(shared, torch.cat([attack(counted, x, y, eps=0.2, **arguments) for x, y in pairs]))


def test_cells_may_come_in_any_order(folders, frozen, attacked, tmp_path):
    specs = [*frozen, attacked(ifgsm, 0.3, steps=4), attacked(pgd, 0.3, steps=4)]
    evaluator = folders()
    expected = {spec.key: evaluator(spec).predictions for spec in specs}
    for folder in ("cells", "adversarial", "gradients"):
        for file in (tmp_path / folder).iterdir():
            file.unlink()
    random.Random(1).shuffle(specs)
    assert {spec.key: folders()(spec).predictions for spec in specs} == expected  # each in a process of its own


def test_another_process_takes_the_gradient_from_disk(folders, attacked, counted):
    folders()(attacked(fgsm, 0.1))
    before = counted.gradients
    folders()(attacked(fgsm, 0.3))
    assert counted.gradients == before + LOOKED_AT


#: What may have become of a tensor (N, C, H, W) in a file.
DAMAGES = {
    "of another classifier": lambda tensor: -tensor,
    "not finite": lambda tensor: tensor * torch.nan,
    "of other images": lambda tensor: tensor[8:].contiguous(),
    "right in its first images alone": lambda tensor: torch.cat([tensor[:8], torch.zeros_like(tensor[8:])]),
}


def damage_file(file, name, damage):
    """Damage the tensor in a file, and leave its metadata as they are."""
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[:4000])
    elif damage == "one bit flipped":
        file.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    else:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        save_file({name: DAMAGES[damage](load(content)[name])}, file, metadata)


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped", *DAMAGES])
def test_a_damaged_gradient_is_named_and_made_again(folders, attacked, counted, tmp_path, caplog, damage):
    expected = folders()(attacked(fgsm, 0.3)).predictions
    folders()(attacked(fgsm, 0.1))
    for file in [*(tmp_path / "cells").iterdir(), *(tmp_path / "adversarial").iterdir()]:
        file.unlink()
    (file,) = (tmp_path / "gradients").glob("*.safetensors")
    gradient = load(file.read_bytes())["gradient"]
    damage_file(file, "gradient", damage)
    assert folders()(attacked(fgsm, 0.3)).predictions == expected
    assert file.name in caplog.text
    assert torch.equal(load_file(file)["gradient"], gradient)


@pytest.fixture
def knowing(attacked):
    """``knowing(attack, eps=…, …)``: the same cell where the attacker would know a defense, if there were one."""
    return partial(attacked, knows=True)


@pytest.mark.parametrize("knowing_first", [False, True])
def test_without_a_defense_there_is_nothing_to_know(folders, attacked, knowing, counted, knowing_first):
    for make in (knowing, attacked) if knowing_first else (attacked, knowing):
        folders()(make(fgsm, 0.2))  # each in a process of its own
        folders()(make(ifgsm, 0.3, steps=5))
    assert counted.gradients == BATCHES + 4 * BATCHES + 4 * LOOKED_AT


def test_an_attack_that_may_stop_early_is_not_shared_between_threats(folders, attacked, knowing):
    """Under the threat that knows the defense it leaves fooled images alone, under the other it does not."""
    assert attacked(pgd, 0.2).attacked_key != knowing(pgd, 0.2).attacked_key
    assert knowing(pgd, 0.2).early_stop and not attacked(pgd, 0.2).early_stop
    assert not knowing(fgsm, 0.2).early_stop, "it has no such argument"


def test_an_attack_stops_early_only_on_the_model_that_is_judged(digits, classifier, knowing):
    """A threat of a user's own may show a stand-in, which is fooled by other images."""
    told = []

    def attack(model, x, y, *, eps, early_stop):
        told.append(early_stop)
        return x

    stand_in = DefendedClassifier(classifier, Standing())
    for view in (adaptive(classifier, Binarize()), stand_in):
        model = AttackedModel(view, classifier, Binarize(), attack)
        attack_images(knowing(pgd, 0.2), model, digits.images, digits.labels, batch_size=64)
    assert told == [True, False]


class Standing(torch.nn.Module):
    """A smooth threshold."""

    def forward(self, x):
        return torch.sigmoid(20 * (x - 0.5))


def test_what_is_shared_has_no_part_in_what_a_cell_is(attacked, knowing):
    blind, known = attacked(fgsm, 0.2), knowing(fgsm, 0.2)
    assert known.key != blind.key
    assert known.attacked_key == blind.attacked_key
    assert known.view_key == blind.view_key


def test_a_defense_that_is_known_is_not_left_out(attacked, knowing, specify):
    spec = knowing(fgsm, 0.2)
    defended = replace(spec, defense=specify(binarize=True).defense)
    assert defended.attacked_key != spec.attacked_key
    assert replace(attacked(fgsm, 0.2), defense=defended.defense).attacked_key == spec.attacked_key
    assert defended.without_defense().attacked_key == spec.attacked_key
    threat = replace(defended.threat, stronger=("eot_samples",))
    stronger = replace(defended, threat=threat).strengthened()
    assert stronger.threat.component["eot_samples"] == stronger.threat.bare["eot_samples"] == 40
    assert stronger.attacked_key != defended.attacked_key


def test_a_threat_that_stands_for_no_other_is_its_own(knowing):
    spec = knowing(fgsm, 0.2)
    alone = replace(spec, threat=replace(spec.threat, bare=None))
    assert alone.key != spec.key
    assert alone.attacked_key != spec.attacked_key


@pytest.mark.parametrize("attack", [fgsm, partial(ifgsm, steps=4), partial(mifgsm, steps=4)])
def test_a_gradient_that_is_known_is_not_computed_again(digits, counted, attack):
    x, y = digits.images, digits.labels
    gradient = input_gradient(counted, x, y)
    alone = attack(counted, x, y, eps=0.2)
    before = counted.gradients
    assert torch.equal(attack(counted, x, y, eps=0.2, gradient=gradient), alone)
    assert counted.gradients - before == (0 if attack is fgsm else 3)
    assert torch.equal(gradient, input_gradient(counted, x, y)), "the caller's gradient was written into"
    with pytest.raises(ValueError, match="gradient must have the shape of x"):
        attack(counted, x, y, eps=0.2, gradient=gradient[:3])
