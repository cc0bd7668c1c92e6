"""Errors of Hydra and OmegaConf on one line, which names the nearest of what would have been right."""

import difflib
import re
import traceback
from collections.abc import Iterable

from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

#: Names shown where none is near.
SHOWN = 12

#: What describes a component, and is nothing to set on the command line.
DESCRIPTIONS = frozenset({"name", "family", "stronger", "claim", "learned"})

#: Groups whose options have values of their own.
CHOSEN = frozenset({"attack.", "defense."})


def one_line(error: Exception) -> str:
    """An error's message on one line. Hydra's lists of options come after a colon, not one a line."""
    return _of_a_value(error) or _of_an_option(error) or _of_an_override(error) or _of_a_gap(error) or _flattened(error)


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """``did you mean fgsm?``, or what there is if nothing is like ``name``; all of them with ``prefix`` before them."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=0.5):
        return f"did you mean {prefix}{close[0]}?"
    return "there is " + ", ".join(prefix + other for other in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _of_a_gap(error: Exception) -> str | None:
    """A value that has no default, such as the folder of one's own images, and was not given."""
    match = re.search(r"issing mandatory value: (\S+)", str(error))
    return f"{match[1]} has no default and has to be given: {match[1]}=…" if match else None


def _of_a_value(error: Exception) -> str | None:
    """A key that the configuration does not have. Hydra's advice to add it with + would have it ignored."""
    cause = error.__cause__
    if not isinstance(error, ConfigCompositionException) or not isinstance(cause, OmegaConfBaseException):
        return None
    node, key = cause.parent_node, str(cause.key)
    if "Could not override" not in str(error) or not isinstance(node, DictConfig):
        return None
    name = str(cause.full_key or key)
    prefix = name.removesuffix(key)
    siblings = [str(sibling) for sibling in node if sibling not in DESCRIPTIONS] if node else []
    keys = [sibling for sibling in siblings if not sibling.startswith("_") and prefix + sibling != "hydra"]
    chosen = f"with {prefix.removesuffix('.')}={node['name']}" if prefix in CHOSEN and "name" in node else "here"
    return f"there is no {name} {chosen}; {nearest(key, keys, prefix)}" if keys else f"there is no {name} {chosen}"


def of_a_choice(error: ValueError) -> str | None:
    """What to say of a value, such as null, in the place of a group's option; None if ``error`` is another one.

    Hydra's message has no name. The override is a variable of the function that raised it.
    """
    if "Config group override" not in str(error):
        return None
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        if "override" in frame.f_locals and "repo" in frame.f_locals:
            override, repo = frame.f_locals["override"], frame.f_locals["repo"]
            group = override.key_or_group
            options = ", ".join(repo.get_group_options(group, ObjectType.CONFIG))
            return f"{override.input_line} chooses none of {group}, which can be {options}"
    return str(error)


def _of_an_option(error: Exception) -> str | None:
    """A group's option that does not exist."""
    if not isinstance(error, MissingConfigException) or not error.missing_cfg_file or not error.options:
        return None
    match = re.search(r"Available options in '(.+)':", str(error))  # else an option with slashes passes for groups
    group = match[1] if match else error.missing_cfg_file.rpartition("/")[0]
    option = error.missing_cfg_file.removeprefix(f"{group}/")
    matches = difflib.get_close_matches(option, error.options, n=1, cutoff=0.5)
    suggestion = f"did you mean {matches[0]}? " if matches else ""
    message = f"there is no {group}={option}; {suggestion}{group} can be {', '.join(error.options)}"
    own = "/" in option and "folder" in error.options
    return f"{message}; for images of your own: {group}=folder {group}.root={option}" if own else message


def _of_an_override(error: Exception) -> str | None:
    """An override that cannot be read, or has several values without -m."""
    if isinstance(error, OverrideParseException) and "=" not in error.override:
        return f"{error.override} is not name=value; see --help"
    if isinstance(error, OverrideParseException) and error.override.endswith(","):
        return f"{error.override} ends with a comma: values are written without spaces, as in eps=0,0.3"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as name=value; quote a value with spaces, commas, brackets or ="
    if match := re.match(r"Ambiguous value for argument '(.*)'", str(error)):
        return f"{match[1]} has several values: put -m before it for a job each; one list is written [a,b]"
    if match := re.match(r"Could not override '(.*)'\. No match in the defaults list\.\n.* use \+(\S+)", str(error)):
        return f"this command has no {match[1]} to choose: leave {match[2]} out; +{match[2]} would add it all the same"
    return None


def _flattened(error: Exception) -> str:
    cause = error.__cause__
    text = str(error)
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        text = f"{text}: {cause.msg or cause}"
    text = text.partition("Config search path:")[0]  # followed by places where Hydra looked
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))
