"""Training steps as CUDA graphs. Where there is no GPU, a stand-in repeats the pass as a graph would."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.data import ImageDataModule
from src.models import VAE, VQVAE, Autoencoder, CertifiedVQVAE, Classifier, DiffusionModel, RobustVQVAE, SmoothVQVAE
from src.workflows.graphed_steps import ORDINARY_STEPS, Batch, GraphedSteps, Pass, attach, can_be_graphed, detach

pytestmark = pytest.mark.slow

LAYERS = {"hidden": 16, "residual_hidden": 4, "lr": 1e-3}
CODES = {"num_embeddings": 16, "embedding_dim": 8}
CLASSIFIER = partial(Classifier, widths=(4, 8), hidden=16)
NETWORKS: dict[str, Callable[[], LightningModule]] = {
    "classifier": CLASSIFIER,
    "vqvae": partial(VQVAE, noise=0.5, **LAYERS, **CODES),
    "autoencoder": partial(Autoencoder, noise=0.5, dimension=8, **LAYERS),
    "vae": partial(VAE, noise=0.5, dimension=8, **LAYERS),
    "diffusion": partial(DiffusionModel, noise=0.5, dimension=8, **LAYERS),
    "robust": lambda: RobustVQVAE.guided_by(CLASSIFIER(), shift=1, warp=0.1, **LAYERS, **CODES),
    "smooth": lambda: SmoothVQVAE.guided_by(CLASSIFIER(), **LAYERS, **CODES),
    "certified": lambda: CertifiedVQVAE.guided_by(
        CLASSIFIER(),
        convolutions=((8, 5, 2, 2), (8, 4, 2, 1)),
        linears=(32,),
        style_codes=4,
        hidden=4,
        thresholds=(0.4, 0.6),
    ),
}


class Repeated:
    """Like a graph: its input stays where it is, and so do its result and the gradients. Keeps count."""

    made: int = 0
    replayed: int = 0

    def __init__(self, module: LightningModule, compute: Pass, batch: Batch) -> None:
        type(self).made += 1
        self.module, self.compute, self.batch = module, compute, tuple(map(torch.clone, batch))
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with torch.random.fork_rng():  # a capture computes nothing
            self.loss = compute(self.batch)
        module.load_state_dict(before)
        self.gradients = [parameter.grad for parameter in module.parameters()]

    def __call__(self, batch: Batch) -> Tensor:
        type(self).replayed += 1
        for static, tensor in zip(self.batch, batch, strict=True):
            static.copy_(tensor)
        parameters = list(self.module.parameters())
        seen = [parameter.grad for parameter in parameters]
        self.module.zero_grad(set_to_none=True)
        self.loss.copy_(self.compute(self.batch))
        for parameter, static, before in zip(parameters, self.gradients, seen, strict=True):
            if static is not None and parameter.grad is not None:
                static.copy_(parameter.grad)
            parameter.grad = before
        return self.loss


class Repeating(Callback):
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Repeated.made = Repeated.replayed = 0
        attach(pl_module, partial(Repeated, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        detach(pl_module)


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def trained(
    make: Callable[[], LightningModule], root: Path, folder: Path, steps: Callback, accelerator: str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, float], list[float], int]:
    """Weights, what was logged, losses and steps, after two epochs of full batches and a short one each."""
    data = ImageDataModule("slice", root, batch_size=48, val_size=100, seed=0)
    seed_everything(3, verbose=False)
    module, losses = make(), Losses()
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=2,
        callbacks=[steps, losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value.cpu() for name, value in module.state_dict().items()}, logged, losses.seen, trainer.global_step


@pytest.mark.parametrize("name", NETWORKS)
def test_repeated_passes_train_as_ordinary_steps_do(name, slice_root, tmp_path):
    weights, logged, losses, steps = trained(NETWORKS[name], slice_root, tmp_path, Callback())
    repeated = trained(NETWORKS[name], slice_root, tmp_path, Repeating())
    assert repeated[1:] == (logged, losses, steps)
    assert all(torch.equal(repeated[0][key], value) for key, value in weights.items())
    assert Repeated.made == 1
    assert steps - ORDINARY_STEPS - 2 <= Repeated.replayed < steps - ORDINARY_STEPS + 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_trains_as_ordinary_steps_do_on_a_gpu(name, slice_root, tmp_path):
    _, logged, losses, steps = trained(NETWORKS[name], slice_root, tmp_path, Callback(), "gpu")
    graphed = trained(NETWORKS[name], slice_root, tmp_path, GraphedSteps(), "gpu")
    assert graphed[3] == steps
    assert graphed[2] == pytest.approx(losses, rel=0.05)
    assert graphed[1] == pytest.approx(logged, rel=0.2, abs=0.05)


def test_a_step_that_cannot_be_captured_is_an_ordinary_one_with_a_warning(slice_root, tmp_path, caplog):
    class Impossible(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            def refuse(compute: Pass, batch: Batch) -> Pass:
                compute(batch)
                raise RuntimeError("operation not permitted when stream is capturing")

            attach(pl_module, refuse)

    plain = trained(CLASSIFIER, slice_root, tmp_path, Callback())
    # Dropout: what the failed capture drew is lost, so the numbers differ, but they are numbers of a training.
    _, _, losses, steps = trained(CLASSIFIER, slice_root, tmp_path, Impossible())
    assert steps == plain[3] and losses[:ORDINARY_STEPS] == plain[2][:ORDINARY_STEPS]
    assert losses[-1] == pytest.approx(plain[2][-1], rel=0.2)
    (warning,) = [record for record in caplog.records if "one by one" in record.message]
    assert "not permitted" in warning.message


def test_no_graph_for_a_subclass_that_does_not_ask_for_it(slice_root, tmp_path):
    class Counting(VQVAE):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx)

    class OnGPU:
        world_size = accumulate_grad_batches = 1
        precision = "32-true"

    def on_gpu(kind: type[VQVAE]) -> LightningModule:
        module = kind(**LAYERS, **CODES)
        module.__dict__["_device"] = torch.device("cuda", 0)
        return module

    assert can_be_graphed(OnGPU(), on_gpu(VQVAE))
    assert not can_be_graphed(OnGPU(), on_gpu(Counting))
