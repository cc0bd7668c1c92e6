"""Every attack of conf/attack as a sweep would call it."""

import inspect

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from src.attacks.margin import margin
from src.workflows.cells import SAID_OF_AN_ATTACK
from src.workflows.command import CONFIG_PATH, PLUGINS, register_resolvers
from src.workflows.configured import build
from tests.conftest import REPO

FAMILIES = {"one-step", "iterative", "gradient-free", "transfer", "noise"}
NAMES = sorted(path.stem for path in (REPO / "conf" / "attack").glob("*.yaml"))

#: Shorter runs of what would take long.
SHORT = {"apgd_ce": {"steps": 5}, "apgd_dlr": {"steps": 5}, "square": {"n_queries": 50}, "threshold": {"steps": 3}}
SLOW = {"autoattack"}


@pytest.fixture(scope="module")
def configured():
    """``configured("fgsm")``: the attack's part of a sweep's configuration, as plain types."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(PLUGINS)
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONFIG_PATH, version_base=None):
        yield lambda name: OmegaConf.to_container(compose("sweep", [f"attack={name}"]).attack, resolve=True)
    patch.undo()


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
