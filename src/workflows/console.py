"""Terminals and command-line parsers that cannot take what they are given."""

import argparse
import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: What is printed where a terminal's encoding, such as Windows' cp1252, has no such character.
PLAIN = {"σ": "sigma", "∞": "inf", "‖": "|", "₂": "2", "→": "->", "≤": "<=", "≥": ">=", "−": "-", "·": "-", "×": "x"}
PLAIN |= {"─": "-", "…": "...", "–": "-", "±": "+-", "✓": "ok"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in characters), error.end


def print_whatever_comes() -> None:
    """Have standard output and error replace the characters that their encoding lacks, instead of raising an error."""
    codecs.register_error("plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plain")


@contextmanager
def help_as_text() -> Iterator[None]:
    """Have every ``help`` of an argument parser that is made meanwhile turned into text.

    Hydra 1.3 gives its option ``--shell-completion`` an object that becomes text when it is shown. The ``argparse`` of
    Python 3.14 looks into each help as soon as it gets it, and raises a TypeError (Hydra's issue 3121).
    """
    add_argument = argparse.ArgumentParser.add_argument

    def add(parser: argparse.ArgumentParser, *names: Any, help: object = None, **options: Any) -> argparse.Action:
        return add_argument(parser, *names, help=None if help is None else str(help), **options)

    argparse.ArgumentParser.add_argument = add  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.add_argument = add_argument  # type: ignore[method-assign]
