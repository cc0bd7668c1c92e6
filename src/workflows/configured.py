"""From configuration to typed calls."""

import logging
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from src.data import ImageDataModule
from src.errors import UserError
from src.models.checkpoint import read_checkpoint
from src.models.record import TrainingRecord
from src.nested import leaves
from src.precision import native_bfloat16
from src.workflows.loggers import Training, opened
from src.workflows.training import TrainingPlan, train

log = logging.getLogger(__name__)


def plain(config: Any) -> Any:
    """A configuration node as plain dicts, lists and scalars, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def build(config: Any, **arguments: Any) -> Any:
    """``hydra.utils.instantiate`` with plain types, and with an error that says what the component said.

    Raises:
        UserError: the component refused its arguments, or does not exist.
    """
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, (ValueError, TypeError)) or cause is None:
            raise UserError(f"{_name(config)}: {' '.join(str(cause or error).split())}") from error
        raise


def _name(config: Any) -> Any:
    """What stands for a component in a message."""
    return config.get("_target_") if isinstance(config, Mapping | DictConfig) else f"{config} is no component"


def section(config: DictConfig, name: str) -> DictConfig:
    """A part of the configuration, which a value in its place would have swept away.

    Raises:
        UserError: it is a value.
    """
    part = config[name]
    if not isinstance(part, DictConfig):
        raise UserError(f"{name}={part} is out of place: {name} is set value by value, as in {name}.…=…; see --help")
    return part


def switch(config: DictConfig, name: str) -> bool:
    """A value of the configuration that is true or false. Any text would count as true, "no" included.

    Raises:
        UserError: it is something else.
    """
    value = OmegaConf.select(config, name)
    if not isinstance(value, bool):
        raise UserError(f"{name}={value} is neither true nor false")
    return value


def number(config: DictConfig, name: str, low: float, high: float, what: str) -> float:
    """A top-level number of the configuration, checked.

    Raises:
        UserError: it is not a finite number in [low, high].
    """
    value = config[name]
    acceptable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not acceptable or not low <= value <= high:
        raise UserError(f"{name}={value} is not {what}")
    return float(value)


def whole(config: DictConfig, name: str, low: int, what: str) -> int:
    """A top-level whole number of the configuration, checked.

    Raises:
        UserError: it is not a whole number of at least ``low``.
    """
    value = config[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise UserError(f"{name}={value} is not {what}")
    return value


def seed_of(config: DictConfig) -> int:
    """The seed, checked."""
    seed = config.seed
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise UserError(f"seed={seed} is not a whole number from 0 to 2147483647")
    return seed


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
    number(config, "noise", 0, 10, "a noise level: σ in pixel units, 0 to 10")
    seed = seed_of(config)
    config = _with_precision(config)
    model = config.model
    if "budgets" in model and config.budget not in model.budgets:
        raise UserError(f"budget={config.budget} is no budget of model={model.name}: {', '.join(model.budgets)}")
    noise = plain(model.noise)
    plan = TrainingPlan(
        model=model.name,
        checkpoint=Path(model.checkpoint),
        noise=None if noise is None else float(noise),
        seed=seed,
        epochs=_epochs(config),
        config={
            "module": fingerprinted(plain(model.module), _weights),
            "batch_size": config.data.batch_size,
            "batches": config.trainer.limit_train_batches,
        }
        | _processes(config)
        | _precision(config),
        command=_command(config),
        resume=switch(config, "resume"),
        overwrite=switch(config, "overwrite"),
    )
    return train(
        plan,
        make_module=lambda: build(model.module),
        data=data_from_config(config.data),
        make_trainer=partial(_make_trainer, build(config.trainer)),
        open_loggers=lambda: _loggers(config, plan),
        show_progress=sys.stdout.isatty(),
    )


def fingerprinted(component: Any, weights_of: Callable[[Mapping[str, Any]], str]) -> Any:
    """A component's configuration with every ``checkpoint`` replaced by the fingerprint of its weights: what it
    computes does not depend on where its weights lie, but on what they are.

    Args:
        component: plain types.
        weights_of: the fingerprint, given the part of the component that has a ``checkpoint``.

    Raises:
        UserError: a ``checkpoint`` is no path; and as ``weights_of``.
    """
    if isinstance(component, list):
        return [fingerprinted(each, weights_of) for each in component]
    if not isinstance(component, dict):
        return component
    known = {name: fingerprinted(value, weights_of) for name, value in component.items() if name != "remedy"}
    if "checkpoint" not in component:
        return known
    if not isinstance(component["checkpoint"], str):
        raise UserError(f"checkpoint={component['checkpoint']} is not the path of a file")
    return known | {"checkpoint": weights_of(component)}


def _weights(part: Mapping[str, Any]) -> str:
    return read_checkpoint(Path(part["checkpoint"]), part.get("remedy", "python -m src.train"))[1].weights


def _make_trainer(make: Callable[..., Trainer], **arguments: Any) -> Trainer:
    """A trainer, unless it would start this command again for its other devices and the command is a multirun: each
    of them would begin the whole multirun anew."""
    from hydra.core.hydra_config import HydraConfig

    trainer = make(**arguments)
    starts_others = trainer.world_size > 1 and trainer.strategy.launcher is not None
    if starts_others and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(f"{trainer.world_size} devices and -m do not go together: train one model a command")
    return trainer


def _processes(config: DictConfig) -> dict[str, Any]:
    """How many train together, which makes it another training: their batches add up. Empty for one alone."""
    shape = {"devices": plain(config.trainer.devices), "num_nodes": config.trainer.num_nodes}
    return {} if shape == {"devices": 1, "num_nodes": 1} else shape


def _with_precision(config: DictConfig) -> DictConfig:
    """The configuration with the precision that ``auto`` stands for on this machine."""
    if config.trainer.precision != "auto":
        return config
    chosen = config.copy()
    chosen.trainer.precision = "bf16-mixed" if native_bfloat16(config.trainer.accelerator) else "32-true"
    log.info("trainer.precision=%s", chosen.trainer.precision)
    return chosen


def _precision(config: DictConfig) -> dict[str, Any]:
    """What the trainer computes in, which makes it another training. Empty for the usual float32."""
    precision = str(config.trainer.precision)
    return {} if precision in ("32", "32-true") else {"precision": precision}


def _loggers(config: DictConfig, plan: TrainingPlan) -> AbstractContextManager[list[Logger]]:
    """The training's logger, told what is trained; none if there is none."""
    made = build(config.logger.training) if config.logger.training else None
    noise = "" if plan.noise is None else f" noise {plan.noise:g}"
    name = f"{plan.model}{noise} seed {plan.seed}"
    return opened(made, Training(name, plan.checkpoint.stem, config.data.name, _asked(config, plan)))


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
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return f"python -m src.train model={config.model.name} noise={config.noise}"
    kept = [each for each in HydraConfig.get().overrides.task if not each.startswith(("resume=", "overwrite="))]
    return " ".join(["python -m src.train", *kept])
