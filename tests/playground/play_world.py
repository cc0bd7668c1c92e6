"""A small world to play in: real digits, and small networks that were trained for a moment."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning import LightningModule
from torch import Tensor

from src.data import ImageDataModule
from src.models import VQVAE, CertifiedVQVAE, Classifier, RobustVQVAE
from src.models.checkpoint import Provenance, save_weights_only, stamp
from src.playground.choices import Playground, playground_from_config
from src.training_record import TrainingRecord
from src.workflows import command
from tests.shared_work import made_once, shared_folder

SMALL = {"hidden": 16, "residual_hidden": 4, "num_embeddings": 32, "embedding_dim": 8}
PROVABLE = {"convolutions": ((4, 5, 2, 2), (4, 4, 2, 1)), "linears": (8,), "hidden": 4, "style_codes": 4}
NOISES = (0.0, 0.5)


def shared_world(factory: pytest.TempPathFactory, outputs: Path, root: Path) -> Path:
    """:func:`make_world`, done once for all test processes; ``outputs`` has a copy."""
    made = made_once(shared_folder(factory) / "play-world", lambda path: make_world(path, root) and None)
    return Path(shutil.copytree(made, outputs, dirs_exist_ok=True))


def make_world(outputs: Path, root: Path) -> Path:
    """Two classifiers that know most digits, two VQ-VAEs, a robust, a certified one, on the IDX files in ``root``."""
    data = ImageDataModule("mnist", root, val_size=100)
    data.setup("fit")
    images, labels = next(iter(data.train_dataloader()))
    for _, batch in zip(range(7), data.train_dataloader(), strict=False):
        images, labels = torch.cat([images, batch[0]]), torch.cat([labels, batch[1]])
    folder = outputs / "checkpoints" / "mnist"
    for seed, name in ((0, "classifier"), (1, "classifier-seed1")):
        torch.manual_seed(seed)
        module = fitted(Classifier(widths=(8, 16), hidden=32, lr=5e-3), images, labels, steps=40)
        keep(module, folder / f"{name}.ckpt", data, "classifier", seed)
    for noise in NOISES:
        module = fitted(VQVAE(noise=noise, lr=5e-3, **SMALL), images, labels, steps=25)
        keep(module, folder / f"vqvae-noise{noise:g}.ckpt", data, "vqvae", 0, noise)
    module = fitted(RobustVQVAE(lr=5e-3, **SMALL), images, labels, steps=5)
    keep(module, folder / "vqvae_robust.ckpt", data, "vqvae_robust", 0)
    keep(CertifiedVQVAE(**PROVABLE).eval(), folder / "vqvae_certified.ckpt", data, "vqvae_certified", 0)  # untrained
    return outputs


def fitted(module: LightningModule, images: Tensor, labels: Tensor, steps: int) -> LightningModule:
    """``module`` after a few steps of its own training, in batches of 128."""
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    module.log = module.log_dict = lambda *_, **__: None  # there is no trainer
    for step in range(steps):
        chosen = torch.arange(step * 128, (step + 1) * 128) % len(labels)
        loss = module.training_step((images[chosen], labels[chosen]), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


def keep(
    module: LightningModule, path: Path, data: ImageDataModule, model: str, seed: int, noise: float | None = None
) -> None:
    """Leave a checkpoint and its record, as a training does."""
    stored = {
        "state_dict": module.state_dict(),
        "pytorch-lightning_version": "2.6.0",
        "epoch": 1,
        "global_step": 10,
        LightningModule.CHECKPOINT_HYPER_PARAMS_KEY: dict(module.hparams),
    }
    split = {"split_seed": data.split_seed, "val_size": data.val_size}
    provenance = Provenance(model, data.name, data.fingerprint, [1, 28, 28], seed, 1, 1, noise=noise, **split)
    stamp(stored, provenance)
    save_weights_only(stored, path)
    weights = asdict(provenance)["weights"]
    TrainingRecord(model, data.name, noise, seed, weights, 1.0, [], []).save(path)


def overrides_for(outputs: Path, root: Path) -> list[str]:
    """What the command line says about where everything lies."""
    return [f"data.root={root}", "data.source=null", "data.val_size=100", f"paths.outputs={outputs}", "trainer=cpu"]


def playing(*overrides: str) -> Playground:
    """The playground of ``python -m src.play`` with these overrides."""
    command.register_resolvers()
    with initialize_config_dir(command.CONFIG_PATH, version_base="1.3"):
        config = compose("play", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        try:
            return playground_from_config(config)
        finally:
            HydraConfig.instance().cfg = None
