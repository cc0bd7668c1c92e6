"""The one exception that stands for a mistake of the user's, not of the program's; and others' errors on one line."""


class UserError(Exception):
    """Something the user can cause and mend.

    Its message is one line that says what was wrong and what would be right. Entry points print that line and exit
    non-zero; a traceback is shown for everything else, because everything else is a bug.
    """


def in_a_line(error: Exception) -> str:
    """``ValueError: what it said``, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
