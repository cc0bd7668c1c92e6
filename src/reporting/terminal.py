"""The grid in a terminal or a pipe."""

import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.reporting.analysis.certified import CertifiedSet
from src.reporting.analysis.labels import MISSING
from src.reporting.document.certified import certified_sections
from src.reporting.document.findings import EXPLAINED, TITLE, check_sentences
from src.reporting.document.key_figures import short_title
from src.reporting.document.sections import Section, all_sentences, comparisons, sections
from src.reporting.document.tables import Entry, Table
from src.reporting.document.threats import SideBySide
from src.reporting.figures.colours import heat

#: Rich's padding and border of a column.
BETWEEN = 3

#: Spaces between a number and what it is a number of: "eps 0.3", "97 %", "± 0.2".
WITHIN = re.compile(r"(?<=\w) (?=[\d%±])|(?<=±) ")
NO_BREAK = "\N{NO-BREAK SPACE}"


def print_grid(grid: Grid, console: Console) -> None:
    """Print one table per attack, then what they say in words. Accuracies that stand side by side under several threats
    are not printed once more for each.

    In a terminal a table wider than the window continues below, with its row labels repeated; in a pipe every line is
    whole, whatever its length, and there is no colour.
    """
    parts = sections(grid)
    beside = [facet for part in parts if isinstance(part.subject, SideBySide) for facet in part.facets]
    legend = ""
    for chapter in parts:
        tables = () if any(chapter.subject is facet for facet in beside) else chapter.tables
        if chapter.legend != legend:
            if legend:
                console.print()
            _say(console, [legend := chapter.legend], style="dim")
        for table in [*tables, *filter(None, [chapter.tradeoff])]:
            _print_table(console, table, f"{chapter.name} · " if chapter.name else "")
    console.print()
    _say(console, all_sentences(parts))


def print_title(grid: Grid, console: Console) -> None:
    """Print the title of the page, as the last words: other tables have moved the first ones out of sight."""
    console.print()
    _say(console, [short_title(sections(grid))], style="bold")


def print_check_report(report: CheckReport, console: Console) -> None:
    """Print the reasons not to believe the grid, or that none was report; nothing if there was nothing to check."""
    if sentences := check_sentences(report):
        console.print()
        _say(console, [TITLE], style="bold yellow" if report.findings else "bold")
        _say(console, [EXPLAINED], style="dim")
        _say(console, sentences)


def print_comparison(grid: Grid, console: Console) -> None:
    """Print our numbers beside the report's: one table per attack, then how far they are apart."""
    for section in comparisons(grid):
        _print_section(section, console)


def print_certified(sets: Sequence[CertifiedSet], console: Console) -> None:
    """Print a table of certified accuracies for each data set, then what it says in words."""
    for section in certified_sections(sets):
        _print_section(section, console)


def _print_section(section: Section[Any], console: Console) -> None:
    console.print()
    _say(console, [section.title], style="bold")
    _say(console, [section.legend], style="dim")
    for table in section.tables:
        _print_table(console, table)
    console.print()
    _say(console, section.sentences)


def _say(console: Console, sentences: Iterable[str], style: str = "") -> None:
    """Print each sentence on lines of its own; in a terminal they end between words, never within "eps 0.3"."""
    for sentence in sentences:
        text = wrapped(sentence, console.width) if console.is_terminal else sentence
        console.print(Text(text, style=style), soft_wrap=True)


def wrapped(sentence: str, width: int) -> str:
    """``sentence`` in lines of at most ``width`` characters, but for a longer word; a number stays beside its unit."""
    glued = WITHIN.sub(NO_BREAK, sentence)  # textwrap does not break there, Rich does
    lines = textwrap.wrap(glued, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ")


def _print_table(console: Console, table: Table, prefix: str = "") -> None:
    console.print()
    _say(console, [prefix + table.title], style="bold")
    if console.is_terminal:
        for i, columns in enumerate(_fitting(table, console.width)):
            console.print(*[""] * bool(i), _drawn(table, columns), sep="\n")
        return
    # Rich assumes that a pipe is 80 characters wide, and would crop a wider table.
    widths = _widths(table)
    wide_console = Console(file=io.StringIO(), width=sum(widths) + BETWEEN * len(widths), color_system=None)
    with wide_console.capture() as capture:
        wide_console.print(_drawn(table, range(len(table.columns))))
    console.print(Text(capture.get().rstrip("\n")), soft_wrap=True)


def _drawn(table: Table, columns: Iterable[int]) -> RichTable:
    """The row labels and these columns."""
    rich_table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rich_table.add_column(Text(table.corner), no_wrap=True)
    for i in columns:
        rich_table.add_column(Text(table.columns[i]), justify="right", no_wrap=True)
    notes = _notes(table)
    for label, entries in table.rows:
        rich_table.add_row(Text(label), *(_entry(entries[i], notes[i]) for i in columns))
    return rich_table


def _fitting(table: Table, width: int) -> list[list[int]]:
    """The columns in groups that fit ``width`` characters beside the row labels."""
    label_width, *widths = _widths(table)
    groups: list[list[int]] = [[]]
    used_width = label_width
    for i, column_width in enumerate(widths):
        used_width += column_width + BETWEEN
        if used_width > width and groups[-1]:
            groups.append([])
            used_width = label_width + column_width + BETWEEN
        groups[-1].append(i)
    return groups


def _widths(table: Table) -> list[int]:
    """Characters of each column, row labels first."""
    notes = _notes(table)
    lines = [[Text(table.corner), *map(Text, table.columns)]]
    lines += [[Text(label), *map(_entry, entries, notes)] for label, entries in table.rows]
    return [max(text.cell_len for text in column) for column in zip(*lines, strict=True)]


def _notes(table: Table) -> list[int]:
    """Characters of the longest error bar of each column: padded to them, the numbers stand below one another."""
    return [max((len(entries[i].note) for _, entries in table.rows), default=0) for i in range(len(table.columns))]


def _entry(entry: Entry, note: int) -> Text:
    """Percent on its heat, and the error bar beside it, ``note`` characters wide. The bar is dim only without heat: on
    it dim text has too little contrast."""
    if entry.text == MISSING and not entry.note:
        return Text(MISSING, style="dim")
    background, ink = heat(entry.heat) if entry.heat is not None else (None, None)
    base = f"{ink} on {background}" if background else ""
    text = Text(entry.text, style=f"bold {base}".strip() if entry.strong else base)
    if entry.note:
        text.append(f" {entry.note:>{note}}", style=f"not bold {base or 'dim'}")
    return text
