"""From the configuration of a training to the call that trains."""

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from src.data import ImageDataModule
from src.errors import UserError
from src.models.checkpoint import read_checkpoint
from src.nested import leaves, rebuilt
from src.precision import native_bfloat16
from src.training_record import TrainingRecord
from src.workflows.building import build, plain
from src.workflows.loggers import Training, opened
from src.workflows.own_code import marked
from src.workflows.schema import TrainSettings
from src.workflows.settings import checked
from src.workflows.trained_on import trained_on
from src.workflows.training import TrainingPlan, train

log = logging.getLogger(__name__)


def _epochs(config: DictConfig) -> int:
    epochs = config.trainer.max_epochs
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise UserError(f"trainer.max_epochs={epochs} is not a positive whole number")
    return epochs


def data_from_config(config: DictConfig) -> ImageDataModule:
    """The data module of a ``data`` group."""
    return build(config)


def train_from_config(config: DictConfig) -> TrainingRecord | None:
    """Train what ``conf/train.yaml`` and the command line say; None in all but the first of several processes."""
    config = checked(config, TrainSettings)
    data = data_from_config(config.data)
    config = _with_found(_with_precision(config), data)
    model = config.model
    if "budgets" in model and config.budget not in model.budgets:
        raise UserError(f"budget={config.budget} is no budget of model={model.name}: {', '.join(model.budgets)}")
    noise = plain(model.noise)
    if noise is None:
        _refuse_noise(config)
    plan = TrainingPlan(
        model=model.name,
        checkpoint=Path(model.checkpoint),
        noise=None if noise is None else float(noise),
        seed=config.seed,
        epochs=_epochs(config),
        config={
            "module": fingerprinted(plain(model.module), partial(_weights_beside, data)),
            "batch_size": config.data.batch_size,
            "trainer": _trainer_identity(config),
        },
        command=_command(config),
        resume=config.resume,
        overwrite=config.overwrite,
    )
    _check_trainer(config, data)
    trainer = plain(config.trainer)
    more_callbacks, bar = trainer.pop("callbacks", None), trainer.pop("enable_progress_bar", True)
    trainer.setdefault("enable_model_summary", False)
    return train(
        plan,
        make_module=lambda: build(model.module),
        data=data,
        make_trainer=partial(_make_trainer, build(trainer)),
        open_loggers=lambda: _loggers(config, plan),
        show_progress=bar and sys.stdout.isatty(),
        more_callbacks=_callbacks(more_callbacks),
        cuda_graphs=config.cuda_graphs,
    )


def _refuse_noise(config: DictConfig) -> None:
    """``noise=`` for a model that has none. Under -m it may be meant for another model."""
    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return
    if any(override.startswith("noise=") for override in HydraConfig.get().overrides.task):
        raise UserError(f"noise={config.noise} has no effect: model={config.model.name} has none; leave it out")


def fingerprinted(component: Any, weights_of: Callable[[Mapping[str, Any]], str]) -> Any:
    """A component's configuration with every ``checkpoint`` replaced by the fingerprint of its weights: what it
    computes does not depend on where its weights lie, but on what they are. A user's own component carries the marks of
    :mod:`src.workflows.own_code`.

    Args:
        component: plain types.
        weights_of: the fingerprint, given the part of the component that has a ``checkpoint``.

    Raises:
        UserError: a ``checkpoint`` is no path; and as ``weights_of``.
    """

    def identity_of(part: dict[str, Any]) -> dict[str, Any]:
        if "checkpoint" in part:
            if not isinstance(part["checkpoint"], str):
                raise UserError(f"checkpoint={part['checkpoint']} is not the path of a file")
            part = part | {"checkpoint": weights_of(part)}
        return marked({name: value for name, value in part.items() if name != "remedy"})

    return rebuilt(component, identity_of)


def _weights_beside(data: ImageDataModule, part: Mapping[str, Any]) -> str:
    """The fingerprint of the weights in the ``checkpoint`` of a component that a training on ``data`` rests on, such as
    the classifier that guides it. It must have seen the same data and none of their validation images.

    Raises:
        UserError: it has not; or as :func:`src.models.checkpoint.read_checkpoint`.
    """
    path, remedy = Path(part["checkpoint"]), part.get("remedy", "python -m src.train")
    return trained_on(data, "val", read_checkpoint(path, remedy)[1], path, remedy).weights


def _make_trainer(make: Callable[..., Trainer], **arguments: Any) -> Trainer:
    """A trainer, unless it would start this command again for its other devices and the command is a multirun: each
    of them would begin the whole multirun anew."""
    trainer = make(**arguments)
    starts_others = trainer.world_size > 1 and trainer.strategy.launcher is not None
    if starts_others and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(f"{trainer.world_size} devices and -m do not go together: train one model a command")
    return trainer


#: Arguments of Lightning's Trainer that cannot change the weights, or are stored elsewhere (max_epochs).
WITHOUT_INFLUENCE = frozenset(
    {
        *("_target_", "_partial_", "accelerator", "max_epochs", "num_sanity_val_steps", "log_every_n_steps"),
        *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "default_root_dir", "profiler"),
        *("detect_anomaly", "inference_mode", "deterministic", "benchmark"),
    }
)

#: What the networks can be trained in. Quantizer and losses are written for float32 weights.
TRAINING_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def _trainer_identity(config: DictConfig) -> dict[str, Any]:
    """What of the trainer's configuration makes it another training: all of it but :data:`WITHOUT_INFLUENCE`."""
    return {name: value for name, value in plain(config.trainer).items() if name not in WITHOUT_INFLUENCE}


def _check_trainer(config: DictConfig, data: ImageDataModule) -> None:
    """Refuse what Lightning's Trainer accepts and these trainings cannot do.

    Raises:
        UserError: one line that says what to do instead.
    """
    trainer = plain(config.trainer)
    if trainer["precision"] not in TRAINING_PRECISIONS:
        raise UserError(
            f"trainer.precision={trainer['precision']} is no precision to train in; it can be auto, "
            + ", ".join(TRAINING_PRECISIONS)
        )
    if trainer.get("overfit_batches"):
        raise UserError(
            "trainer.overfit_batches is not supported; trainer.limit_train_batches=5 trains on a few batches"
        )
    if "logger" in trainer:
        raise UserError("trainer.logger is out of place: loggers are chosen by logger=…, see --help")
    if trainer.get("enable_checkpointing") is False:
        raise UserError("trainer.enable_checkpointing=false is not supported: the checkpoint is what a training is for")
    limit = trainer["limit_train_batches"]
    batches = len(data.train_dataloader())
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0 or int(_batches(limit, batches)) < 1:
        raise UserError(
            f"trainer.limit_train_batches={limit} leaves no batch of {batches}; "
            f"it can be a whole number from 1, or a share from {1 / batches:.2g}"
        )


def _batches(limit: float, batches: int) -> float:
    """How many of an epoch's batches Lightning trains on: so many, or a share of all."""
    return limit if isinstance(limit, int) else limit * batches


def _callbacks(components: Any) -> list[Any]:
    """The user's callbacks, from ``trainer.callbacks``: one component or a list of them."""
    listed = components or []
    callbacks = [build(component) for component in (listed if isinstance(listed, list) else [listed])]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise UserError(f"trainer.callbacks: {callback!r} is no Lightning callback; write [{{_target_: …}}]")
    return callbacks


def _with_found(config: DictConfig, data: ImageDataModule) -> DictConfig:
    """The configuration with the sizes that the data were found to have, where it leaves them open: models are built
    for them."""
    if config.data.image_shape is not None and config.data.num_classes is not None:
        return config
    data.prepare_data()
    log.info("%s: %s", data.name, data)
    config = config.copy()
    config.data.image_shape, config.data.num_classes = list(data.image_shape), data.num_classes
    return config


def _with_precision(config: DictConfig) -> DictConfig:
    """The configuration with the precision that ``auto`` stands for on this machine."""
    precision = str(config.trainer.precision)
    config = config.copy()
    config.trainer.precision = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(precision, precision)
    if precision == "auto":
        config.trainer.precision = "bf16-mixed" if native_bfloat16(config.trainer.accelerator) else "32-true"
        log.info("trainer.precision=%s", config.trainer.precision)
    return config


def _loggers(config: DictConfig, plan: TrainingPlan) -> AbstractContextManager[list[Logger]]:
    """The training's logger, told what is trained; none if there is none."""
    logger = build(config.logger.training) if config.logger.training else None
    noise = "" if plan.noise is None else f" noise {plan.noise:g}"
    name = f"{plan.model}{noise} seed {plan.seed}"
    return opened(logger, Training(name, plan.checkpoint.stem, config.data.name, _asked(config, plan)))


def _asked(config: DictConfig, plan: TrainingPlan) -> dict[str, Any]:
    """What was asked for as flat names with plain values: by what one filters runs first, then the rest by its path."""
    module, data, trainer = plain(config.model.module), plain(config.data), plain(config.trainer)
    first = {
        "model": plan.model,
        "data": data["name"],
        "noise": plan.noise,
        "seed": plan.seed,
        "budget": config.budget,
        "epochs": plan.epochs,
        "lr": module.get("lr"),
        "batch_size": data["batch_size"],
        "checkpoint": str(plan.checkpoint),
    }
    split = {name: data.get(name) for name in ("val_size", "split_seed")}
    rest = leaves({"module": module, "data": split, "trainer": trainer})
    return first | {name: value for name, value in rest if not name.endswith("_partial_")}


def _command(config: DictConfig) -> str:
    """What to type to train this again."""
    if not HydraConfig.initialized():
        return f"python -m src.train model={config.model.name} noise={config.noise}"
    overrides = [line for line in HydraConfig.get().overrides.task if not line.startswith(("resume=", "overwrite="))]
    return " ".join(["python -m src.train", *overrides])
