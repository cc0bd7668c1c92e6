"""Arguments without a name, on the command line of a program whose arguments Hydra wants named."""

import os
import re
from collections.abc import Sequence


def named(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """``in/ out/ noise=0.5`` as ``input='in/' output='out/' noise=0.5``, for Hydra.

    What has a ``=`` is an override as it is, unless there is a file or folder of that name; what begins with ``-``,
    ``+`` or ``~`` is an option. More arguments than ``names`` are left for Hydra to refuse.
    """
    rest, overrides = list(names), []
    for argument in arguments:
        is_other = argument.startswith(("-", "+", "~")) or ("=" in argument and not os.path.exists(argument))
        overrides.append(argument if is_other or not rest else f"{rest.pop(0)}={quoted(argument)}")
    return overrides


def quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar, in which a backslash counts before a quote alone."""
    inner = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), text)
    return f"'{inner}'"
