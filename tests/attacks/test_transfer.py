import functools

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import LightningModule
from omegaconf import OmegaConf
from torch import nn

from src.attacks import ifgsm, mifgsm, pgd
from src.attacks.transfer import transfer
from src.errors import UserError
from src.models import Classifier, load_classifier
from src.models.checkpoint import Provenance, save_weights_only, stamp
from src.workflows.command import register_resolvers
from tests.attacks.conftest import accuracy
from tests.conftest import REPO


@pytest.fixture
def source() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()


def test_is_the_attack_on_the_source_and_asks_nothing_of_the_model(source, small_net, asked, images, labels):
    model = asked(small_net)
    x, y = images.clone(), labels.clone()
    with torch.no_grad():
        x_adv = transfer(model, x, y, eps=0.2, source=source, attack=functools.partial(mifgsm, steps=3))
    assert torch.equal(x_adv, mifgsm(source, images, labels, eps=0.2, steps=3))
    assert not torch.equal(x_adv, mifgsm(small_net, images, labels, eps=0.2, steps=3))
    assert model.asked == 0
    assert torch.equal(x, images) and torch.equal(y, labels)


def test_eps_zero_is_x_and_asks_for_nothing(source, asked, images, labels):
    watched = asked(source)
    assert transfer(source, images, labels, eps=0, source=watched, attack=pgd) is images
    assert watched.asked == 0


def test_draws_what_its_attack_draws(source, parameterless, images, labels, undisturbed):
    def run(seed):
        torch.manual_seed(seed)
        return transfer(parameterless, images[:1], labels[:1], eps=0.1, source=source, attack=pgd)

    with undisturbed():
        assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_what_fools_one_network_fools_another_less(real_digits, knows_digits):
    x, y = real_digits
    source = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.Adam(source.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(source(x), y).backward()
        optimizer.step()
    transferred = accuracy(knows_digits, transfer(knows_digits, x, y, eps=0.15, source=source, attack=ifgsm), y)
    direct = accuracy(knows_digits, ifgsm(knows_digits, x, y, eps=0.15), y)
    assert direct < transferred < 0.8


@pytest.mark.parametrize("overspent", [0.11, float("nan")])
def test_checks_what_its_attack_returns(overspent, source, images, labels):
    def attack(model, x, y, *, eps):
        return (x + overspent).clamp(0, 1)

    with pytest.raises(ValueError, match="attack"):
        transfer(source, images, labels, eps=0.1, source=source, attack=attack)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """conf/attack/transfer.yaml where seed is 0."""
    register_resolvers()
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # what a command in another test was given
    config = OmegaConf.create({"seed": 0, "paths": {"checkpoints": str(tmp_path)}, "data": {"name": "mnist"}})
    config.attack = OmegaConf.load(REPO / "conf" / "attack" / "transfer.yaml")
    return config


def save(path, **arguments):
    torch.manual_seed(0)
    classifier = Classifier(**arguments)
    stored = {
        "state_dict": classifier.state_dict(),
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 10,
        LightningModule.CHECKPOINT_HYPER_PARAMS_KEY: arguments,
    }
    stamp(stored, Provenance("classifier", "mnist", "abc", [1, 28, 28], 1, 2, 2, split_seed=0, val_size=100))
    save_weights_only(stored, path)
    return classifier.eval()


def called(config):
    arguments = OmegaConf.to_container(config.attack, resolve=True)
    said = {name: arguments.pop(name) for name in ("name", "family")}
    assert said == {"name": "transfer", "family": "transfer"}
    return instantiate(arguments, _convert_="all")


def test_the_configured_source_is_the_classifier_of_the_next_seed(config, tmp_path, small_net, images, labels):
    source = save(tmp_path / "mnist" / "classifier-seed1.ckpt", widths=[2, 3], hidden=8)
    x_adv = called(config)(small_net, images, labels, eps=0.1)
    assert x_adv.sub(mifgsm(source, images, labels, eps=0.1, steps=10)).abs().lt(1e-6).float().mean() > 0.999
    config.seed = 3
    assert config.attack.source.checkpoint.endswith("mnist/classifier-seed4.ckpt")


def test_a_missing_source_is_named_with_the_command_that_trains_it(config):
    said = r"classifier-seed1\.ckpt; train it with: python -m src.train model=classifier data=mnist seed=1$"
    with pytest.raises(UserError, match=said):
        load_classifier(config.attack.source.checkpoint, config.attack.source.remedy)
    with pytest.raises(InstantiationException, match=r"classifier-seed1\.ckpt"):
        called(config)


def test_a_source_is_loaded_once_and_again_after_it_was_trained_again(tmp_path):
    path = tmp_path / "classifier.ckpt"
    save(path, widths=[2, 3], hidden=8)
    first = load_classifier(path)
    assert load_classifier(path) is first
    assert not first.training and not any(parameter.requires_grad for parameter in first.parameters())
    path.unlink()
    save(path, widths=[2, 3], hidden=9)
    assert load_classifier(path).network[-1].in_features == 9
