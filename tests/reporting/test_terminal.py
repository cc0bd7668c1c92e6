"""The grid in a terminal and in a pipe."""

import io
import re
from itertools import pairwise

import pytest
import reporting_factories as make
from rich.console import Console

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.reporting.terminal import print_check_report, print_comparison, print_grid


def piped(grid: Grid, show: object = print_grid) -> str:
    text = io.StringIO()
    show(grid, Console(file=text))  # type: ignore[operator]
    return text.getvalue()


def shown(grid: Grid, width: int) -> str:
    text = io.StringIO()
    print_grid(grid, Console(file=text, force_terminal=True, color_system="truecolor", width=width))
    return text.getvalue()


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_pipe_gets_whole_lines_without_colour() -> None:
    noises = {("vqvae", i / 99): (0.9, 0.3) for i in range(100)}
    text = piped(make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns=noises))
    assert "\x1b" not in text
    assert "…" not in text
    header, row = (next(line for line in text.splitlines() if line.startswith(start)) for start in ("eps", "0.3"))
    assert header.count("vqvae") == 100
    assert row.count("30.0 ±0.9") == 100


def test_numbers_and_gaps_are_those_of_the_cells(grid: Grid) -> None:
    lines = piped(make.without(grid, attack="fgsm", eps=0.3, defense="kmeans")).splitlines()
    start = lines.index("fgsm, 10,000 images")
    assert lines[start + 1].split() == [
        "eps",
        "none",
        "kmeans",
        "binarize",
        "vqvae",
        "0",
        "vqvae",
        "0.25",
        "vqvae",
        "0.5",
        "vqvae",
        "0.75",
    ]
    expected = "0.3 1.2 ±0.2 — 82.1 ±0.8 26.9 ±0.9 35.5 ±0.9 41.7 ±1.0 38.5 ±1.0"
    assert lines[start + 6].split() == expected.split()


def test_the_words_come_last_whole(grid: Grid) -> None:
    lines = piped(grid).splitlines()
    assert any(line.startswith("At eps 0.3") and line.endswith("beyond the error bars.") for line in lines)
    assert lines[-1].startswith("If the clean accuracy must be at least")


def test_a_terminal_gets_heat_and_lines_that_fit(grid: Grid) -> None:
    text = shown(grid, width=60)
    assert re.search(r"\x1b\[[0-9;]*48;2;", text)
    plain = without_colour(text)
    assert max(map(len, plain.splitlines())) <= 60
    assert plain.count("vqvae 0.75") >= len(make.ATTACKS)
    assert "…" not in plain


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_lines_end_between_words_and_never_within_a_number(grid: Grid, width: int) -> None:
    lines = without_colour(shown(grid, width)).splitlines()
    assert max(map(len, lines)) <= width
    pairs = [(before, after) for before, after in pairwise(lines) if before and after]
    assert not [pair for pair in pairs if re.search(r"[a-z±]$", pair[0]) and re.match(r"[\d%±]", pair[1])]
    sentences = piped(grid).splitlines()[-4:]
    assert all(len(sentence) > width for sentence in sentences[:2])
    assert " ".join(" ".join(lines).split()).endswith(" ".join(" ".join(sentences).split()))


def test_the_last_screen_of_a_grid_is_its_words_and_fits_80_by_24(grid: Grid) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, color_system=None, width=80, height=24)
    print_grid(grid, console)
    print_check_report(CheckReport(judged=63, asked=12, probed=12), console)
    lines = text.getvalue().split("\n")
    begin = next(i for i, line in enumerate(lines) if line.startswith("At eps 0.3 the strongest attack"))
    places = 2  # where the page is, and where those of all sweeps are
    assert len(lines[begin:]) - 1 + places <= 23  # one is left for the prompt


def test_the_heat_follows_the_accuracy() -> None:
    columns = {(f"d{i}", None): (0.9, i / 10) for i in range(11)}
    row = next(
        line
        for line in shown(make.make_grid(("fgsm",), (0.3,), columns=columns), 300).splitlines()
        if line.startswith("0.3")
    )
    cells = re.findall(r"48;2;(\d+);(\d+);(\d+)m *([\d.]+)\x1b", row)
    assert [float(each[3]) for each in cells] == [10 * i for i in range(11)]
    brightness = [sum(map(int, each[:3])) for each in cells]
    assert brightness == sorted(set(brightness), reverse=True)


def test_no_colour_where_none_is_wanted(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(grid, width=100)
    assert "\x1b[1m" in text, "bold says what is best, with or without colour"
    assert not re.search(r"\x1b\[[0-9;]*[34]8;", text)


def test_numbers_stand_below_one_another() -> None:
    lines = without_colour(shown(make.make_grid(n=50), width=120)).splitlines()
    rows = [line for line in lines[lines.index("fgsm, 50 images") :] if "±" in line][:5]
    assert len({len(mark) for row in rows for mark in re.findall(r"±\S+", row)}) > 1
    assert len({tuple(match.start() for match in re.finditer(r"\.\d +±", row)) for row in rows}) == 1


def test_markup_in_names_is_text() -> None:
    grid = make.make_grid(attacks=("[red]x[/red]",), budgets=(0.3,), columns={("[bold", None): (0.9, 0.3)})
    text = piped(grid)
    assert "[red]x[/red], 10,000 images" in text
    assert "[bold" in text


def test_an_empty_grid_is_said_to_be_empty() -> None:
    assert piped(Grid(())).strip() == "The grid is empty: no cell was asked for."


def test_the_comparison_shows_ours_theirs_and_the_difference(grid: Grid) -> None:
    text = piped(grid, print_comparison)
    assert "41.70 / 41.71 / -0.01" in text
    assert len(re.findall(r" / \d+\.\d\d / ", text)) == 75
    assert "The largest difference" in text
