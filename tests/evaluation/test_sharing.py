"""One gradient serves every attack that begins with it; one attacked set serves every defense."""

import json
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from src.attacks import fgsm, ifgsm, mifgsm, pgd
from src.attacks.gradient import KnowsGradient, input_gradient
from src.defended import adaptive
from src.evaluation import CellStore, Evaluator
from src.evaluation.adversary import AdversarialStore

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
def folders(tmp_path):
    """An evaluator of a new process on the same folders."""

    def make():
        sets = AdversarialStore(tmp_path / "adversarial", tmp_path / "gradients")
        return Evaluator(CellStore(tmp_path / "cells"), sets, accelerator="cpu", batch_size=16)

    return make


@pytest.fixture
def attacked(specify, counted):
    """``attacked(attack, eps=…, …)``: the cell of a named attack on the counted classifier."""

    def make(attack, eps, **arguments):
        spec = specify(eps=eps, attack=partial(attack, **arguments), load_classifier=lambda: counted)
        name = {"_target_": attack.__name__} | arguments
        return replace(
            spec,
            identity=dict(spec.identity) | {"attack": name},
            coordinates=replace(spec.coordinates, attack=str(name)),
        )

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
        shared = load_file(tmp_path / "adversarial" / f"{spec.adversarial_key}.safetensors")["x_adv"]
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

    def make(attack, eps, bare=True, **arguments):
        spec = attacked(attack, eps, **arguments)
        return replace(
            spec,
            identity=dict(spec.identity) | {"threat": {"_target_": "adaptive"}},
            coordinates=replace(spec.coordinates, threat="adaptive"),
            knows_defense=True,
            threat=partial(adaptive, eot_samples=20),
            bare_threat=spec.identity["threat"] if bare else None,
        )

    return make


@pytest.mark.parametrize("knowing_first", [False, True])
def test_without_a_defense_there_is_nothing_to_know(folders, attacked, knowing, counted, knowing_first):
    for make in (knowing, attacked) if knowing_first else (attacked, knowing):
        folders()(make(fgsm, 0.2))  # each in a process of its own
        folders()(make(ifgsm, 0.3, steps=5))
    assert counted.gradients == BATCHES + 4 * BATCHES + 4 * LOOKED_AT


@pytest.mark.parametrize(("attack", "arguments"), [(fgsm, {}), (ifgsm, {"steps": 4}), (mifgsm, {"steps": 4})])
def test_sharing_between_threats_changes_nothing_in_a_cell(
    folders, attacked, knowing, counted, tmp_path, attack, arguments
):
    def outcome(spec):
        stored = folders()(spec).to_json()
        return {name: value for name, value in stored.items() if name not in ("stages", "seconds", "digest")}

    alone = outcome(knowing(attack, 0.2, bare=False, **arguments))
    before = counted.gradients
    for folder in ("cells", "adversarial"):
        for file in (tmp_path / folder).iterdir():
            file.unlink()
    folders()(attacked(attack, 0.2, **arguments))
    assert outcome(knowing(attack, 0.2, **arguments)) == alone
    assert counted.gradients == 2 * before + LOOKED_AT, "what the one threat costs the other need not pay"


def test_what_is_shared_has_no_part_in_what_a_cell_is(attacked, knowing):
    shared, alone = knowing(fgsm, 0.2), knowing(fgsm, 0.2, bare=False)
    assert shared.key == alone.key != attacked(fgsm, 0.2).key
    assert shared.adversarial_key == attacked(fgsm, 0.2).adversarial_key != alone.adversarial_key
    assert shared.gradient_key == attacked(fgsm, 0.2).gradient_key
    assert alone.gradient_key is None


def test_a_defense_that_is_known_is_not_left_out(knowing):
    spec = knowing(fgsm, 0.2)
    defended = replace(spec, identity=dict(spec.identity) | {"defense": {"_target_": "binarize"}})
    assert defended.adversarial_key == replace(defended, bare_threat=None).adversarial_key != spec.adversarial_key
    assert defended.gradient_key is None
    assert defended.without_defense().adversarial_key == spec.adversarial_key
    stronger = replace(defended, efforts={"threat": {"eot_samples": 20}}).strengthened()
    assert stronger.without_defense().adversarial_key == spec.adversarial_key


def test_a_model_knows_its_gradient_at_one_point_only(digits, classifier):
    x, y = digits.images[:4].clone(), digits.labels[:4].clone()
    marker = torch.full_like(x, 7.0)

    def known():
        return KnowsGradient(classifier, x, y, lambda: marker)

    assert input_gradient(known(), x, y) is marker
    assert input_gradient(known(), x.detach(), y) is marker
    true = input_gradient(classifier, x, y)
    assert torch.equal(input_gradient(known(), x.clone(), y), true)  # equal, but nobody has compared it
    assert not torch.equal(input_gradient(known(), x, y.flip(0).clone()), marker)  # another label: another loss
    changed = known()
    x += 0.1
    assert not torch.equal(input_gradient(changed, x, y), marker)


def test_it_stays_in_the_mode_it_was_in(classifier):
    model = torch.nn.Sequential(classifier, torch.nn.Dropout()).eval()
    x, y = torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)
    assert not any(module.training for module in KnowsGradient(model, x, y, lambda: x).modules())
