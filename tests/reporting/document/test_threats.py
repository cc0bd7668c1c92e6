"""What a defense keeps when the attacker knows it, beside what it keeps when not."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import facets
from src.reporting.document.board import board_table
from src.reporting.document.key_figures import TITLE_WORDS, short_title
from src.reporting.document.sections import sections
from src.reporting.document.threats import side_by_side, threat_tables
from src.reporting.report import write_report
from src.reporting.terminal import print_grid
from tests.reporting import reporting_factories as make

ATTACKED = {"gray_box": {"none": 0.1, "vqvae": 0.7, "binarize": 0.8}, "adaptive": {"none": 0.1, "vqvae": 0.04}}


def rows(threats=("gray_box", "adaptive"), seeds=(0,)):
    for threat in threats:
        for seed in seeds:
            for defense, noise in (("none", None), ("vqvae", 0.5), ("binarize", None)):
                for eps in (0.0, 0.3):
                    accuracy = 0.98 if not eps else ATTACKED[threat].get(defense)
                    where = make.coordinates("pgd", eps, defense=defense, noise=noise, threat=threat, seed=seed)
                    made = make.row(make.cell(where, accuracy or 0))
                    yield made if accuracy else replace(made, cell=None)


@pytest.fixture
def grid() -> Grid:
    return Grid(tuple(rows()))


def test_a_row_for_each_threat_and_one_without_attack(grid):
    (beside,) = side_by_side(facets(grid))
    (table,) = threat_tables(beside)
    labels = [label for label, _ in table.rows]
    assert labels == ["0", "0.3 gray_box", "0.3 adaptive"]
    shown = {label: [entry.text for entry in entries] for label, entries in table.rows}
    assert shown["0.3 gray_box"] == ["10.0", "70.0", "80.0"]
    assert shown["0.3 adaptive"] == ["10.0", "4.0", "—"]


def test_the_fall_is_said_first(grid):
    parts = sections(grid)
    assert len(parts[0].lines) == 2
    (said,) = parts[0].sentences
    assert "vqvae 0.5 falls from 70.0 to 4.0 %" in said
    assert "binarize" not in said, "it was not tried under both"


def test_one_threat_has_no_side(grid):
    assert side_by_side(facets(grid.where(threat="adaptive"))) == []


def test_seeds_are_not_mixed():
    found = side_by_side(facets(Grid(tuple(rows(seeds=(0, 1))))))
    assert [each.facets[0].seed for each in found] == [0, 1]
    assert len({each.suffix for each in found}) == 2


def test_it_is_in_every_form_of_the_report(grid, tmp_path: Path):
    report = write_report(grid, [], tmp_path)
    assert (tmp_path / "figures" / "accuracy-pgd-threats.png").is_file()
    for name in ("grid.md", "index.html"):
        text = (tmp_path / name).read_text()
        assert "falls from 70.0 to 4.0" in text and "0.3 adaptive" in text
    assert report.sentences[0].startswith("gray_box and adaptive: From gray_box to adaptive")


def test_a_clean_accuracy_stands_there_whichever_threat_has_it(grid):
    without = Grid(
        tuple(row for row in grid if (row.coordinates.threat, row.coordinates.defense) != ("gray_box", "vqvae"))
    )
    (beside,) = side_by_side(facets(without))
    (_, entries), *_ = threat_tables(beside)[0].rows
    assert [entry.text for entry in entries] == ["98.0"] * 3


def test_the_terminal_prints_each_accuracy_once(grid):
    text = io.StringIO()
    print_grid(grid, Console(file=text))
    tables = [line for line in text.getvalue().splitlines() if "pgd," in line]
    assert len(tables) == 1 and tables[0].startswith("gray_box and adaptive")


def test_the_board_ranks_by_the_attacker_who_knows_and_puts_the_untried_last(grid):
    claimed = Grid(tuple(replace(row, claim="70 % (a paper)") if row.coordinates.noise == 0.5 else row for row in grid))
    (beside,) = side_by_side(facets(claimed))
    table = board_table(beside)
    assert table is not None
    labels = [label for label, _ in table.rows]
    assert labels == ["none", "vqvae 0.5", "binarize"], "binarize was not tried under both"
    shown = {
        label: dict(zip(table.columns, (entry.text for entry in entries), strict=True)) for label, entries in table.rows
    }
    assert (shown["vqvae 0.5"]["gray_box"], shown["vqvae 0.5"]["adaptive"]) == ("70.0", "4.0")
    assert shown["vqvae 0.5"]["claimed"] == "70 % (a paper)" and shown["none"]["claimed"] == ""
    assert shown["vqvae 0.5"]["set by"] == claimed.values("attack")[-1]
    assert shown["binarize"]["adaptive"] == shown["binarize"]["set by"] == "—"


def test_there_is_no_board_without_an_attacker_who_knows(grid):
    blind = Grid(tuple(replace(row, informed=False) for row in grid))
    (beside,) = side_by_side(facets(blind))
    assert board_table(beside) is None


def test_a_suite_names_the_member_that_left_least():
    made = [
        make.row(make.cell(make.coordinates("worst", 0.3, threat=threat, defense="vqvae", noise=0.5), 0.4))
        for threat in ("gray_box", "adaptive")
    ]
    members = {"pgd": {"key": "a", "correct": 30, "alone": 0}, "square": {"key": "b", "correct": 20, "alone": 3}}
    rows = [
        replace(row, cell=replace(row.cell, members=members), informed=row.coordinates.threat == "adaptive")
        for row in made
    ]
    (beside,) = side_by_side(facets(Grid(tuple(rows))))
    ((_, entries),) = board_table(beside).rows
    assert "square" in [entry.text for entry in entries]


def test_the_lower_of_two_numbers_ranks_and_one_that_met_only_the_informed_attacker_is_there():
    left = {("masked", "gray_box"): 0.2, ("masked", "adaptive"): 0.6, ("honest", "gray_box"): 0.5}
    left |= {("honest", "adaptive"): 0.4, ("only", "adaptive"): 0.3}
    made = [make.row(make.cell(make.coordinates("pgd", 0.3, threat=t, defense=d), a)) for (d, t), a in left.items()]
    grid = Grid(tuple(replace(row, informed=row.coordinates.threat == "adaptive") for row in made))
    (beside,) = side_by_side(facets(grid))
    table = board_table(beside)
    assert [label for label, _ in table.rows] == ["honest", "only", "masked"]
    at = table.columns.index
    honest, only, masked = (entries for _, entries in table.rows)
    assert masked[at("set by")].text == "pgd (gray_box)", "gradients that hide the way"
    assert honest[at("set by")].text == only[at("set by")].text == "pgd"
    assert (only[at("gray_box")].text, only[at("adaptive")].text) == ("—", "30.0")
    assert honest[at("adaptive")].strong and honest[at("adaptive")].note.startswith("±")


def test_the_attacker_who_knows_comes_last_in_whichever_order_threats_are_asked_for(grid):
    turned = Grid(tuple(sorted(grid, key=lambda row: row.coordinates.threat != "adaptive")))
    assert turned.values("threat") == ["adaptive", "gray_box"]
    assert sections(turned)[0].sentences == sections(grid)[0].sentences
    assert short_title(sections(turned)) == short_title(sections(grid))
    assert short_title(sections(grid)).startswith("adaptive: at eps 0.3 the strongest attack leaves 10.0 %")
    assert len(short_title(sections(grid)).split()) <= TITLE_WORDS
