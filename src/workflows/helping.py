"""What ``--help`` lists of a configuration: its groups, and its values with the comments beside them in the YAML."""

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

#: Characters of a line, and the most of them that stand before a comment.
WIDTH, BEFORE = 100, 34

#: ``name: value  # comment`` in a YAML file, indented or not.
LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?")


def register_help() -> None:
    """Make what ``conf/base.yaml`` builds its help from known to OmegaConf. Safe to call again."""
    OmegaConf.register_new_resolver("groups", groups, replace=True)
    OmegaConf.register_new_resolver("options", options, replace=True)
    OmegaConf.register_new_resolver("values", values, replace=True)


def groups(*, _root_: DictConfig) -> str:
    """A line for each group that the command has: what is chosen, and what else could be."""
    rows = []
    for group, chosen in sorted(_groups(_root_).items()):
        others = [option for option in _options(group) if option != chosen]
        rows.append((f"{group}={chosen}", "or " + ", ".join(others) if others else ""))
    return _table(rows)


def options(group: str) -> str:
    """The options of a group, separated by commas."""
    return ", ".join(_options(group))


def values(*files: str, _root_: DictConfig) -> str:
    """A line for each value that these YAML files of ``conf/`` set: what it is now, and the comment beside it.

    Groups have their own list. Within a component only what is a plain value is listed, not what follows from others.
    """
    rows = []
    taken = {*_groups(_root_), "hydra", "defaults"}
    for file in files:
        for name, comment in comments(_text(file)).items():
            top, *below = name.split(".")
            if top in taken or len(below) > 1 or (below and not _is_plain(_root_, name)):
                continue
            value = OmegaConf.select(_root_, name)
            if OmegaConf.is_config(value):
                rows += [(name, comment)] if comment else []
            else:
                rows.append((shlex.quote(f"{name}={_written(value)}"), comment))
    return _table(rows)


def comments(text: str) -> dict[str, str]:
    """The keys of a YAML file of mappings, dotted, in their order, each with the comment at the end of its line."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if (match := LINE.fullmatch(line)) is None:
            continue
        indent = len(match["indent"])
        path = [*(each for each in path if each[0] < indent), (indent, match["name"])]
        found[".".join(name for _, name in path)] = (match["comment"] or "").strip()
    return found


def _groups(root: DictConfig) -> dict[str, str]:
    """The groups of this command, Hydra's own left out, with what is chosen of each."""
    choices: dict[str, Any] = OmegaConf.to_container(root.hydra.runtime.choices)  # type: ignore[assignment]
    return {str(group): str(each) for group, each in choices.items() if group in root and "/" not in str(group)}


def _options(group: str) -> list[str]:
    return GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)


def _text(name: str) -> str:
    """The YAML file of this name, from wherever Hydra has it; empty if it is no file."""
    for source in GlobalHydra.instance().config_loader().get_sources():
        path = Path(source.path) / f"{name}.yaml"
        if source.scheme() == "file" and path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


def _is_plain(root: DictConfig, name: str) -> bool:
    """Whether a value within a component is there, and one that a user would set: neither computed nor Hydra's."""
    parent, _, last = name.rpartition(".")
    component = OmegaConf.select(root, parent)
    return last in component and not last.startswith("_") and not OmegaConf.is_interpolation(component, last)


def _written(value: Any) -> str:
    """A value as Hydra reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _table(rows: list[tuple[str, str]]) -> str:
    """Names and what is said of them, in lines of at most :data:`WIDTH` characters. ``$`` is doubled, because Hydra
    fills in the text as a template."""
    column = 2 + min(BEFORE, max((len(name) for name, _ in rows), default=0)) + 2
    return "\n".join(line for row in rows for line in _lines(*row, column)).replace("$", "$$")


def _lines(name: str, said: str, column: int) -> Iterator[str]:
    """One row; what is said stands below a name that leaves no room beside it."""
    first = f"  {name}"
    if not said or len(first) > column - 2:
        yield first
        first = ""
    if said:
        yield from textwrap.TextWrapper(
            WIDTH, initial_indent=first.ljust(column), subsequent_indent=" " * column, break_on_hyphens=False
        ).wrap(said)
