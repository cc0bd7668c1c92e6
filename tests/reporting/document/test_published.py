"""Our numbers beside the report's."""

from pathlib import Path

import pytest
import reporting_factories as make

from src.reporting.analysis.facets import facets
from src.reporting.document.published import compare, comparison_tables, comparison_words, published

#: Tables 10, 11 and 12 of the report, typed from it: no defense, VQVAE_0, _0.25, _0.5, _0.75.
TABLES = {
    "fgsm": """0 98.39 98.39 97.91 96.39 91.94
        0.001 98.23 98.39 97.99 96.25 92.08
        0.005 96.94 98.34 97.79 96.05 91.45
        0.2 54.20 82.2 82.39 75.84 64.92
        0.3 8.92 26.92 35.49 41.71 38.53""",
    "ifgsm": """0 98.7 98.46 98.03 96.12 92.06
        0.001 98.13 98.43 97.97 96.27 92.18
        0.005 98.01 98.38 97.87 96.25 91.46
        0.2 63.41 86.28 86.87 80.33 69.33
        0.3 18.57 46.84 52.32 52.43 46.44""",
    "mifgsm": """0 98.39 98.37 98.00 96.32 91.92
        0.001 98.39 98.39 97.88 96.5 91.98
        0.005 97.69 98.39 97.95 96.2 91.47
        0.2 82.53 86.20 86.89 80.81 69.05
        0.3 34.02 46.43 53.4 53.43 46.59""",
}
COLUMNS = [("none", None), ("vqvae", 0.0), ("vqvae", 0.25), ("vqvae", 0.5), ("vqvae", 0.75)]


def test_the_file_holds_the_reports_75_numbers() -> None:
    typed = {
        (attack, float(line.split()[0]), column): float(value)
        for attack, table in TABLES.items()
        for line in table.splitlines()
        for column, value in zip(COLUMNS, line.split()[1:], strict=True)
    }
    assert len(typed) == 75
    assert {(each.attack, each.eps, each.column): each.percent for each in published()} == typed
    header = (Path(__file__).parents[3] / "src/reporting/document/published.csv").read_text().splitlines()[0]
    assert header == "attack,eps,defense,noise,accuracy_percent"


def test_every_number_meets_the_cell_at_its_place() -> None:
    rows = []
    for each in published():
        where = make.coordinates(each.attack, each.eps, defense=each.column[0], noise=each.column[1])
        rows.append(make.row(make.cell(where, each.percent / 100 + 0.01 * (each.eps == 0.3) - 0.01)))
    compared = compare(facets(make.Grid(tuple(rows)))[0])
    assert len(compared) == 75
    for each in compared:
        expected = 0.0 if each.published.eps == 0.3 else -1.0
        assert each.difference == pytest.approx(expected, abs=1e-9)
    tables = comparison_tables(compared)
    assert [len(table.rows) * len(table.columns) for table in tables] == [25, 25, 25]
    entry = dict(tables[0].rows)["0.2"][2]
    assert (entry.text, entry.note) == ("81.39", "/ 82.39 / -1.00")
    assert "75 of the report's 75 numbers have a cell here." in comparison_words(compared)


def test_a_missing_cell_leaves_the_reports_number() -> None:
    grid = make.make_grid(attacks=("fgsm",), budgets=(0.3,))
    compared = compare(facets(grid)[0])
    assert sum(each.cell is not None for each in compared) == 5
    entry = dict(comparison_tables(compared)[1].rows)["0.3"][0]
    assert (entry.text, entry.note) == ("—", "/ 18.57 / —")


def test_the_words_name_the_largest_difference() -> None:
    words = comparison_words(compare(facets(make.make_grid())[0]))
    assert words.startswith("45 of the report's 75 numbers have a cell here. They differ by 7.1 points on average:")
    assert "The largest difference is -39.6 points at mifgsm, eps 0.2, none" in words


def test_without_a_cell_there_is_nothing_to_compare() -> None:
    grid = make.without(make.make_grid())
    assert comparison_words(compare(facets(grid)[0])) == "0 of the report's 75 numbers have a cell here."
