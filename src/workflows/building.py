"""From parts of a configuration to what they describe: plain types, and components with checked arguments."""

import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra._internal.utils import _locate
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from src.errors import UserError, in_a_line


def plain(config: Any) -> Any:
    """A configuration node as plain dicts, lists and scalars, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


def build(config: Any, **arguments: Any) -> Any:
    """``hydra.utils.instantiate`` with plain types, and with an error that says what the component said.

    Raises:
        UserError: the component refused its arguments, or does not exist.
    """
    check_arguments(plain(config))
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if location := re.match("Error locating target '(.*?)'", str(error)):
            raise UserError(_not_imported(location[1], error)) from error
        if isinstance(cause, (ValueError, TypeError)) or cause is None:
            reason = " ".join(str(cause or error).split())
            unbound = "missing" in reason and "positional argument" in reason and "_partial_" not in config
            hint = "; if it is a function to be called later, add _partial_: true to its YAML" if unbound else ""
            raise UserError(f"{_name(config)}: {reason}{hint}") from error
        raise


def _not_imported(target: str, error: Exception) -> str:
    """Why what a component names is not to be had: the first error of all, which Hydra's own words leave out."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    where = "; a file of yours must lie in the current folder or on PYTHONPATH"
    return f"{target} cannot be imported: {in_a_line(error)}{where if isinstance(error, ModuleNotFoundError) else ''}"


def check_arguments(component: Any) -> None:
    """Hold the plain arguments of a component, and of those within it, against the types that its signature names.

    Python itself would take the text "maybe" for true. Ranges, and everything but single values and lists of them, are
    for the component to check.

    Raises:
        UserError: an argument has another type.
    """
    if isinstance(component, list):
        for part in component:
            check_arguments(part)
    if not isinstance(component, dict):
        return
    for part in component.values():
        check_arguments(part)
    for name, hint in _plain_hints(component.get("_target_")).items():
        if name not in component:
            continue
        try:
            TypeAdapter(hint, config={"strict": True}).validate_python(component[name])
        except ValidationError as error:
            raise UserError(f"{component['_target_']}: {_refusal(name, component[name], error)}") from None


def _refusal(name: str, value: Any, error: ValidationError) -> str:
    """``steps=two is not a whole number``; of a list ``blocks=[1, two] has two, which is not a whole number``."""
    first = error.errors()[0]
    kind = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    names = {"integer": "a whole number", "boolean": "true or false", "string": "a text", "list": "a list"}
    wanted = names.get(kind, kind)
    if not isinstance(value, list) or not first["loc"]:
        return f"{name}={'null' if value is None else value} is not {wanted}"
    return f"{name}=[{', '.join(map(str, value))}] has {first['input']}, which is not {wanted}"


def _plain_hints(target: Any) -> dict[str, Any]:
    """The parameters of a function or class that are numbers, texts, truth values or lists of them, with their types as
    YAML has them: every sequence is a list."""
    try:
        function = _locate(target)  # hydra.utils.get_object would log a failure
        owner = function if isinstance(function, type) else getattr(function, "__self__", None)
        # A class may hand what it does not name on to its bases, and an alternative constructor to its class.
        makers = [vars(base).get("__init__") for base in reversed(owner.__mro__)] if isinstance(owner, type) else []
        hints = {name: hint for maker in [*makers, function] if maker for name, hint in _hints(maker).items()}
    except Exception:  # a target that is none is named when it is built
        return {}
    plain_hints = {name: _as_in_yaml(hint) for name, hint in hints.items()}
    return {name: hint for name, hint in plain_hints.items() if hint is not None}


def _hints(function: Any) -> dict[str, Any]:
    hints = {} if isinstance(function, type) else get_type_hints(function)
    return {name: hint for name, hint in hints.items() if name != "return"}


def _as_in_yaml(hint: Any) -> Any:
    """A type with every sequence as a list; None if it is about anything but numbers, texts, truth values, lists."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal or hint in (bool, int, float, str, NoneType):
        return hint
    if origin not in (Union, UnionType, list, tuple, Sequence):
        return None
    hints = [_as_in_yaml(part) for part in parts if part is not Ellipsis]
    if not hints or None in hints:
        return None
    if origin in (Union, UnionType):
        return Union[tuple(hints)]  # noqa: UP007 - made of a list
    return list[Union[tuple(hints)]]  # type: ignore[misc]  # noqa: UP007


def _name(config: Any) -> Any:
    """What stands for a component in a message."""
    return config.get("_target_") if isinstance(config, Mapping | DictConfig) else f"{config} is no component"
