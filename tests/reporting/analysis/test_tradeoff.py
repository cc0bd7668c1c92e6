"""What is paid, what is won, what to take, and how it is said."""

import re
from dataclasses import replace

import pytest
import reporting_factories as make

from src.evaluation.grid import Grid, GridRow
from src.reporting.analysis.facets import facets
from src.reporting.analysis.tradeoff import TradeOffs, trade_offs
from src.reporting.document.key_figures import key_figures
from src.reporting.document.sections import sections
from src.reporting.document.tables import tradeoff_table
from src.reporting.document.words import sentences

REPORT = {
    ("none", None): (0.9839, 0.0892),
    ("vqvae", 0.0): (0.9839, 0.2692),
    ("vqvae", 0.25): (0.9791, 0.3549),
    ("vqvae", 0.5): (0.9639, 0.4171),
    ("vqvae", 0.75): (0.9194, 0.3853),
}


def simple(columns: dict[tuple[str, float | None], tuple[float, float]], n: int = 10_000, **where: object) -> Grid:
    """One attack, clean and at eps 0.3."""
    return make.make_grid(attacks=("fgsm",), budgets=(0.0, 0.3), columns=columns, n=n, **where)


def say(grid: Grid) -> list[str]:
    (facet,) = facets(grid)
    return sentences(facet, trade_offs(facet.grid))


def labels(found: TradeOffs, floor: float) -> str | None:
    choice = found.best_for_floor(floor)
    return choice.item.label if choice else None


def test_price_and_gain_are_points_against_no_defense() -> None:
    found = trade_offs(simple(REPORT))
    items = {item.label: item for item in found.items}
    assert found.eps == 0.3
    assert items["vqvae 0.5"].price == pytest.approx(2.0)
    assert items["vqvae 0.5"].gain == pytest.approx(100 * (0.4171 - 0.0892))
    assert items["none"].price == items["none"].gain == 0


def test_the_worst_attack_counts_for_each_column() -> None:
    found = trade_offs(make.make_grid())
    assert (found.attacks, found.strongest) == (make.ATTACKS, "mifgsm")
    assert found.undefended is not None
    assert found.undefended.fraction == pytest.approx(0.006)
    worst = {item.label: item.attacked for item in found.items}["vqvae 0.5"]
    assert worst is not None
    assert worst.fraction == pytest.approx(0.411)


def test_a_column_that_did_not_meet_every_attack_is_not_judged() -> None:
    grid = make.without(make.make_grid(), attack="mifgsm", eps=0.3, defense="binarize")
    found = trade_offs(grid)
    item = {item.label: item for item in found.items}["binarize"]
    assert (item.attacked, item.gain) == (None, None)
    assert item.price is not None
    assert labels(found, 0.0) == "vqvae 0.5"
    assert "binarize" not in say(grid)[0]


@pytest.mark.parametrize(
    ("floor", "taken"),
    [(0.0, "vqvae 0.5"), (0.9639, "vqvae 0.5"), (0.97, "vqvae 0.25"), (0.98, "vqvae 0"), (0.985, None)],
)
def test_the_best_for_a_floor(floor: float, taken: str | None) -> None:
    assert labels(trade_offs(simple(REPORT)), floor) == taken


def test_a_floor_in_percent_is_met_by_the_same_accuracy() -> None:
    assert labels(trade_offs(simple({("vqvae", 0.5): (0.984, 0.3)})), 98.4 / 100) == "vqvae 0.5"


def test_overlapping_error_bars_are_no_win_the_cheaper_one_is_taken() -> None:
    columns = {("none", None): (0.984, 0.05), ("vqvae", 0.25): (0.98, 0.5232), ("vqvae", 0.5): (0.961, 0.5243)}
    found = trade_offs(simple(columns))
    choice = found.best_for_floor(0.0)
    assert choice is not None
    assert choice.item.noise == 0.25
    assert [item.noise for item in choice.tied] == [0.5]
    assert (
        "vqvae 0.25 (not told apart from vqvae 0.5 by the error bars) brings that to 52.3 %" in say(simple(columns))[0]
    )


def test_a_defense_that_wins_nothing_does_not_hide_those_that_win() -> None:
    columns = {("none", None): (0.98, 0.0), ("bits", None): (0.98, 0.07), ("jpeg", None): (0.97, 0.18)}
    said = say(simple(columns | {("tv", None): (0.95, 0.19)}, n=100))[0]
    assert "jpeg (not told apart from tv by the error bars) brings that to 18.0 %" in said
    assert "no defense raises that" not in said


def test_the_best_of_those_that_win_nothing_is_the_highest_not_the_cleanest() -> None:
    columns = {("none", None): (0.98, 0.05), ("bits", None): (0.98, 0.07), ("jpeg", None): (0.97, 0.12)}
    said = say(simple(columns | {("tv", None): (0.95, 0.12)}, n=100))[0]
    assert "no defense raises that by more than the error bars (the best: jpeg, 12.0 %)" in said


def test_of_equals_the_first_is_taken() -> None:
    columns = {("vqvae", noise): (0.97, 0.5) for noise in (0.5, 0.25)}
    assert labels(trade_offs(simple(columns)), 0.9) == "vqvae 0.5"


def test_the_frontier_has_every_choice_once_with_its_highest_floor() -> None:
    found = trade_offs(simple(REPORT))
    steps = [(floor, choice.item.label) for floor, choice in found.frontier(found.learned)]
    assert steps == [(0.9839, "vqvae 0"), (0.9791, "vqvae 0.25"), (0.9639, "vqvae 0.5")]


def test_the_headline_and_which_noise_to_take() -> None:
    said = say(simple(REPORT))
    assert said[0] == (
        "At eps 0.3 the strongest attack of this grid (fgsm) leaves 8.9 % undefended; "
        "vqvae 0.5 brings that to 41.7 % for 2.0 points of clean accuracy."
    )
    assert "at least 97 % take noise 0.25 (35.5 % at eps 0.3)" in said[-1]
    assert "No noise keeps more than 98.4 %." in said[-1]
    noises = next(sentence for sentence in said if "pays" in sentence)
    assert "noise 0 pays 0.0 (within the error bars) and wins 18.0" in noises
    assert "noise 0.75 pays 6.5 and wins 29.6" in noises


def test_thresholding_that_beats_the_trained_purifiers_is_named_in_the_headline() -> None:
    better = REPORT | {("binarize", None): (0.982, 0.82)}
    assert "but binarize, which learns nothing, reaches 82.0 %" in say(simple(better))[0]
    within_error_bars = REPORT | {("binarize", None): (0.982, 0.42)}
    assert "binarize" not in say(simple(within_error_bars))[0]


def test_a_trained_defense_without_a_noise_is_among_the_trained() -> None:
    grid = simple(REPORT | {("binarize", None): (0.982, 0.82), ("robust", None): (0.985, 0.9)})
    learns = [replace(row, learned=row.learned or row.coordinates.defense == "robust") for row in grid]
    said = say(Grid(tuple(learns)))
    assert "; robust brings that to 90.0 %" in said[0] and "learns nothing" not in said[0]
    assert "What robust pays on clean images and wins at eps 0.3, in points: it pays" in " ".join(said)
    assert "at least 98 % take robust (90.0 % at eps 0.3)" in said[-1]


#: Other names for all that has one; they say nothing of what they name.
RENAMED = {"none": "aa", "binarize": "bb", "vqvae": "cc", "kmeans": "dd", "gray_box": "ee", "adaptive": "ff"}
RENAMED |= {"fgsm": "gg", "ifgsm": "hh", "mifgsm": "ii"}


@pytest.mark.parametrize("threat", ["gray_box", "adaptive"])
def test_what_is_said_does_not_depend_on_what_anything_is_called(threat: str) -> None:
    grid = make.make_grid(threat=threat)

    def renamed(row: GridRow) -> GridRow:
        at = row.coordinates
        others = {name: RENAMED[getattr(at, name)] for name in ("attack", "defense", "threat")}
        return replace(row, coordinates=replace(at, **others))

    expected = [re.sub(r"\w+", lambda word: RENAMED.get(word[0], word[0]), sentence) for sentence in say(grid)]
    warned = [sentence.replace("threat=ff", "threat=adaptive") for sentence in expected]
    assert say(Grid(tuple(map(renamed, grid)))) == warned


def test_gray_box_numbers_are_called_that() -> None:
    assert any("does not" in s or "not the defense" in s for s in say(simple(REPORT)))
    assert any("knows the defense and differentiates" in s for s in say(simple(REPORT, threat="adaptive")))
    assert not any("gray-box" in s for s in say(simple(REPORT, threat="adaptive")))


def test_a_gain_within_the_error_bars_is_not_sold() -> None:
    columns = {("none", None): (0.984, 0.30), ("vqvae", 0.5): (0.97, 0.31)}
    said = say(simple(columns, n=500))
    assert "no trained purifier raises that by more than the error bars" in said[0]
    assert "take no defense" in said[-1]


def test_one_cell_quotes_what_the_grid_has_no_cell_for() -> None:
    lone = make.cell(make.coordinates("ifgsm", 0.3, defense="vqvae", noise=0.25), 0.355, clean=0.979, undefended=0.012)
    grid = Grid((make.row(lone),))
    (item,) = trade_offs(grid).items
    assert item.clean is not None
    assert item.clean.fraction == pytest.approx(0.979)
    assert item.gain == pytest.approx(34.3)
    assert item.price is None
    assert "leaves 1.2 % undefended; vqvae 0.25 brings that to 35.5 %." in say(grid)[0]


def test_what_is_missing_is_said() -> None:
    full = make.make_grid()
    assert say(make.without(full)) == ["No cell of this grid is computed yet."]
    assert say(make.without(full, attack="fgsm", defense="kmeans"))[-1].startswith("4 of the 84 cells asked for are")
    assert not any("missing" in sentence for sentence in say(full))


def test_clean_cells_alone_say_that_nothing_was_attacked() -> None:
    grid = make.make_grid(budgets=(0.0,))
    assert trade_offs(grid).eps is None
    assert say(grid) == ["Nothing is attacked in this grid: it holds clean accuracies only."]


def test_a_grid_without_a_defense_is_called_so() -> None:
    bare = {("none", None): (0.9839, 0.0892)}
    assert say(simple(bare))[0] == (
        "At eps 0.3 the strongest attack of this grid (fgsm) leaves 8.9 % undefended; this grid has no defense."
    )
    missing = make.without(simple(bare | {("kmeans", None): (0.97, 0.2)}), defense="kmeans")
    assert say(missing)[0].endswith("; no defense of this grid was tried against every attack there.")


def test_a_hundred_noises_still_make_sentences_one_can_read() -> None:
    columns = {("vqvae", i / 99): (0.99 - 0.001 * i, 0.2 + 0.003 * i) for i in range(100)}
    assert max(map(len, say(simple(columns)))) < 1500


def test_the_key_figures_are_three_numbers_of_the_hardest_threat() -> None:
    columns = {("none", None): (0.98, 0.02), ("binarize", None): (0.97, 0.8), ("vqvae", 0.5): (0.95, 0.6)}
    blind = make.make_grid(("fgsm", "ifgsm"), (0.0, 0.3), columns)
    columns |= {("vqvae", 0.5): (0.95, 0.1), ("binarize", None): (0.97, 0.7)}
    seeing = make.make_grid(("fgsm", "ifgsm"), (0.0, 0.3), columns, threat="adaptive")
    key = key_figures(sections(blind))
    assert key is not None and "gray-box" in key.warning and len(key.title.split()) <= 20
    assert [figure.label for figure in key.figures] == [
        *("undefended", "best trained: vqvae 0.5", "best untrained: binarize")
    ]
    assert [figure.note for figure in key.figures] == ["ifgsm"] * 3
    assert [figure.text.split()[0] for figure in key.figures] == ["1.7", "59.7", "79.7"]
    both = key_figures(sections(Grid((*blind.rows, *seeing.rows))))
    assert both is not None and [figure.text.split()[0] for figure in both.figures] == ["1.7", "9.7", "69.7"]


def test_of_equal_defenses_title_and_figures_name_the_same() -> None:
    columns = {("none", None): (0.98, 0.3), ("kmeans", None): (0.9, 0.5), ("binarize", None): (0.95, 0.5)}
    key = key_figures(sections(simple(columns)))
    assert key is not None and key.title.endswith("50.0 % behind binarize")
    assert [figure.label for figure in key.figures] == ["undefended", "best untrained: binarize"]


def test_means_over_seeds_and_clean_grids_have_no_key_figures() -> None:
    assert key_figures(sections(make.make_replicates())) is None
    assert key_figures(sections(make.make_grid(("fgsm",), (0.0,)))) is None
    assert key_figures([]) is None


def test_what_is_proved_stands_beside_what_attacks_leave_and_is_no_attack() -> None:
    columns = {("none", None): (0.98, 0.02), ("vqvae", 0.5): (0.95, 0.6)}
    attacked = make.make_grid(("fgsm",), (0.0, 0.3), columns)
    proofs = make.make_grid(("certified",), (0.0, 0.3), {("vqvae", 0.5): (0.95, 0.4)})
    grid = Grid((*attacked.rows, *(replace(row, proof=True) for row in proofs)))
    found = trade_offs(facets(grid)[0].grid)
    assert found.attacks == ("fgsm",)
    assert [item.proved and item.proved.fraction for item in found.items] == [None, pytest.approx(0.4, abs=1e-3)]
    table = tradeoff_table(found)
    assert table is not None and table.columns[:4] == ("clean", "paid", "at eps 0.3", "proved")
    said = " ".join(sentences(facets(grid)[0], found))
    assert "Of vqvae 0.5 40.0 % of the images are proved at eps 0.3" in said
    plain = tradeoff_table(trade_offs(attacked))
    assert plain is not None and "proved" not in plain.columns
