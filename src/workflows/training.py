"""Train a model, survive interruptions, leave a checkpoint that can be trusted and a record to look at."""

import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from src.data import ImageDataModule
from src.encoded_images import EXAMPLES, encode_images
from src.environment import environment_of
from src.errors import UserError, in_a_line
from src.files import write_atomically
from src.models.checkpoint import Provenance, read_checkpoint, save_weights_only
from src.nested import leaves
from src.training_record import TrainingRecord
from src.workflows.callbacks import (
    TERMINATED,
    DivergedError,
    EpochSeeds,
    Illustrate,
    LogEveryEpoch,
    Recorder,
    Stamp,
    StopTogether,
    StopWhenDiverged,
    illustrate,
)
from src.workflows.graphed_steps import GraphedSteps

log = logging.getLogger(__name__)

#: Whether a training may take the place of a published one: never, if that is another training, or always.
Overwrite = Literal[False, "different", True]

#: Differences between two trainings that an error message names.
NAMED = 4


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
    overwrite: Overwrite = False  #: what may happen to a checkpoint that is there already

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
    more_callbacks: Sequence[Callback] = (),
    cuda_graphs: bool = True,
) -> TrainingRecord | None:
    """Train one model on the training images of ``data``, validated after every epoch.

    The weights after the last epoch are published at ``plan.checkpoint``, with a :class:`TrainingRecord` beside them.
    An interruption (Ctrl-C, SIGTERM, a crash) leaves the state after the last whole epoch, and whatever was published
    before, as they were; a resumed run ends with the weights of an uninterrupted one.

    Under a trainer with several processes, each of them calls this. The first one publishes, logs and returns the
    record, the others return None. A debug run (Lightning's ``fast_dev_run``) publishes nothing and returns None.

    Args:
        make_module: builds the module; called after seeding.
        make_trainer: ``Trainer`` with all but ``callbacks``, ``logger`` and ``enable_progress_bar`` given.
        open_loggers: Lightning loggers, open as long as this training runs; not called if there is nothing to train.
            One with a method ``log_trained(checkpoint, record)`` is told what came of it.
        show_progress: draw a progress bar.
        more_callbacks: Lightning callbacks of the user's.
        cuda_graphs: run training steps on a GPU as CUDA graphs, where the module allows it.

    Raises:
        UserError: the network cannot take images of this size, there is nothing to resume or a resumed state is of
            another configuration, there is no such device, or the training diverged.
    """
    data.prepare_data()
    provenance = _provenance(plan, data)
    images, recorder = next(iter(data.val_dataloader()))[0][:EXAMPLES], Recorder()
    callbacks: list[Callback] = [
        EpochSeeds(plan.seed),
        recorder,
        Illustrate(images),
        Stamp(provenance),
        ModelCheckpoint(
            dirpath=plan.state.parent,
            filename=plan.state.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        ),
        StopTogether(),
        LogEveryEpoch(),
        StopWhenDiverged(),
        *([GraphedSteps()] if cuda_graphs else []),
        *more_callbacks,
    ]
    trainer = _build(make_trainer, callbacks, show_progress)
    is_debug_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
    if not is_debug_run and (published := _published(plan, provenance)):
        log.info("%s is trained already; overwrite=true trains it again", plan.checkpoint)
        return published
    resumed = _state_to_resume(plan, provenance)
    with open_loggers() if trainer.is_global_zero else nullcontext([]) as trainer.loggers:
        seed_everything(plan.seed, verbose=False)
        module = make_module().to(memory_format=torch.channels_last)  # what convolutions are faster in
        _check_sizes(plan.model, module, images)
        _check_plan(plan, module, resumed)
        log.info("training %s for %s epochs -> %s", plan.model, plan.epochs, plan.checkpoint)
        _fit(trainer, module, data, resumed, plan)
        if is_debug_run:
            log.info("this was a debug run (trainer.fast_dev_run): %s is as it was", plan.checkpoint)
        if is_debug_run or not trainer.is_global_zero:
            return None
        record = _publish(plan, module, recorder, images, trainer.strategy.root_device)
        for listener in (logger for logger in trainer.loggers if hasattr(logger, "log_trained")):
            listener.log_trained(plan.checkpoint, record)
        return record


def _provenance(plan: TrainingPlan, data: ImageDataModule) -> Provenance:
    """What the training's checkpoints say of themselves, before the first epoch."""
    return Provenance(
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


def _check_sizes(model: str, module: LightningModule, images: Tensor) -> None:
    """Refuse a network that cannot take ``images`` (N, C, H, W), or returns them in another size.

    Raises:
        UserError: it is one.
    """
    size = "×".join(map(str, images.shape[1:]))
    was_training = module.training
    try:
        with torch.random.fork_rng(), torch.no_grad():
            answer = module.eval()(images[:2].clone())
    except NotImplementedError:  # a module of the user's without forward()
        return
    except Exception as error:
        raise UserError(f"model={model} cannot be trained on images {size}: {in_a_line(error)}") from error
    finally:
        module.train(was_training)
    if isinstance(answer, Tensor) and answer.ndim == 4 and answer.shape[1:] != images.shape[1:]:
        other = "×".join(map(str, answer.shape[1:]))
        raise UserError(f"model={model} turns images {size} into {other}; it needs a height and a width divisible by 4")


def _check_plan(plan: TrainingPlan, module: LightningModule, resumed: Path | None) -> None:
    """Refuse to resume with another number of epochs where rates follow from that number (``plans_ahead``).

    Raises:
        UserError: the resumed run would not be an uninterrupted one.
    """
    if resumed is None or not getattr(module, "plans_ahead", False):
        return
    planned = read_checkpoint(resumed, plan.command)[1].planned_epochs
    if planned != plan.epochs:
        raise UserError(
            f"{resumed} was planned for {planned} epochs, and model={plan.model} plans its rates over all of them; "
            f"resume it with trainer.max_epochs={planned}, or leave resume=true out"
        )


def _build(make_trainer: Callable[..., Trainer], callbacks: list[Callback], show_progress: bool) -> Trainer:
    # Filling memory before use, which deterministic mode adds, guards against bugs we do not have, at a price.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    bar: list[Callback] = [RichProgressBar(leave=False)] if show_progress else []
    try:
        return make_trainer(callbacks=bar + callbacks, logger=False, enable_progress_bar=show_progress)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def _published(plan: TrainingPlan, provenance: Provenance) -> TrainingRecord | None:
    """The record of a published checkpoint that this very training would make again; None if there is none, or if it is
    to be replaced."""
    if plan.overwrite is True:
        return None
    try:
        _, stored = read_checkpoint(plan.checkpoint, plan.command)
    except UserError as error:
        if plan.checkpoint.exists():
            log.warning("%s will be replaced: %s", plan.checkpoint, error)
        return None
    differences = list(_differences(stored, provenance))
    if differences and plan.overwrite is False:
        summary = ", ".join(differences[:NAMED]) + (", …" if len(differences) > NAMED else "")
        kept = _kept(plan.checkpoint, stored.weights)
        log.warning("%s holds another training (%s); it will be kept as %s", plan.checkpoint, summary, kept)
    try:
        record = TrainingRecord.load(TrainingRecord.path(plan.checkpoint))
    except (ValueError, OSError):
        return None
    return record if not differences and record.weights == stored.weights else None


def _kept(checkpoint: Path, weights: str) -> Path:
    """Where a published checkpoint with these weights is kept when another training takes its place."""
    return checkpoint.parent / "replaced" / f"{checkpoint.stem}-{weights[:12]}{checkpoint.suffix}"


def _keep(plan: TrainingPlan, weights: str) -> None:
    """Copy the published checkpoint and its record aside, unless it has the new ``weights`` or cannot be read."""
    try:
        stored = read_checkpoint(plan.checkpoint, plan.command)[1].weights
    except UserError:
        return
    if stored != weights:
        kept = _kept(plan.checkpoint, stored)
        write_atomically(kept, partial(shutil.copyfile, plan.checkpoint))
        if (record := TrainingRecord.path(plan.checkpoint)).exists():
            write_atomically(TrainingRecord.path(kept), partial(shutil.copyfile, record))


def _differences(stored: Provenance, wanted: Provenance) -> Iterator[str]:
    """How a checkpoint's training differs from the one that is wanted: ``planned_epochs 1, not 6``."""
    theirs, ours = (dict(leaves(asdict(provenance), separator=".")) for provenance in (stored, wanted))
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ("weights", "epochs") and theirs.get(name) != ours.get(name):
            yield f"{name.removeprefix('config.')} {theirs.get(name)}, not {ours.get(name)}"


def _state_to_resume(plan: TrainingPlan, provenance: Provenance) -> Path | None:
    """The interrupted run's state, verified to be of the same configuration; None without ``resume``."""
    if not plan.resume:
        return None
    _, stored = read_checkpoint(plan.state, plan.command)
    ours = replace(provenance, weights="", epochs=0, planned_epochs=0)
    if replace(stored, weights="", epochs=0, planned_epochs=0) != ours:
        raise UserError(
            f"{plan.state} was trained with another configuration; repeat its arguments, or leave resume=true out"
        )
    if stored.epochs > provenance.planned_epochs:
        raise UserError(f"{plan.state} has {stored.epochs} epochs, more than the {provenance.planned_epochs} asked for")
    log.info("resuming after epoch %d of %d", stored.epochs, provenance.planned_epochs)
    return plan.state


def _fit(
    trainer: Trainer, module: LightningModule, data: ImageDataModule, resumed: Path | None, plan: TrainingPlan
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
            trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True if resumed else None)
    except DivergedError:
        raise
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


def _publish(
    plan: TrainingPlan, module: LightningModule, recorder: Recorder, images: Tensor, device: torch.device
) -> TrainingRecord:
    checkpoint, provenance = read_checkpoint(plan.state, plan.command)
    if plan.overwrite is False:
        _keep(plan, provenance.weights)
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
        examples={name: encode_images(stack) for name, stack in illustrate(module, images).items()},
        environment=environment_of(device),
    )
    record.save(plan.checkpoint)
    log.info("saved %s (%.0f s)", plan.checkpoint, recorder.seconds)
    return record
