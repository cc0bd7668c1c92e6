"""``grid.md``: the grid for a README, a pull request or a terminal's pager."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.evaluation.sanity_checks import CheckReport
from src.reporting.analysis.certified import Certificates
from src.reporting.document.findings import EXPLAINED, NOTHING_CHECKED, TITLE, check_sentences
from src.reporting.document.sections import Section, all_sentences
from src.reporting.document.tables import Entry, Table


def to_markdown(
    sections: Sequence[Section[Any]], figures: Mapping[str, Path], checks: CheckReport = NOTHING_CHECKED
) -> str:
    """The whole report as GitHub Markdown; figures by paths relative to the report's folder."""
    lines = ["# Accuracy grid", ""]
    if not sections:
        lines += [*all_sentences([]), ""]
    if sentences := check_sentences(checks):
        lines += [f"## {TITLE}", "", EXPLAINED, "", *(f"- {escape(sentence)}" for sentence in sentences), ""]
    lines += [line for section in sections for line in _section(section)]
    if figures:
        lines += ["## Figures", "", *_pictures(figures), ""]
    return "\n".join(lines)


def certified_to_markdown(sections: Sequence[Section[Certificates]], figures: Mapping[str, Path]) -> str:
    """``certified.md``: the certificates alone; figures by paths relative to the report's folder."""
    lines = ["# Certified accuracy", "", *(line for section in sections for line in _section(section))]
    return "\n".join([*lines, *_pictures(figures), ""])


def _section(section: Section[Any]) -> list[str]:
    lines = [f"## {escape(section.title)}", ""]
    lines += [line for sentence in (*section.sentences, section.legend) for line in (escape(sentence), "")]
    for table in [*section.tables, *filter(None, [section.tradeoff])]:
        lines += [f"### {escape(table.title)}", "", table_to_markdown(table), ""]
    return lines


def _pictures(figures: Mapping[str, Path]) -> list[str]:
    return [f"![{escape(Path(name).stem)}](figures/{name})" for name in figures]


def table_to_markdown(table: Table) -> str:
    """A pipe table, its columns aligned for readers of the source."""
    head = [escape(table.corner), *map(escape, table.columns)]
    body = [[escape(label), *map(_entry, entries)] for label, entries in table.rows]
    widths = [max(3, *(len(line[i]) for line in [head, *body])) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in [head, *body]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], rule, *aligned[1:]])


def _entry(entry: Entry) -> str:
    text = f"**{entry.text}**" if entry.strong else entry.text
    return f"{text} {entry.note}".rstrip()


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no HTML, no table borders, no emphasis."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
