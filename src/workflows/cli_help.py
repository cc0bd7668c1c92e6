"""What ``--help`` lists of a configuration: its groups, and its values with the sentences of their schema."""

import inspect
import json
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from pydantic.fields import FieldInfo

from src.workflows.schema import SCHEMAS, Settings, section_of

#: Characters of a line, and the most of them that stand before a comment.
WIDTH, BEFORE = 100, 34


def groups(*, _root_: DictConfig) -> str:
    """A line for each group that the command has: what is chosen, and what else could be."""
    rows = []
    for group, choice in sorted(_groups(_root_).items()):
        others = [option for option in _options(group) if option != choice]
        rows.append((f"{group}={choice}", "or " + ", ".join(others) if others else ""))
    return f"Groups (group=option)\n\n{_table(rows)}\n" if rows else ""


def options(group: str) -> str:
    """The options of a group, separated by commas."""
    return ", ".join(_options(group))


def values(command: str, *, _root_: DictConfig) -> str:
    """A line for each value that a command takes: what it is now, and the sentence of its schema. Its own come first,
    those of every command last. Groups have their own list, and what another command takes as well is in its help."""
    choices = _groups(_root_)
    schema: type[Settings] = SCHEMAS[command]
    fields = schema.model_fields
    bases = (base for base in SCHEMAS.values() if base is not schema and issubclass(schema, base))
    others = next(bases, Settings).model_fields
    own = [name for name in fields if name not in others]
    names = [name for name in [*own, *reversed(Settings.model_fields)] if name not in choices and name in _root_.keys()]  # noqa: SIM118 - "in" passes over what is ???
    return _table([row for name in names for row in _rows(name, fields[name], _root_)])


def _rows(name: str, field: FieldInfo, root: DictConfig) -> Iterator[tuple[str, str]]:
    """The rows of a value, or of a section and what is in it."""
    section, description = section_of(field.annotation), field.description or ""
    if section:
        yield name, inspect.getdoc(section) or ""
        for inner, value in section.model_fields.items():
            yield from _rows(f"{name}.{inner}", value, root)
    elif OmegaConf.is_dict(value := OmegaConf.select(root, name)):
        yield name, description
    else:
        parent, _, last = name.rpartition(".")
        missing = OmegaConf.is_missing(OmegaConf.select(root, parent) if parent else root, last)
        text = "???" if missing else _written(value)
        yield shlex.quote(f"{name}={text}"), description


def _groups(root: DictConfig) -> dict[str, str]:
    """The groups of this command, Hydra's own left out, with what is chosen of each."""
    choices: dict[str, Any] = OmegaConf.to_container(root.hydra.runtime.choices)  # type: ignore[assignment]
    return {str(group): str(choice) for group, choice in choices.items() if group in root and "/" not in str(group)}


def _options(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)


def _written(value: Any) -> str:
    """A value as Hydra reads it."""
    plain_value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return plain_value if isinstance(plain_value, str) else json.dumps(plain_value)


def _table(rows: list[tuple[str, str]]) -> str:
    """Names and what is said of them, in lines of at most :data:`WIDTH` characters. ``$`` is doubled, because Hydra
    fills in the text as a template."""
    column = 2 + min(BEFORE, max((len(name) for name, _ in rows), default=0)) + 2
    return "\n".join(line for row in rows for line in _lines(*row, column)).replace("$", "$$")


def _lines(name: str, description: str, column: int) -> Iterator[str]:
    """One row; what is said stands below a name that leaves no room beside it."""
    first = f"  {name}"
    if not description or len(first) > column - 2:
        yield first
        first = ""
    if description:
        yield from textwrap.TextWrapper(
            WIDTH, initial_indent=first.ljust(column), subsequent_indent=" " * column, break_on_hyphens=False
        ).wrap(description)
