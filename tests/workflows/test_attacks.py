"""Every attack of conf/attack as a sweep would call it."""

import inspect

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from src.attacks.margin import margin
from src.defended import adaptive
from src.defenses import Identity
from src.workflows.building import build
from src.workflows.cells import DESCRIPTION
from src.workflows.command import CONFIG_PATH, register_resolvers
from tests.conftest import REPO

FAMILIES = {"one-step", "iterative", "gradient-free", "transfer", "noise"}
PROOFS = {"certified"}  # no attacks
NAMES = sorted({path.stem for path in (REPO / "conf" / "attack").glob("*.yaml")} - PROOFS)

#: Shorter runs of what would take long.
SHORT = {f"apgd_{loss}": {"steps": 5} for loss in ("ce", "dlr", "t")} | {
    "square": {"n_queries": 50},
    "threshold": {"steps": 3},
}
SLOW = {"autoattack"}


@pytest.fixture(scope="module")
def configured():
    """``configured("fgsm")``: the part of a sweep's configuration that is the attack, as plain types; or another."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONFIG_PATH, version_base=None):

        def make(name, group="attack"):
            return OmegaConf.to_container(compose("sweep", [f"{group}={name}"])[group], resolve=True)

        yield make


@pytest.mark.parametrize("name", NAMES)
def test_says_what_it_is(name, configured):
    attack = configured(name)
    assert attack["name"] == name
    if "members" in attack:  # a suite is what its members are
        assert all(member == configured(each) for each, member in attack["members"].items())
        return
    assert attack["family"] in FAMILIES
    for argument in attack.get("stronger", []):
        assert isinstance(attack[argument], int) and attack[argument] >= 1


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_without_a_defense_both_threats_attack_the_same_model(name, configured, small_net, images):
    """So one attacked set serves both, unless the attack takes early_stop, which only one of them allows."""
    described = configured(name)
    if "members" in described:
        pytest.skip("its members are tried")
    arguments = {key: value for key, value in described.items() if key not in DESCRIPTION} | SHORT.get(name, {})
    if "source" in arguments:
        arguments["source"] = small_net
    attack, y = build(arguments), small_net(images).argmax(1)

    def attacked(model):
        torch.manual_seed(0)
        return attack(model, images, y, eps=0.1)

    x_adv = attacked(small_net)
    for eot_samples in (1, 20):
        assert torch.equal(attacked(adaptive(small_net, Identity(), eot_samples=eot_samples)), x_adv)


def test_the_threat_that_knows_the_defense_comes_to_the_other_without_one(configured):
    known, blind = (configured(name, "threat") for name in ("adaptive", "gray_box"))
    assert known["bare"] == blind
    assert known["knows_defense"] and not blind["knows_defense"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_works_as_configured(name, configured, small_net, images):
    arguments = {key: value for key, value in configured(name).items() if key not in DESCRIPTION}
    if not arguments or "checkpoint" in repr(arguments):
        pytest.skip("a suite, or in need of another network")
    attack = build(arguments | SHORT.get(name, {}))
    y = small_net(images).argmax(1)
    x_adv = attack(small_net, images, y, eps=0.1)
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6
    assert margin(small_net, x_adv, y).mean() > margin(small_net, images, y).mean()
    assert attack(small_net, images, y, eps=0) is images
    assert inspect.signature(attack).parameters["eps"].kind is inspect.Parameter.KEYWORD_ONLY
