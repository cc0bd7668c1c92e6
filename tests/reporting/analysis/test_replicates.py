"""Several seeds in one report: means, deviations, and what is said of seeds that are missing."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reporting_factories as make
from rich.console import Console

from src.evaluation.grid import COLUMNS, Grid, GridRow
from src.evaluation.statistics import mean_and_deviation
from src.reporting.analysis.facets import Facet, facets
from src.reporting.analysis.labels import column_label
from src.reporting.analysis.replicates import Replicates, average_trade_offs, replicates
from src.reporting.analysis.tradeoff import trade_offs
from src.reporting.document.sections import Section, sections
from src.reporting.document.tables import Entry
from src.reporting.figures.charts import accuracy_figure
from src.reporting.figures.plan import plan
from src.reporting.report import write_report
from src.reporting.terminal import print_grid

PLACES = [(attack, eps, column) for attack in make.ATTACKS for eps in make.BUDGETS for column in make.COLUMNS]


@pytest.fixture
def seeded() -> Grid:
    """The default sweep with seeds 0, 1, 2, all computed."""
    return make.make_replicates()


def over_seeds(grid: Grid) -> Replicates:
    ((found, _),) = replicates(facets(grid))
    assert found is not None
    return found


def summary_of(grid: Grid) -> Section:
    first = sections(grid)[0]
    assert isinstance(first.subject, Replicates)
    return first


def cells_at(grid: Grid, attack: str, eps: float, column: tuple[str, float | None]) -> list[float]:
    found = grid.where(attack=attack, eps=eps, defense=column[0], noise=column[1])
    return [row.cell.accuracy for row in found if row.cell]


def entry_at(grid: Grid, attack: str, eps: float, column: tuple[str, float | None]) -> Entry:
    table = summary_of(grid).tables[make.ATTACKS.index(attack)]
    return table.rows[make.BUDGETS.index(eps)][1][list(make.COLUMNS).index(column)]


@pytest.mark.parametrize("values", [[0.3, 0.9], [98.61, 98.6, 98.64, 97.0], [0.0, 0.0, 0.0], [1e-9, 2e-9, 4e-9]])
def test_mean_and_deviation_are_numpys(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-15)


def test_one_value_has_no_deviation() -> None:
    assert mean_and_deviation([0.7]) == (0.7, None)


def test_every_place_has_the_mean_deviation_and_half_width_of_its_cells(seeded: Grid) -> None:
    over = over_seeds(seeded)
    for attack, eps, column in PLACES:
        accuracies = cells_at(seeded, attack, eps, column)
        rows = seeded.where(attack=attack, eps=eps, defense=column[0], noise=column[1])
        halves = [(row.columns()["ci_high"] - row.columns()["ci_low"]) / 2 for row in rows]
        found = over.accuracy(attack, eps, column)
        assert found is not None
        assert (found.seeds, found.of, len(accuracies)) == (3, 3, 3)
        assert found.mean == pytest.approx(np.mean(accuracies))
        assert found.deviation == pytest.approx(np.std(accuracies, ddof=1))
        assert found.half_width == pytest.approx(np.mean(halves))
        entry = entry_at(seeded, attack, eps, column)
        assert entry.text == f"{100 * np.mean(accuracies):.1f}"
        deviation, binomial = map(float, re.fullmatch(r"±(\S+) \(±(\S+)\)", entry.note).groups())  # type: ignore[union-attr]
        assert deviation == pytest.approx(100 * np.std(accuracies, ddof=1), abs=0.0501)
        assert binomial == pytest.approx(100 * np.mean(halves), abs=0.0501)


def test_what_is_paid_and_won_is_compared_seed_by_seed(seeded: Grid) -> None:
    found = average_trade_offs(over_seeds(seeded))
    by_seed = [trade_offs(facet.grid) for facet in facets(seeded)]
    for i, item in enumerate(found.items):
        gains, prices = ([getattr(each.items[i], name) for each in by_seed] for name in ("gain", "price"))
        assert item.gain is not None and item.price is not None
        assert (item.gain.mean, item.price.mean) == (pytest.approx(np.mean(gains)), pytest.approx(np.mean(prices)))
        assert item.gain.deviation == pytest.approx(np.std(gains, ddof=1))
        assert item.price.deviation == pytest.approx(np.std(prices, ddof=1))
    assert (found.eps, found.attacks) == (0.3, make.ATTACKS)


def test_the_summary_comes_first_and_each_seed_after_it(seeded: Grid) -> None:
    parts = sections(seeded)
    assert [part.title.rpartition(" · ")[2] for part in parts] == [
        *("mean of 3 seeds (0, 1, 2)", "seed 0", "seed 1", "seed 2")
    ]
    assert all(isinstance(part.subject, Facet) for part in parts[1:])
    said = parts[0].sentences[0]
    worst = [min(cells_at(seeded, a, 0.3, ("vqvae", 0.5))[seed] for a in make.ATTACKS) for seed in range(3)]
    assert f"{100 * np.mean(worst):.1f} ±{100 * np.std(worst, ddof=1):.1f} % with vqvae 0.5" in said
    assert "over 3 seeds" in said
    assert "gray-box" in parts[0].sentences[1]


def test_seeds_of_one_classifier_say_that_it_is_one(seeded: Grid) -> None:
    def of_one(row: GridRow) -> GridRow:
        assert row.cell
        return replace(row, cell=replace(row.cell, identity=row.cell.identity | {"classifier": "same"}))

    alike = Grid(tuple(of_one(row) for row in seeded))
    assert any("one and the same classifier" in sentence for sentence in summary_of(alike).sentences)
    assert not any("same classifier" in sentence for sentence in summary_of(seeded).sentences)
    first = Grid(tuple(row if row.coordinates.seed == 0 else replace(row, cell=None) for row in alike))
    assert not any("same classifier" in sentence for sentence in summary_of(first).sentences)  # who knows?


def test_one_seed_has_no_summary(grid: Grid) -> None:
    assert [type(part.subject) for part in sections(grid)] == [Facet]
    assert sections(grid)[0].name == ""


def test_each_threat_has_a_summary_of_its_own_seeds(seeded: Grid) -> None:
    both = Grid(seeded.rows + make.make_replicates(seeds=(0, 1), threat="adaptive").rows)
    names = [part.name for part in sections(both)]
    assert names == [
        *("seed 0 · gray_box and adaptive", "seed 1 · gray_box and adaptive"),
        *("gray_box · mean of 3 seeds", "gray_box · seed 0", "gray_box · seed 1", "gray_box · seed 2"),
        *("adaptive · mean of 2 seeds", "adaptive · seed 0", "adaptive · seed 1"),
    ]
    mixed = Grid(seeded.rows + make.make_grid(threat="adaptive").rows)
    assert [part.name for part in sections(mixed)][5:] == ["adaptive · seed 0"]


def test_a_place_with_fewer_seeds_says_so_and_averages_those_there_are(seeded: Grid) -> None:
    place = ("fgsm", 0.2, ("vqvae", 0.25))
    where = {"attack": "fgsm", "eps": 0.2, "defense": "vqvae", "noise": 0.25}
    two = make.without(seeded, **where, seed=1)
    assert entry_at(two, *place).note.endswith(") 2 of 3 seeds")
    assert entry_at(two, *place).text == f"{100 * np.mean(cells_at(two, *place)):.1f}"
    assert entry_at(two, *place).text != entry_at(seeded, *place).text
    one = make.without(two, **where, seed=0)
    assert re.fullmatch(r"\(±\d\.\d\) 1 of 3 seeds", entry_at(one, *place).note)
    none = make.without(one, **where, seed=2)
    assert entry_at(none, *place) == Entry()
    for holed in (two, one, none):
        assert not entry_at(holed, *place).strong
        assert any(sentence.startswith("At 1 of 84 places") for sentence in summary_of(holed).sentences)
    assert not any("of 84 places" in sentence for sentence in summary_of(seeded).sentences)


def test_a_seed_without_the_largest_eps_is_not_compared_at_a_smaller_one(seeded: Grid) -> None:
    holed = make.without(seeded, eps=0.3, seed=2)
    found = average_trade_offs(over_seeds(holed))
    assert found.eps == 0.3
    assert [(item.attacked.seeds, item.attacked.of) for item in found.items if item.attacked] == [(2, 3)] * 7
    assert [item.clean.seeds for item in found.items if item.clean] == [3] * 7
    assert "% (2 of 3 seeds)" in summary_of(holed).sentences[0]


def test_bold_is_the_highest_mean_and_what_overlaps_it_within_the_deviations() -> None:
    columns: dict[tuple[str, float | None], list[float]] = {
        **{("a", None): [0.80, 0.90, 0.85], ("b", None): [0.81, 0.82, 0.80], ("c", None): [0.70, 0.71, 0.72]},
        ("d", None): [0.99],
    }
    made = [
        make.row(make.cell(make.coordinates(defense=defense, noise=noise, seed=seed), accuracy))
        for (defense, noise), accuracies in columns.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    ((_, entries),) = summary_of(Grid(tuple(made))).tables[0].rows
    assert [entry.strong for entry in entries] == [True, True, False, False]
    assert entries[3].note.endswith("1 of 3 seeds")


def test_the_figure_is_a_line_of_means_with_deviations_as_bars(seeded: Grid) -> None:
    holed = make.without(make.without(seeded, eps=0.2, defense="kmeans", seed=0), eps=0.2, defense="kmeans", seed=1)
    chart = accuracy_figure([over_seeds(holed)], "fgsm")
    for defense, noise in make.COLUMNS:
        rows = [row for row in chart["data"]["values"] if row["label"] == column_label(defense, noise)]
        assert [row["eps"] for row in rows] == list(make.BUDGETS)
        for row in rows:
            values = np.array(cells_at(holed, "fgsm", row["eps"], (defense, noise)))
            assert row["accuracy"] == pytest.approx(values.mean())
            if len(values) > 1:
                ends = values.mean() - values.std(ddof=1), values.mean() + values.std(ddof=1)
                assert (row["low"], row["high"]) == pytest.approx(ends, abs=1e-9)
            else:
                assert (defense, row["eps"], row["low"], row["high"]) == ("kmeans", 0.2, None, None)


@pytest.mark.slow
def test_page_markdown_and_terminal_show_it_and_no_file_is_shared(tmp_path: Path) -> None:
    grid = make.make_replicates(seeds=(0, 1), attacks=("fgsm",), budgets=(0.0, 0.3))
    report = write_report(grid, [], tmp_path)
    names = [path.name for path in report.paths]
    assert len(names) == len(set(names))
    assert {f"accuracy-fgsm-{which}.png" for which in ("seeds", "seed0", "seed1")} <= set(names)
    assert (tmp_path / "grid.csv").read_text() == grid.to_csv()
    assert (tmp_path / "grid.csv").read_text().startswith(",".join(COLUMNS))
    values = cells_at(grid, "fgsm", 0.3, ("vqvae", 0.5))
    shown = f"{100 * np.mean(values):.1f} ±{100 * np.std(values, ddof=1):.1f} (±1.0)"
    text = io.StringIO()
    print_grid(grid, Console(file=text))
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", (tmp_path / "index.html").read_text()))
    for where in ((tmp_path / "grid.md").read_text(), page, text.getvalue()):
        assert shown in where
        assert "mean of 2 seeds" in where
        assert "sample standard deviation from seed to seed" in where
        assert "half the width of its 95 % Wilson interval" in where
    assert report.sentences[0].startswith("mean of 2 seeds: At eps 0.3 fgsm leaves")


def test_a_figure_that_lacks_seeds_says_so(seeded: Grid) -> None:
    captions = {each.name: each.caption for each in plan(sections(make.without(seeded, attack="fgsm", seed=1)), [])}
    assert "some seeds missing" in captions["accuracy-fgsm-seeds.png"]
    assert "some seeds missing" not in captions["accuracy-ifgsm-seeds.png"]


def test_nothing_computed_and_nothing_attacked_are_said(seeded: Grid) -> None:
    assert summary_of(make.without(seeded)).sentences == ("No cell of this grid is computed yet.",)
    clean = summary_of(seeded.where(eps=0.0))
    assert clean.sentences == ("Nothing is attacked in this grid: it holds clean accuracies only.",)
    assert clean.tradeoff is None


def test_seeds_without_a_defense_are_called_so(seeded: Grid) -> None:
    bare = seeded.where(defense="none")
    said = summary_of(bare).sentences[0]
    assert re.fullmatch(
        r"At eps 0\.3 the worst of fgsm, ifgsm and mifgsm leaves [\d.]+ ±[\d.]+ % undefended "
        r"\(mean ± standard deviation over 3 seeds\); this grid has no defense\.",
        said,
    )
    lacking = summary_of(make.without(bare, attack="fgsm")).sentences[0]
    assert "there is no seed with every attack computed" in lacking


def test_the_highest_mean_is_not_claimed_of_one_that_a_shorter_row_of_seeds_outdoes(seeded: Grid) -> None:
    whole = summary_of(seeded).sentences[0]
    (label,) = re.findall(r"% with (vqvae [\d.]+), the highest mean of the trained purifiers", whole)
    lacking = summary_of(make.without(seeded, noise=float(label.removeprefix("vqvae ")), seed=1)).sentences[0]
    assert f"with {label}," not in lacking
    assert "the highest mean of the trained purifiers with the most seeds" in lacking
