"""Every attack of conf/attack as a sweep would call it."""

import inspect

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn

from src.attacks.margin import margin
from src.defended import adaptive
from src.defenses import Identity
from src.workflows.cells import SAID_OF_AN_ATTACK
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.configured import build
from tests.conftest import REPO

FAMILIES = {"one-step", "iterative", "gradient-free", "transfer", "noise"}
NAMES = sorted(path.stem for path in (REPO / "conf" / "attack").glob("*.yaml"))

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


class Asked(nn.Module):
    """A classifier that says whether it was asked if its verdict counts."""

    def __init__(self, network):
        super().__init__()
        self.network, self.asked = network, False

    def forward(self, x):
        return self.network(x)

    def verdict_counts(self, x):
        self.asked = True
        return True


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_asks_for_logits_only_if_it_says_so(name, configured, small_net, images):
    """What says so is attacked once for both threats where there is no defense."""
    said = configured(name)
    if "members" in said:
        pytest.skip("its members say it")
    arguments = {key: value for key, value in said.items() if key not in SAID_OF_AN_ATTACK} | SHORT.get(name, {})
    if "source" in arguments:
        arguments["source"] = small_net
    attack, y = build(arguments), small_net(images).argmax(1)

    def attacked(model):
        torch.manual_seed(0)
        return attack(model, images, y, eps=0.1)

    model = Asked(small_net)
    attacked(model)
    assert model.asked != said.get("only_logits", False)
    if not model.asked:
        x_adv = attacked(small_net)
        for eot_samples in (1, 20):
            assert torch.equal(attacked(adaptive(small_net, Identity(), eot_samples=eot_samples)), x_adv)


def test_the_threat_that_knows_the_defense_comes_to_the_other_without_one(configured):
    known, blind = (configured(name, "threat") for name in ("adaptive", "gray_box"))
    assert known["bare"] == blind
    assert known["knows_defense"] and not blind["knows_defense"]


@pytest.mark.parametrize("name", sorted(set(NAMES) - SLOW))
def test_works_as_configured(name, configured, small_net, images):
    arguments = {key: value for key, value in configured(name).items() if key not in SAID_OF_AN_ATTACK}
    if not arguments or "checkpoint" in repr(arguments):
        pytest.skip("a suite, or in need of another network")
    attack = build(arguments | SHORT.get(name, {}))
    y = small_net(images).argmax(1)
    x_adv = attack(small_net, images, y, eps=0.1)
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6
    assert margin(small_net, x_adv, y).mean() > margin(small_net, images, y).mean()
    assert attack(small_net, images, y, eps=0) is images
    assert inspect.signature(attack).parameters["eps"].kind is inspect.Parameter.KEYWORD_ONLY
