"""Train a model, survive interruptions, leave a checkpoint that can be trusted and a record to look at."""

import logging
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from src.data import ImageDataModule
from src.errors import UserError
from src.images import EXAMPLES, encode_images
from src.models.checkpoint import Provenance, read_checkpoint, save_weights_only
from src.models.record import TrainingRecord
from src.workflows.callbacks import (
    TERMINATED,
    EpochSeeds,
    Illustrate,
    LogEveryEpoch,
    Recorder,
    Stamp,
    StopTogether,
    illustrate,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """What is to be trained, and where it goes."""

    model: str  #: name of the model's configuration
    checkpoint: Path  #: where the trained weights go; training state lies beside it as ``<stem>.last.ckpt``
    noise: float | None  #: σ of the training noise; None for a model without one
    seed: int
    epochs: int  #: the trainer's ``max_epochs``
    config: dict[str, Any]  #: what else makes this training another one: the module's arguments, as plain types
    command: str  #: what to type to run this training again
    resume: bool = False  #: continue from ``<stem>.last.ckpt``
    overwrite: bool = False  #: train although the same checkpoint exists

    @property
    def state(self) -> Path:
        """The training state, saved after every epoch."""
        return self.checkpoint.with_suffix(".last.ckpt")


def train(
    plan: TrainingPlan,
    make_module: Callable[[], LightningModule],
    data: ImageDataModule,
    make_trainer: Callable[..., Trainer],
    open_loggers: Callable[[], AbstractContextManager[list[Logger]]] = lambda: nullcontext([]),
    show_progress: bool = False,
) -> TrainingRecord | None:
    """Train one model on the training images of ``data``, validated after every epoch.

    The weights after the last epoch are published at ``plan.checkpoint``, with a :class:`TrainingRecord` beside them.
    An interruption (Ctrl-C, SIGTERM, a crash) leaves the state after the last whole epoch, and whatever was published
    before, as they were; a resumed run ends with the weights of an uninterrupted one.

    Under a trainer with several processes, each of them calls this. The first one publishes, logs and returns the
    record, the others return None.

    Args:
        make_module: builds the module; called after seeding.
        make_trainer: ``Trainer`` with all but ``callbacks``, ``logger`` and ``enable_progress_bar`` given.
        open_loggers: Lightning loggers, open as long as this training runs; not called if there is nothing to train.
            One with a method ``log_trained(checkpoint, record)`` is told what came of it.
        show_progress: draw a progress bar.

    Raises:
        UserError: nothing to resume, a resumed state of another configuration, no such device.
    """
    data.prepare_data()
    provenance = Provenance(
        model=plan.model,
        data=data.name,
        data_fingerprint=data.fingerprint,
        image_shape=list(data.image_shape),
        split_seed=data.split_seed,
        val_size=data.val_size,
        seed=plan.seed,
        epochs=0,
        planned_epochs=plan.epochs,
        noise=plan.noise,
        config=plan.config,
    )
    if not plan.overwrite and (done := _published(plan, provenance)):
        log.info("%s is trained already; overwrite=true trains it again", plan.checkpoint)
        return done
    resumed = _state_to_resume(plan, provenance)
    images, recorder = next(iter(data.val_dataloader()))[0][:EXAMPLES], Recorder()
    callbacks = [EpochSeeds(plan.seed), recorder, Illustrate(images), Stamp(provenance), _save_every_epoch(plan.state)]
    callbacks += [StopTogether(), LogEveryEpoch()]
    trainer = _build(make_trainer, callbacks, show_progress)
    with open_loggers() if trainer.is_global_zero else nullcontext([]) as trainer.loggers:
        seed_everything(plan.seed, verbose=False)
        module = make_module().to(memory_format=torch.channels_last)  # what convolutions are faster in
        log.info("training %s for %s epochs -> %s", plan.model, plan.epochs, plan.checkpoint)
        _fit(trainer, module, data, resumed, plan)
        if not trainer.is_global_zero:
            return None
        record = _publish(plan, module, recorder, images)
        for told in (logger for logger in trainer.loggers if hasattr(logger, "log_trained")):
            told.log_trained(plan.checkpoint, record)
        return record


def _build(make_trainer: Callable[..., Trainer], callbacks: list[Callback], show_progress: bool) -> Trainer:
    # Filling memory before use, which deterministic mode adds, guards against bugs we do not have, at a price.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    bar: list[Callback] = [RichProgressBar(leave=False)] if show_progress else []
    try:
        return make_trainer(
            callbacks=bar + callbacks, logger=False, enable_progress_bar=show_progress, enable_model_summary=False
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _save_every_epoch(state: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=state.parent, filename=state.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )


def _published(plan: TrainingPlan, provenance: Provenance) -> TrainingRecord | None:
    """The record of a checkpoint that this very training would make again; None if there is none."""
    try:
        _, found = read_checkpoint(plan.checkpoint, plan.command)
        record = TrainingRecord.load(TrainingRecord.path(plan.checkpoint))
    except (UserError, ValueError, OSError):
        return None
    same = replace(found, weights="", epochs=0) == replace(provenance, weights="", epochs=0)
    return record if same and record.weights == found.weights else None


def _state_to_resume(plan: TrainingPlan, provenance: Provenance) -> Path | None:
    """The interrupted run's state, verified to be of the same configuration; None without ``resume``."""
    if not plan.resume:
        return None
    _, found = read_checkpoint(plan.state, plan.command)
    ours = replace(provenance, weights="", epochs=0, planned_epochs=0)
    if replace(found, weights="", epochs=0, planned_epochs=0) != ours:
        raise UserError(
            f"{plan.state} was trained with another configuration; repeat its arguments, or leave resume=true out"
        )
    if found.epochs > provenance.planned_epochs:
        raise UserError(f"{plan.state} has {found.epochs} epochs, more than the {provenance.planned_epochs} asked for")
    log.info("resuming after epoch %d of %d", found.epochs, provenance.planned_epochs)
    return plan.state


def _fit(
    trainer: Trainer, module: LightningModule, data: ImageDataModule, resumed: Path | None, plan: TrainingPlan
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True if resumed else None)
    except BaseException as error:
        if plan.state.exists():
            log.warning("interrupted; %s holds the last whole epoch", plan.state)
            log.warning("continue with: %s resume=true", plan.command)
        if isinstance(error, SIGTERMException):  # its exit code is 0, which a scheduler would take for success
            sys.exit(TERMINATED if trainer.is_global_zero else 0)  # else Lightning kills the first before it is done
        if trainer.world_size > 1 and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # the processes that wait for this one
        raise
    finally:
        for logger in trainer.loggers:
            logger.finalize("success" if trainer.state.finished else "failed")


def _publish(plan: TrainingPlan, module: LightningModule, recorder: Recorder, images: torch.Tensor) -> TrainingRecord:
    checkpoint, provenance = read_checkpoint(plan.state, plan.command)
    save_weights_only(checkpoint, plan.checkpoint)
    record = TrainingRecord(
        model=plan.model,
        data=provenance.data,
        noise=plan.noise,
        seed=plan.seed,
        weights=provenance.weights,
        seconds=recorder.seconds,
        losses=[(int(step), loss) for step, loss in recorder.losses],
        epochs=recorder.epochs,
        examples={name: encode_images(shown) for name, shown in illustrate(module, images).items()},
    )
    record.save(plan.checkpoint)
    log.info("saved %s (%.0f s)", plan.checkpoint, recorder.seconds)
    return record
