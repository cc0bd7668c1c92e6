"""A command's configuration against its schema: one line for whatever does not fit.

Hydra composes a configuration; :func:`checked` holds it against the schema of its command before anybody reads it.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ValidationError

from src.errors import UserError
from src.nested import leaves
from src.workflows.composing import parsed
from src.workflows.error_messages import nearest
from src.workflows.schema import Settings, TrainSettings, pixel_units, section_of

#: Names of values in pixel units, wherever they stand.
IN_PIXEL_UNITS = frozenset({"eps", "noise", "noises", "sigma", "inference_noise", "threshold", "thresholds"})

#: Groups whose file is not a component itself, but has some.
GROUPS = frozenset({"model", "defense", "threat", "logger"})

#: What may be added to a component's file: read where it is there.
OPTIONAL = frozenset({"precision", "network", "first", "learned", "bpda", "family", "stronger", "claim"})

#: Values that only components read, those of some attacks, defenses and threats.
FOR_COMPONENTS = frozenset({"inference_noise", "iterative", "surrogate"})

#: What an attack is called with, and so cannot be set beforehand.
GIVEN = ("model", "x", "y", "eps", "gradient")


def checked(config: DictConfig, schema: type[Settings]) -> DictConfig:
    """A command's configuration whose plain values fit their schema, with fractions as numbers: itself if it has none
    of them, else a copy. Checkpoints that its components need and that are missing are taken from ``paths.weights``, if
    that is set.

    Args:
        config: as Hydra composed it, interpolations and all.
        schema: that of the command.

    Raises:
        UserError: a value does not fit, an override would have no effect, an attack is given what it is called with, or
        ``paths.weights`` is no good.
    """
    overrides = _overrides(config)
    _refuse_several(overrides, config)
    _refuse_without_effect(overrides, config, schema)
    config = _with_fractions_as_numbers(config)
    fields = {name: field.annotation for name, field in schema.model_fields.items() if name in config}
    values = {name: _value(config, name, annotation) for name, annotation in fields.items()}
    try:
        settings = schema.model_validate(values)
    except ValidationError as error:
        raise UserError(in_one_line(error, schema)) from None
    changed = {name: value for name, value in settings if isinstance(value, int | float) and value != config[name]}
    config = _updated(config, changed)
    if "attack" in schema.model_fields:
        _refuse_given(OmegaConf.to_container(config.attack, resolve=False), "attack")
    if "trainer" in config:
        from src.precision import check_device  # here, because PyTorch is slow to import

        precisions = (config.get("purify_precision"), config.get("precision"), config.trainer.get("precision"))
        check_device(str(config.trainer.get("accelerator")), str(next(filter(None, precisions), "float32")))
    for_trainings = "logger" in config and config.logger.get("training") and not config.logger.get("cells")
    if for_trainings and schema is not TrainSettings:
        raise UserError("this logger is for trainings; cells and certificates go to logger=wandb or logger=none")
    if config.paths.get("weights"):
        from src.workflows.weights import supply  # here, because PyTorch is slow to import

        supply(config)
    return config


def _value(config: DictConfig, name: str, annotation: Any) -> Any:
    """A value with its interpolations resolved; those of a component are left to whoever builds it, and so is what a
    section does not look at."""
    value, section = config[name], section_of(annotation)
    if isinstance(value, DictConfig) and section and section.model_config.get("extra") == "ignore":
        return {field: _value(value, field, None) for field in section.model_fields if field in value}
    return OmegaConf.to_container(value, resolve=annotation is not Any) if OmegaConf.is_config(value) else value


def _with_fractions_as_numbers(config: DictConfig) -> DictConfig:
    """The fractions among the values in pixel units as numbers, and the numbers rounded, wherever they stand."""
    changed = {}
    for path, value in leaves(OmegaConf.to_container(config, resolve=False), separator="."):
        names = [name for name in path.split(".") if not name.isdecimal()]
        if names and names[-1] in IN_PIXEL_UNITS and pixel_units(value) != value:
            changed[path] = pixel_units(value)
    return _updated(config, changed)


def _updated(config: DictConfig, changed: Mapping[str, Any]) -> DictConfig:
    """A copy with other values, by path; ``config`` itself if there are none. A copy costs as much as all checks."""
    if changed:
        config = copy.deepcopy(config)
        for path, value in changed.items():
            OmegaConf.update(config, path, value)
    return config


def in_one_line(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first mistake that pydantic found, as ``eps=2 is not a number from 0 to 1 (L∞ budget in pixel units)``."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    kind, value = first["type"], first["input"]
    if kind == "missing" and len(path) == 1:
        return f"there is no {path[0]} here; see --help"
    if kind == "missing":
        named = isinstance(value, Mapping) and "name" in value
        which = f"the YAML of {path[0]}={value['name']}" if named else f"a YAML of group {path[0]}"
        return f"{which} has no line {'.'.join(path[1:])}: …; those in conf/{path[0]} show what it can be"
    if kind == "extra_forbidden":
        inner = section_of(schema.model_fields[path[0]].annotation)
        names = [f"{path[0]}.{name}" for name in inner.model_fields] if inner else []
        return f"there is no {'.'.join(path)} here; {nearest('.'.join(path), names)}"
    if kind == "value_error":
        return str(first["ctx"]["error"])
    path = [name for name in path if name.isdecimal() or name in _names(schema)]  # less the branches of a union
    name = ".".join(path)
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    texts = [entry["ctx"]["expected"] for entry in error.errors() if entry["type"] == "literal_error"]  # of a union
    words = {
        "model_type": f"is out of place: {name} is set value by value, as in {name}.…=…; see --help",
        "dict_type": "is no component",
        "bool_type": " nor ".join(["is neither true", "false", *texts]),
        "literal_error": f"is not {first.get('ctx', {}).get('expected')}",
    }
    fault = words.get(kind) or f"is not {_expected(schema, path).format(name=name)}"
    if kind == "less_than_equal" and path[-1] == "eps" and value <= 255:
        fault += f"; did you mean {value:g}/255?"
    return f"{name}={text} {fault}"


def _names(schema: type[BaseModel]) -> set[str]:
    inner = [section_of(field.annotation) for field in schema.model_fields.values()]
    return {*schema.model_fields, *(name for model in inner if model for name in _names(model))}


def _expected(schema: type[BaseModel], path: Iterable[str]) -> str:
    """What a value has to be, from its type, range and unit."""
    described: dict[str, Any] = schema.model_json_schema()
    part = described
    for name in path:
        if name.isdecimal():
            part = next(branch for branch in part.get("anyOf", [part]) if "items" in branch)["items"]
            continue
        part = part["properties"][name]
        if "$ref" in part:
            part = described["$defs"][part["$ref"].rpartition("/")[2]]
    return _in_words(part)


def _in_words(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_in_words(branch) for branch in part["anyOf"])
    kinds = {"integer": "a whole number", "number": "a number", "string": "a text", "null": "null"}
    if part.get("type") == "array":
        example = "[a,b]" if part["items"].get("type") == "string" else "[0,0.5]"
        return f"a list such as {{name}}={example}"
    words = kinds.get(part.get("type", ""), "what it should be")
    low, high = part.get("minimum"), part.get("maximum")
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    if low is not None and high is not None:
        words += f" from {low:g} to {high:g}"
    elif low is not None and below is not None:
        words += f" from {low:g} to {below - 1}"
    elif above is not None and below is not None:
        words += f" between {above:g} and {below:g}"
    elif low is not None:
        words += f", at least {low:g}"
    elif above is not None:
        words += f" above {above:g}" + (f", at most {high:g}" if high is not None else "")
    return words + (f" ({part['unit']})" if "unit" in part else "")


def _overrides(config: DictConfig) -> list[Override]:
    """What the command line, or a point of a sweep, asks for; nothing where a configuration was composed by itself."""
    if "hydra" in config:
        lines = list(config.hydra.overrides.task)
    else:
        lines = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return parsed(lines)


def _refuse_several(overrides: list[Override], config: DictConfig) -> None:
    """``attack=[fgsm,ifgsm]`` would lay one file over the other, and the last would run."""
    for override in overrides:
        name, value = override.key_or_group, override.value()
        if isinstance(value, list) and isinstance(OmegaConf.select(config, name), DictConfig):
            raise UserError(
                f"{override.input_line} chooses several where one is wanted; for one job each: "
                f"-m {name}={','.join(str(option) for option in value)}"
            )


def _refuse_without_effect(overrides: list[Override], config: DictConfig, schema: type[Settings]) -> None:
    """An override that adds what nobody reads: no field of the schema, no argument of a component, no interpolation."""
    for override in overrides:
        name = override.key_or_group.partition("@")[0]
        top, _, below = name.partition(".")
        if schema is not TrainSettings and top == "trainer" and below not in ("", "accelerator"):
            raise UserError(f"{override.input_line} has no effect here: only trainer.accelerator has")
        if name.startswith("threat.bare"):
            raise UserError(
                f"{override.input_line} is out of place: threat.bare is the threat itself without a defense"
            )
        if not (override.is_add() or override.is_force_add()) or top not in config or _is_read(name, config):
            continue
        if top not in schema.model_fields:
            raise UserError(f"{override.input_line} has no effect; {nearest(top, schema.model_fields)}")
        in_no_component = isinstance(config[top], DictConfig) and "_target_" not in config[top]
        if in_no_component and below and "." not in below and below not in OPTIONAL and top in GROUPS:
            raise UserError(f"{override.input_line} has no effect: no part of {top} is called {below}")


def _refuse_given(attack: Any, path: str) -> None:
    """``attack.eps=0.01`` would give a cell another key and not another budget. Looks into the members of a worst case,
    and into an attack within an attack."""
    if not isinstance(attack, dict):
        return
    for name in GIVEN:
        if attack.get("_partial_") and name in attack:
            names = f"{', '.join(GIVEN[:-1])} and {GIVEN[-1]}"
            raise UserError(
                f"{path}.{name} is out of place: the evaluation gives an attack {names}; the budget is eps=…"
            )
    _refuse_given(attack.get("attack"), f"{path}.attack")
    members = attack.get("members")
    for name, member in members.items() if isinstance(members, dict) else ():
        _refuse_given(member, f"{path}.members.{name}")


def unread(overrides: Iterable[str], configs: Iterable[DictConfig]) -> list[str]:
    """Those of ``overrides`` that set a value for components which none of the composed ``configs`` reads."""
    names = {
        str(override.input_line): override.key_or_group
        for override in parsed(overrides)
        if override.key_or_group.partition(".")[0] in FOR_COMPONENTS
    }
    for config in configs if names else ():
        names = {line: name for line, name in names.items() if not _is_read(name, config)}
    return list(names)


def _is_read(name: str, config: DictConfig) -> bool:
    """Whether an interpolation names it."""
    interpolations = " ".join(re.findall(r"\$\{[^}]*", str(OmegaConf.to_container(config, resolve=False))))
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", interpolations) is not None
