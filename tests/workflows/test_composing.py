import copy
import pickle
from dataclasses import dataclass

import omegaconf.base
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from src.workflows import composing
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.composing import SweepComposer

POINTS = [
    ["attack=fgsm", "eps=0.1", "defense=none", "noise=0"],
    ["attack=fgsm", "eps=0.3", "defense=none", "noise=0.5"],
    ["attack=mifgsm", "eps=0.3", "defense=vqvae", "noise=0.25"],
    ["eps=0.3", "attack=mifgsm", "noise=0.25", "defense=vqvae", "attack.steps=7", "limit=5"],
    ["attack=fgsm", "eps=0.1", "+experiment=report", "hydra.job.chdir=false"],
]


class CountingLoader(ConfigLoaderImpl):
    composed = 0

    def load_sweep_config(self, *arguments):
        self.composed += 1
        return super().load_sweep_config(*arguments)


@pytest.fixture
def loader():
    register_resolvers()
    return CountingLoader(create_config_search_path(CONFIG_PATH))


@pytest.fixture
def master(loader):
    config = loader.load_configuration("sweep", ["seed=3"], RunMode.MULTIRUN)
    OmegaConf.set_readonly(config.hydra, False)
    return config


def test_what_it_composes_is_what_hydra_composes(loader, master):
    composer = SweepComposer(copy.copy(loader))
    for point in [*POINTS, *POINTS]:
        expected = loader.load_sweep_config(master, point)
        assert OmegaConf.to_container(composer.load_sweep_config(master, point)) == OmegaConf.to_container(expected)


def test_a_choice_is_composed_once(loader, master):
    composer = SweepComposer(loader)
    for eps in (0.1, 0.2, 0.3):
        assert composer.load_sweep_config(master, ["attack=ifgsm", f"eps={eps}"]).eps == eps
    assert loader.composed == 1


def test_one_jobs_configuration_is_not_anothers(loader, master):
    composer = SweepComposer(loader)
    first = composer.load_sweep_config(master, ["attack=ifgsm", "eps=0.1"])
    first.attack.name = "spoiled"
    assert composer.load_sweep_config(master, ["attack=ifgsm", "eps=0.1"]).attack.name == "ifgsm"


def test_it_travels_to_a_worker_process(loader, master):
    composer = SweepComposer(loader)
    composer.load_sweep_config(master, POINTS[0])
    received = pickle.loads(pickle.dumps(composer))
    assert received.load_sweep_config(master, POINTS[1]).eps == 0.3
    assert received.load_sweep_config(master, POINTS[2]).attack.name == "mifgsm"
    again = pickle.loads(pickle.dumps(composer))  # as with the next job
    again._loader.load_sweep_config = None
    assert again.load_sweep_config(master, POINTS[2]).eps == 0.3  # composed by this process before
    assert received.get_sources() and received.list_groups("")


def test_a_worker_composes_nothing_that_was_composed(loader, master, monkeypatch):
    composer = SweepComposer(loader)
    composer.load_sweep_config(master, ["attack=mifgsm"])
    sent = pickle.dumps(composer)
    monkeypatch.setattr(composing, "_composed", {})
    received = pickle.loads(sent)
    received._loader.load_sweep_config = None
    assert received.load_sweep_config(master, ["attack=mifgsm", "eps=0.2"]).eps == 0.2


def test_a_launchers_type_may_be_one_that_pickle_does_not_find(loader, master):
    @dataclass
    class Lost:
        n_jobs: int = 2

    with open_dict(master.hydra):
        master.hydra.launcher = OmegaConf.structured(Lost)
    loader.load_sweep_config = lambda config, _: copy.deepcopy(config)
    assert SweepComposer(loader).load_sweep_config(master, ["eps=0.2"]).hydra.launcher.n_jobs == 2


def test_an_interpolation_is_read_once_and_resolved_each_time():
    register_resolvers()
    config = OmegaConf.create({"a": 1, "b": "${a}/read-once"})
    before = omegaconf.base.parse.cache_info().hits
    assert config.b == "1/read-once"
    config.a = 2
    assert config.b == "2/read-once"
    assert omegaconf.base.parse.cache_info().hits > before


def test_what_does_not_exist_is_hydras_error(loader, master):
    with pytest.raises(ConfigCompositionException):
        SweepComposer(loader).load_sweep_config(master, ["no_such_value=1"])
