"""A grid without findings must not look like one without checks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from src.evaluation.cell import NO_CLASS
from src.evaluation.sanity_checks import CheckReport, Finding
from src.reporting.document.findings import check_sentences, findings_to_json
from src.reporting.document.key_figures import short_title
from src.reporting.document.sections import all_sentences, comparisons, sections
from src.reporting.report import write_report
from tests.reporting import reporting_factories as make

FOUND = Finding("zero-gradient", make.coordinates("pgd", 0.3, threat="adaptive"), "it is zero <everywhere>")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (CheckReport(judged=4, probed=6, asked=6), "None found by 10 checks of 4 cells, with 6 extra runs of attacks."),
        (CheckReport(judged=4, probed=5, asked=6), "(1 more are missing)"),
        (
            CheckReport(judged=1, idle=("unbroken-at-half", "nothing-to-prove")),
            "None found by 8 of 10 checks of 1 cell, with no extra run of an attack. The grid has no cells for "
            "unbroken-at-half and nothing-to-prove.",
        ),
        (CheckReport((FOUND,), judged=4, probed=6, asked=6), "1 found by 10 checks"),
    ],
)
def test_what_was_checked_is_said(found, said):
    assert said in check_sentences(found)[0]


def test_where_no_attacker_knows_a_defense_there_is_nothing_to_check():
    assert check_sentences(CheckReport()) == []


def test_a_doubtful_number_carries_a_sign_wherever_it_stands(tmp_path: Path):
    columns = {("none", None): (0.98, 0.05), ("vqvae", 0.5): (0.96, 0.41)}
    grid = make.make_grid(("pgd",), (0.0, 0.3), columns)
    doubted = next(row.key for row in grid.where(defense="vqvae", eps=0.3))
    believed, doubting = (
        grid.doubting(CheckReport((FOUND,), judged=2, doubtful=frozenset(keys))) for keys in ((), (doubted,))
    )
    plain, signed = (all_sentences(sections(part))[0] for part in (believed, doubting))
    assert "41.0 %" in plain and signed == plain.replace("41.0 %", "41.0? %")
    assert short_title(sections(doubting)).endswith("5.0 % without a defense, 41.0? % behind vqvae 0.5")
    write_report(doubting, [], tmp_path)
    page, markdown = ((tmp_path / name).read_text() for name in ("index.html", "grid.md"))
    for text in (page, markdown):
        assert "41.0?" in text and "96.0?" not in text and "not to be believed" in text
    assert "36.0?" in markdown and "wins 36.0?" in sections(doubting)[0].sentences[2]  # 41 less the 5 undefended
    assert "not to be believed" not in sections(believed)[0].legend
    assert "?" not in (tmp_path / "grid.csv").read_text()


@pytest.mark.parametrize(
    ("accuracy", "prediction", "doubtful"), [(0.5, 3, True), (0.0, 3, False), (0.0, NO_CLASS, True)]
)
def test_nothing_left_is_doubtful_only_where_answers_are_no_numbers(accuracy, prediction, doubtful):
    made = replace(make.cell(make.coordinates("pgd"), accuracy, n=10), predictions=[prediction] * 10)
    (row,) = make.Grid((make.row(made),)).doubting(CheckReport(doubtful=frozenset([made.key])))
    assert row.cell.doubtful is doubtful


def test_a_doubtful_number_carries_a_sign_beside_the_reports_own():
    grid = make.make_grid(("fgsm",), (0.3,), {("vqvae", 0.5): (0.96, 0.41)})
    for keys, text in (((), "41.00"), ((row.key for row in grid), "41.00?")):
        (comparison,) = comparisons(grid.doubting(CheckReport(doubtful=frozenset(keys))))
        assert text in [entry.text for table in comparison.tables for _, row in table.rows for entry in row]


def test_a_mean_over_seeds_is_doubtful_where_one_of_them_is():
    grid = make.make_replicates(attacks=("pgd",))
    doubted = next(row.key for row in grid.where(defense="vqvae", noise=0.5, eps=0.3, seed=1))
    table = sections(grid.doubting(CheckReport(doubtful=frozenset([doubted]))))[0].tables[0]
    texts = {
        (label, column): entry.text
        for label, row in table.rows
        for column, entry in zip(table.columns, row, strict=True)
    }
    assert [place for place, text in texts.items() if text.endswith("?")] == [("0.3", "vqvae 0.5")]


def test_every_form_of_the_report_has_them_escaped(tmp_path: Path):
    grid = make.make_grid(attacks=("pgd",), budgets=(0.3,), threat="adaptive")
    write_report(grid, [], tmp_path, checks=CheckReport((FOUND,), judged=7))
    page, markdown = ((tmp_path / name).read_text() for name in ("index.html", "grid.md"))
    assert "Reasons for suspicion (1)" in page and "&lt;everywhere&gt;" in page
    assert "- zero-gradient" in markdown and "&lt;everywhere&gt;" in markdown
    (stored,) = json.loads((tmp_path / "findings.json").read_text())
    assert (stored["name"], stored["where"]["threat"]) == ("zero-gradient", "adaptive")
    assert json.loads(findings_to_json(CheckReport())) == []
