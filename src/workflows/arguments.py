"""What users type on a command line, as Hydra wants it: overrides in one piece, and each with a name."""

import os
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from hydra._internal.utils import get_args_parser


def in_one_piece(arguments: Sequence[str]) -> list[str]:
    """``eps=0 -m attack=fgsm`` as ``eps=0 attack=fgsm -m``: Hydra's parser takes overrides in one piece only.

    Options that take a value keep it. Arguments whose overrides are in one piece stay as they are.
    """
    is_option: list[bool] = []
    for before, argument in pairwise(["", *arguments]):
        is_option.append(argument.startswith("-") or _is_value(argument, before))
    if sum(not option for option, _ in groupby(is_option)) <= 1:
        return list(arguments)
    ordered = sorted(zip(is_option, arguments, strict=True), key=itemgetter(0))  # sorted keeps the order of equals
    return [argument for _, argument in ordered]


def _is_value(argument: str, before: str) -> bool:
    """Whether ``argument`` belongs to the option that stands ``before`` it, in full or shortened."""
    for action in get_args_parser()._actions:
        if any(before == name or (before[:2] == "--" and name.startswith(before)) for name in action.option_strings):
            return action.nargs is None or (action.nargs == "?" and argument in (action.choices or ()))
    return False


def named(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """``in/ out/ noise=0.5`` as ``input='in/' output='out/' noise=0.5``, for Hydra.

    What has a ``=`` is an override as it is, unless there is a file or folder of that name; what begins with ``-``,
    ``+`` or ``~`` is an option. More arguments than ``names`` are left for Hydra to refuse.
    """
    rest, overrides = list(names), []
    for before, argument in pairwise(["", *arguments]):
        is_option = argument.startswith(("-", "+", "~")) or _is_value(argument, before)
        is_other = is_option or ("=" in argument and not os.path.exists(argument))
        overrides.append(argument if is_other or not rest else f"{rest.pop(0)}={quoted(argument)}")
    return overrides


def quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar, in which a backslash counts before a quote alone."""
    inner = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{inner}'"
