"""A training step of ours against the ordinary recipe for the same network."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from tests.benchmarks.harness import Contender, Measurement, Task, Timed, compete
from tests.benchmarks.parts import Settings, compose, scratch

NEEDS: tuple[str, ...] = ()
NOISE = 0.25
SKIPPED = 5  #: steps before the clock starts, while loaders and allocators wake up
LAST = 50  #: the loss is the mean over as many last steps
ABOUT = (
    "100 training steps of 128 images from scratch, the report's budget (Adam 2e-4), after 5 untimed steps in "
    "which loaders wake up; validation and checkpoints are outside the clock. Ours: `src.train`'s own function "
    "with its data module, module, trainer and callbacks, no logger. Theirs: `torchvision.datasets.MNIST` with "
    "`ToTensor()`, `DataLoader(shuffle=True, num_workers=2)`, a LightningModule around the same torch network in "
    "its default memory format, `torch.optim.Adam`, Lightning's defaults without the progress bar. Result: mean "
    "training loss of the last 50 steps. The images differ: ours holds 10,000 of the 60,000 out for validation."
)


def measure(settings: Settings) -> Iterator[Measurement]:
    """The VQ-VAE, then the classifier."""
    steps = settings.size(100, 5)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("src").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the recipe's two, whatever the cores
    settings.output.mkdir(parents=True, exist_ok=True)
    with scratch(settings.output) as folder:
        for model, ordinary in (("vqvae", OrdinaryVQVAE), ("classifier", OrdinaryClassifier)):
            task = Task("training", model, "ms a step", 1e3 / steps, lambda loss, _: f"loss {loss:.4f}")
            ours = Contender("ours", lambda model=model: lambda: _ours(model, settings, steps, folder))
            peer = Contender("ordinary recipe", lambda make=ordinary: _ordinary(make, settings, steps, folder))
            yield from compete(task, ours, [peer], settings.rounds)


class StepClock(Callback):
    """Seconds and losses of the steps after the first few."""

    def __init__(self) -> None:
        self.begin = self.seconds = 0.0
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == SKIPPED:
            self.begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.seconds = time.perf_counter() - self.begin

    def timed(self) -> Timed:
        last = self.losses[-LAST:]
        return Timed(self.seconds, sum(last) / len(last))


def _ours(model: str, settings: Settings, steps: int, folder: Path) -> Timed:
    """What ``python -m src.train model=…`` does, stopped after a few steps."""
    from src.workflows.building import build, plain
    from src.workflows.configured import data_from_config
    from src.workflows.training import TrainingPlan, train

    overrides = [f"model={model}", f"noise={NOISE}", f"paths.data={settings.data}", "trainer=cpu"]
    limits = [f"trainer.limit_train_batches={SKIPPED + steps}", "trainer.max_epochs=1", "+trainer.limit_val_batches=1"]
    config = compose("train", [*overrides, *limits])
    clock, make_trainer = StepClock(), build(config.trainer)
    plan = TrainingPlan(
        model, folder / f"{model}.ckpt", plain(config.model.noise), config.seed, 1, {}, "", overwrite=True
    )
    train(
        plan,
        make_module=lambda: build(config.model.module),
        data=data_from_config(config.data),
        make_trainer=lambda callbacks, **rest: make_trainer(callbacks=[*callbacks, clock], **rest),
    )
    return clock.timed()


class OrdinaryVQVAE(LightningModule):
    """The same network and loss, as one would write them down."""

    def __init__(self) -> None:
        super().__init__()
        from src.models import VQVAE

        self.network = VQVAE(noise=NOISE)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        import torch

        x, _ = batch
        quantized = self.network.quantizer(self.network.encoder(x + NOISE * torch.randn_like(x)))
        loss = nn.functional.mse_loss(self.network.decoder(quantized.values), x) + 0.25 * quantized.commitment
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        import torch

        return torch.optim.Adam(self.parameters(), lr=2e-4)


class OrdinaryClassifier(LightningModule):
    """The same network and loss, as one would write them down."""

    def __init__(self) -> None:
        super().__init__()
        from src.models import Classifier

        self.network = Classifier().network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        import torch

        return torch.optim.Adam(self.parameters(), lr=2e-4)


def _ordinary(make: Callable[[], LightningModule], settings: Settings, steps: int, folder: Path) -> Callable[[], Timed]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import MNIST

    def run() -> Timed:
        seed_everything(0, verbose=False)
        data = MNIST(str(settings.data / "mnist"), train=True, transform=transforms.ToTensor())
        loader = DataLoader(data, batch_size=128, shuffle=True, num_workers=2)
        module = make().to(memory_format=torch.contiguous_format)
        clock = StepClock()
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            limit_train_batches=SKIPPED + steps,
            default_root_dir=folder,
            callbacks=[clock],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
        return clock.timed()

    return run
