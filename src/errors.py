"""The one exception that stands for a mistake of the user's; and what to say of other errors."""

import sysconfig
import traceback
from pathlib import Path

#: Folders of code that no user wrote: Python's, those of installed packages by name, and ours.
PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
PACKAGES = frozenset({"site-packages", "dist-packages"})
OURS = Path(__file__).resolve().parent


class UserError(Exception):
    """Something the user can cause and mend.

    Its message is one line that says what was wrong and what would be right. Entry points print that line and exit
    non-zero; a traceback is shown for everything else, because everything else is a bug.
    """


def is_installed(path: Path) -> bool:
    """Whether a resolved path is of Python or an installed package."""
    return not PACKAGES.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in PYTHON)


def in_a_line(error: Exception) -> str:
    """``ValueError: what it said``, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def in_code_of_the_users(error: BaseException) -> str | None:
    """Where the user's own code was when ``error`` was raised, as ``path/file.py:12, in forward``; None if there was
    none between the program and the error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if path.is_file() and not path.is_relative_to(OURS) and not is_installed(path):
            return f"{frame.filename}:{frame.lineno}, in {frame.name}"
    return None
