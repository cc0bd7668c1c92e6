"""The one exception that stands for a mistake of the user's, not of the program's."""


class UserError(Exception):
    """Something the user can cause and mend.

    Its message is one line that says what was wrong and what would be right. Entry points print that line and exit
    non-zero; a traceback is shown for everything else, because everything else is a bug.
    """
