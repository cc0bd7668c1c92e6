"""The one exception that stands for a mistake of the user's; and what to say of other errors."""

import sysconfig
import traceback
from pathlib import Path

#: Folders of code that no user wrote: ours, Python's, and of installed packages.
INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
OURS = Path(__file__).resolve().parent


class UserError(Exception):
    """Something the user can cause and mend.

    Its message is one line that says what was wrong and what would be right. Entry points print that line and exit
    non-zero; a traceback is shown for everything else, because everything else is a bug.
    """


def in_a_line(error: Exception) -> str:
    """``ValueError: what it said``, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def in_code_of_the_users(error: BaseException) -> str | None:
    """Where the user's own code was when ``error`` was raised, as ``path/file.py:12, in forward``; None if there was
    none between the program and the error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if path.is_file() and not any(path.is_relative_to(folder) for folder in (OURS, *INSTALLED)):
            return f"{frame.filename}:{frame.lineno}, in {frame.name}"
    return None
