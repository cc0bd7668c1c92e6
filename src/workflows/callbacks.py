"""Callbacks of a training run."""

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from src.errors import UserError
from src.models.checkpoint import Provenance, stamp
from src.randomness import seeded

log = logging.getLogger(__name__)

#: Steps between two recorded losses, in epochs that have as many.
EVERY = 20

#: Between the seeds of two processes of one run: odd, so no two are equal, and far from any multiple of another seed.
RANK_STRIDE = 2_654_435_761


TERMINATED = 143  # what shells report after SIGTERM

#: Seconds after SIGTERM in which the processes of a distributed training can agree to end.
GRACE = 30.0


class EpochSeeds(Callback):
    """Reseeds every epoch from (seed, epoch), so that a resumed run draws the noise and dropout that an uninterrupted
    one would have drawn. Of several processes each has a stream of its own, the first one that of a single process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stream = self.seed * 100_003 + trainer.current_epoch + trainer.global_rank * RANK_STRIDE
        seed_everything(stream % 2**32, verbose=False)


class StopTogether(Callback):
    """Ends all processes of a distributed training after the same batch once any of them got SIGTERM.

    Takes the place of Lightning's handler, which talks to the other processes from wherever the signal found it: they
    may be in the middle of another exchange, and then all wait for one another (seen in one of four trials).
    """

    def __init__(self) -> None:
        self._is_terminated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._tell)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self._is_terminated, all=False):
            raise SIGTERMException

    def _tell(self, *_: Any) -> None:
        self._is_terminated = True
        last_resort = threading.Timer(GRACE, os._exit, [TERMINATED])
        last_resort.daemon = True
        last_resort.start()


class DivergedError(UserError):
    """A training whose loss or weights are no numbers any more."""


class StopWhenDiverged(Callback):
    """Ends a training that diverged, before its state is saved: the state after the last good epoch stays.

    The loss is looked at every :data:`EVERY` steps and the network after every epoch: a GPU has to wait for an answer.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.precision == "16-mixed":  # whose gradient scaler recovers from a loss that is infinite
            return
        if trainer.global_step % EVERY == 0 and not torch.isfinite(outputs["loss"]):
            self._stop(trainer, f"the loss is {float(outputs['loss'])}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, tensor in pl_module.state_dict().items():
            if not torch.isfinite(tensor).all():
                self._stop(trainer, f"{name} is not finite")
        for name, value in trainer.callback_metrics.items():
            if not torch.isfinite(value):
                self._stop(trainer, f"{name} is {float(value)}")

    def _stop(self, trainer: Trainer, reason: str) -> None:
        raise DivergedError(
            f"the training diverged in epoch {trainer.current_epoch + 1}: {reason}; nothing was published; "
            "try a smaller learning rate (model.module.lr)"
        )


class Stamp(Callback):
    """Writes the provenance into every checkpoint."""

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        stamp(checkpoint, replace(self.provenance, epochs=trainer.current_epoch + 1))


class Recorder(Callback):
    """Collects what a :class:`src.training_record.TrainingRecord` keeps, across interruptions; logs a line an epoch."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []
        self.epochs: list[dict[str, float]] = []
        self.seconds = 0.0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "epochs": self.epochs, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses, self.epochs = state_dict["losses"], state_dict["epochs"]
        self.seconds = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % min(EVERY, trainer.num_training_batches) == 0:
            self.losses.append([trainer.global_step, float(outputs["loss"])])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        self.epochs.append({"epoch": epoch, "step": trainer.global_step} | metrics)
        summary = " · ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()) if "val/" in name)
        log.info("epoch %d/%d · %s · %.0f s in all", epoch, trainer.max_epochs, summary, self.seconds)


class LogEveryEpoch(Callback):
    """Has the losses of training steps logged once an epoch at least, however short epochs are."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.num_training_batches
        trainer.log_every_n_steps = int(min(trainer.log_every_n_steps, batches))  # type: ignore[attr-defined]


class Illustrate(Callback):
    """Shows the logger, after every epoch, a few images as the model renders them.

    Args:
        images: (N, C, H, W) in [0, 1]; of the validation set, never of the test set.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
        if loggers and trainer.is_global_zero:
            examples = illustrate(pl_module, self.images)
            for logger in loggers:
                for name, images in examples.items():
                    rows = [image.movedim(0, -1).squeeze(-1).clamp(0, 1).numpy() for image in images]
                    logger.log_image(key=f"examples/{name}", images=rows, step=trainer.global_step)


@torch.no_grad()
def illustrate(module: LightningModule, images: Tensor) -> Mapping[str, Tensor]:
    """``module.illustrate(images)`` on the CPU in eval mode, without moving the random stream; {} if it has none."""
    show = getattr(module, "illustrate", None)
    if show is None:
        return {}
    was_training = module.training
    with seeded(0):
        module.eval()
        examples = show(images.to(module.device))
    module.train(was_training)
    return {name: tensor.float().cpu() for name, tensor in examples.items()}
