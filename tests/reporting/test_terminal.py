"""The grid in a terminal and in a pipe."""

import io
import re

import reporting_factories as make
from rich.console import Console

from src.evaluation.grid import Grid
from src.reporting.terminal import print_comparison, print_grid


def piped(grid: Grid, show: object = print_grid) -> str:
    text = io.StringIO()
    show(grid, Console(file=text))  # type: ignore[operator]
    return text.getvalue()


def shown(grid: Grid, width: int) -> str:
    text = io.StringIO()
    print_grid(grid, Console(file=text, force_terminal=True, color_system="truecolor", width=width))
    return text.getvalue()


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
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 60 + len("Points paid on clean images and won under the worst")
    tables = [line for line in plain.splitlines() if "±" in line or line.startswith(("eps", "defense"))]
    assert max(map(len, tables)) <= 60
    assert plain.count("vqvae 0.75") >= len(make.ATTACKS)
    assert "…" not in plain


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
