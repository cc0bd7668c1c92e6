from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import LightningModule

from src.errors import UserError
from src.models import VQVAE, Autoencoder, Classifier
from src.models.checkpoint import (
    PROVENANCE,
    OutdatedError,
    Provenance,
    load_module,
    read_checkpoint,
    save_weights_only,
    stamp,
    weights_fingerprint,
)

SMALL = {"noise": 0.5, "hidden": 16, "residual_hidden": 4, "num_embeddings": 8, "embedding_dim": 4}


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        "vqvae", "mnist", "abc", [1, 28, 28], 0, 2, 2, noise=0.5, config=SMALL, split_seed=0, val_size=100
    )


@pytest.fixture
def checkpoint(provenance) -> dict:
    stored = {
        "state_dict": VQVAE(**SMALL).state_dict(),
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 10,
        "optimizer_states": [torch.zeros(1000)],
        LightningModule.CHECKPOINT_HYPER_PARAMS_KEY: SMALL,
    }
    stamp(stored, provenance)
    return stored


@pytest.fixture
def path(checkpoint, tmp_path) -> Path:
    save_weights_only(checkpoint, tmp_path / "deep" / "vqvae.ckpt")
    return tmp_path / "deep" / "vqvae.ckpt"


def test_round_trip(path, checkpoint, provenance):
    module, found = load_module(VQVAE, path, "train me")
    assert weights_fingerprint(module.state_dict()) == weights_fingerprint(checkpoint["state_dict"]) == found.weights
    assert (found.data, found.noise, found.config) == (provenance.data, provenance.noise, SMALL)
    assert not module.training and not any(p.requires_grad for p in module.parameters())


def test_arguments_of_an_earlier_version_have_todays_names(checkpoint, provenance, tmp_path):
    """The quantizer's arguments are called otherwise since; the networks are the same."""
    earlier = {"num_embeddings": "codes", "embedding_dim": "dimension"}
    old = {earlier.get(name, name): value for name, value in SMALL.items()} | {"revive_below": 0.1, "commitment": 0.5}
    checkpoint[LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] = old
    stamp(checkpoint, replace(provenance, config={"module": old, "batch_size": 128}))
    save_weights_only(checkpoint, tmp_path / "old.ckpt")
    module, found = load_module(VQVAE, tmp_path / "old.ckpt", "train me")
    today = SMALL | {"dead_code_threshold": 0.1, "commitment_cost": 0.5}
    assert found.config == {"module": today, "batch_size": 128}
    assert (module.num_embeddings, module.embedding_dim, module.commitment_cost) == (8, 4, 0.5)
    assert module.quantizer.dead_code_threshold == 0.1
    assert weights_fingerprint(module.state_dict()) == found.weights


def test_the_dimension_of_a_network_without_codes_keeps_its_name(checkpoint, provenance, tmp_path):
    network = Autoencoder(hidden=16, residual_hidden=4, dimension=4)
    checkpoint["state_dict"] = network.state_dict()
    checkpoint[LightningModule.CHECKPOINT_HYPER_PARAMS_KEY] = dict(network.hparams)
    stamp(checkpoint, replace(provenance, config={"module": dict(network.hparams)}))
    save_weights_only(checkpoint, tmp_path / "autoencoder.ckpt")
    module, found = load_module(Autoencoder, tmp_path / "autoencoder.ckpt", "train me")
    assert found.config["module"]["dimension"] == 4
    assert weights_fingerprint(module.state_dict()) == found.weights


def test_loads_as_lightnings_users_load_it(path, checkpoint):
    module = VQVAE.load_from_checkpoint(path, weights_only=True)
    assert weights_fingerprint(module.state_dict()) == checkpoint[PROVENANCE]["weights"]


def test_holds_what_inference_needs_and_no_more(path):
    assert "optimizer_states" not in torch.load(path, weights_only=True)
    assert [file.name for file in path.parent.iterdir()] == ["vqvae.ckpt"]


def test_fingerprint_sees_every_bit_and_no_order():
    state = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    same = {"b": torch.ones(2, 2), "a": torch.zeros(3)}
    assert weights_fingerprint(state) == weights_fingerprint(same)
    for other in (
        {"a": torch.tensor([0, 0, -0.0])},
        {"a": torch.zeros(3, 1)},
        {"a": torch.zeros(3, dtype=torch.int32)},
    ):
        assert weights_fingerprint(state) != weights_fingerprint(state | other)


def test_missing_names_the_command_that_helps(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint.*train it with: python -m src\.train x"):
        read_checkpoint(tmp_path / "none.ckpt", "python -m src.train x")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep < 1 else keep])
    with pytest.raises(UserError, match=r"truncated.*train again: do this"):
        read_checkpoint(path, "do this")


def test_altered_weights(path):
    stored = torch.load(path, weights_only=True)
    stored["state_dict"]["decoder.0.bias"][0] += 1
    torch.save(stored, path)
    with pytest.raises(UserError, match="not those that were saved"):
        read_checkpoint(path, "train me")


@pytest.mark.parametrize(("change", "age"), [(-1, "an older"), (1, "a newer")])
def test_another_version_is_said_and_trained_again(path, change, age):
    stored = torch.load(path, weights_only=True)
    stored[PROVENANCE]["schema"] += change
    torch.save(stored, path)
    with pytest.raises(OutdatedError, match=rf"{age} version.*train again: do this"):
        read_checkpoint(path, "do this")


def test_a_checkpoint_from_before_there_were_versions_is_an_older_one(path):
    stored = torch.load(path, weights_only=True)
    for name in ("schema", "split_seed", "val_size"):
        del stored[PROVENANCE][name]
    torch.save(stored, path)
    with pytest.raises(OutdatedError, match=r"an older version \(schema 1"):
        read_checkpoint(path, "do this")


def test_other_peoples_files(path, tmp_path):
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="no checkpoint of ours"):
        read_checkpoint(path, "train me")


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_never_executes_a_pickle(path):
    torch.save({"state_dict": Trap()}, path)
    with pytest.raises(UserError, match="no checkpoint of ours"):
        read_checkpoint(path, "train me")


def test_other_network(path):
    with pytest.raises(UserError, match="it is no Classifier"):
        load_module(Classifier, path, "train me")
