"""Output in any encoding, and a parser of arguments that newer versions of Python accept."""

import argparse
import io
import sys

import pytest
from hydra._internal.utils import get_args_parser

from src.workflows.console import help_as_text, print_whatever_comes


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_characters_that_the_terminal_lacks_are_written_in_others(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_whatever_comes()
    print("σ of the noise → ‖x‖∞ ≤ 0.3; 漢", flush=True)
    expected = "σ of the noise → ‖x‖∞ ≤ 0.3; 漢" if encoding == "utf-8" else "sigma of the noise -> |x|inf <= 0.3; ?"
    assert written.getvalue().decode(encoding) == f"{expected}\n"


def test_every_help_of_hydras_parser_is_text(monkeypatch):
    """Python 3.14 searches a help for % as it is given, and 3.15 hands it to a regular expression."""
    add_argument = argparse.ArgumentParser.add_argument

    def searching(*arguments, **options):
        action = add_argument(*arguments, **options)
        assert action.help is None or "%" not in action.help
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", searching)
    with pytest.raises(TypeError):
        get_args_parser()
    with help_as_text():
        parser = get_args_parser()
    assert "Install or Uninstall shell completion" in parser.format_help()
    assert argparse.ArgumentParser.add_argument is searching
