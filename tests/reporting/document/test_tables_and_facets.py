"""The table model, the parts of a grid, and how numbers are written."""

import pytest
import reporting_factories as make

from src.evaluation.grid import Grid
from src.evaluation.spec import number
from src.evaluation.statistics import wilson_interval
from src.reporting.analysis.facets import facets
from src.reporting.analysis.labels import MISSING, half_width, listed, points, slug, spread
from src.reporting.analysis.rates import Rate, leaders
from src.reporting.analysis.tradeoff import trade_offs
from src.reporting.document.tables import accuracy_tables, tradeoff_table
from src.reporting.figures.colours import column_styles, heat


def test_a_table_an_attack_a_row_an_eps_a_column_a_defense(grid: Grid) -> None:
    tables = accuracy_tables(facets(grid)[0])
    assert [table.title for table in tables] == [f"{attack}, 10,000 images" for attack in make.ATTACKS]
    labels = ("none", "kmeans", "binarize", "vqvae 0", "vqvae 0.25", "vqvae 0.5", "vqvae 0.75")
    for table, attack in zip(tables, make.ATTACKS, strict=True):
        assert table.columns == labels
        assert [label for label, _ in table.rows] == ["0", "0.1", "0.2", "0.3"]
        for eps, (_, entries) in zip(make.BUDGETS, table.rows, strict=True):
            for (defense, noise), entry in zip(make.COLUMNS, entries, strict=True):
                cell = grid.where(attack=attack, eps=eps, defense=defense, noise=noise).rows[0].cell
                assert cell is not None
                low, high = wilson_interval(cell.correct, cell.n)
                assert entry.text == f"{100 * cell.accuracy:.1f}"
                assert float(entry.note.strip("±")) == pytest.approx(50 * (high - low), abs=0.0501)
                assert entry.heat == cell.accuracy


def test_a_missing_cell_is_a_dash_at_its_own_place(grid: Grid) -> None:
    holed = make.without(grid, attack="ifgsm", eps=0.2, defense="kmeans")
    table = accuracy_tables(facets(holed)[0])[1]
    texts = [[entry.text for entry in entries] for _, entries in table.rows]
    assert texts[2][1] == MISSING
    assert sum(line.count(MISSING) for line in texts) == 1


def test_bold_are_the_best_and_what_the_error_bars_cannot_tell_from_it(grid: Grid) -> None:
    rows = dict(accuracy_tables(facets(grid)[0])[0].rows)
    assert [entry.strong for entry in rows["0.3"]] == [False, False, True, False, False, False, False]
    assert [entry.strong for entry in rows["0"]] == [True, True, True, True, True, False, False]


def test_intervals_decide_who_leads() -> None:
    best, close, far = Rate(0.9, 0.88, 0.92), Rate(0.87, 0.85, 0.885), Rate(0.8, 0.78, 0.82)
    assert leaders([far, None, close, best]) == [False, False, True, True]
    assert leaders([None, None]) == [False, False]
    assert best.above(far)
    assert not best.above(close)


def test_rates_are_wilsons() -> None:
    cell = make.cell(make.coordinates(), accuracy=0.25, n=200)
    assert (Rate.of(cell).low, Rate.of(cell).high) == cell.interval == wilson_interval(50, 200)
    assert Rate.quoted(0.25, 200) == Rate.of(cell)


def test_a_hundred_noises_are_a_hundred_columns_in_order() -> None:
    noises = [i / 99 for i in range(100)]
    grid = make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns={("vqvae", noise): (0.9, 0.3) for noise in noises})
    (table,) = accuracy_tables(facets(grid)[0])
    assert table.columns == tuple(f"vqvae {number(noise)}" for noise in noises)
    assert len(table.rows[0][1]) == 100


def test_each_threat_protocol_seed_and_data_set_is_a_facet() -> None:
    one = make.make_grid(attacks=("fgsm",), budgets=(0.3,))
    (single,) = facets(one)
    assert (single.name, single.suffix) == ("", "")
    others = [
        make.make_grid(attacks=("fgsm",), budgets=(0.3,), **where) for where in ({"threat": "adaptive"}, {"seed": 1})
    ]
    found = facets(Grid(one.rows + others[0].rows + others[1].rows))
    assert [facet.suffix for facet in found] == ["-gray_box-seed0", "-adaptive-seed0", "-gray_box-seed1"]
    assert [facet.name for facet in found] == ["gray_box · seed 0", "adaptive · seed 0", "gray_box · seed 1"]
    assert [len(facet.grid) for facet in found] == [7, 7, 7]
    assert found[1].title == "mnist · adaptive · default protocol · seed 0"


def test_cells_that_differ_in_a_setting_alone_are_not_lost() -> None:
    where = make.coordinates("ifgsm", 0.3)
    few, many = (make.cell(where, accuracy, attack={"steps": k}) for accuracy, k in ((0.4, 1), (0.1, 10)))
    shared = make.cell(make.coordinates("ifgsm", 0.0), 0.98)
    found = facets(Grid((make.row(shared), make.row(few), make.row(many))))
    assert [facet.settings for facet in found] == ["attack.steps=1", "attack.steps=10"]
    assert [facet.cell("ifgsm", 0.3, ("none", None)) for facet in found] == [few, many]
    assert all(facet.cell("ifgsm", 0.0, ("none", None)) is shared for facet in found)


def test_the_trade_off_table_says_what_is_paid_and_won(grid: Grid) -> None:
    table = tradeoff_table(trade_offs(grid))
    assert table is not None
    rows = {label: [entry.text for entry in entries] for label, entries in table.rows}
    assert rows["vqvae 0.5"] == ["96.4", "+2.0", "41.1", "+40.5", "mifgsm", "0.60"]
    assert rows["none"] == ["98.4", "0.0", "0.6", "0.0", "mifgsm", "0.60"]


def test_numbers_for_the_eye() -> None:
    shown = {
        0.0: "0",
        0.25: "0.25",
        0.2: "0.2",
        8 / 255: "8/255",
        0.0313725490196: "8/255",
        0.1 + 0.5: "0.6",
        1e-5: "1e-05",
    }
    assert {value: number(value) for value in shown} == shown
    assert (points(2.04), points(-0.04), points(-1.26), points(0.004, 2)) == ("+2.0", "0.0", "-1.3", "0.00")
    assert half_width(0.0, 0.0004) == "±0.02"
    assert half_width(0.5, 0.52) == "±1.0"
    assert [listed(list(word)) for word in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_file_names_are_safe_and_never_shared() -> None:
    assert slug("ifgsm") == "ifgsm"
    names = ["a/b", "a-b", "a b", "../a", "<script>"]
    assert len({slug(name) for name in names}) == len(names)
    assert not any(set(slug(name)) & set("/<> ") for name in names)


def test_a_selection_is_even_and_keeps_both_ends() -> None:
    assert spread(list(range(100)), 4) == [0, 33, 66, 99]
    assert spread([1, 2], 4) == [1, 2]


def test_noises_are_shaded_from_light_to_dark_and_columns_differ() -> None:
    styles = column_styles(list(make.COLUMNS), [("none", None)])
    assert len({(style.colour, style.shape) for style in styles.values()}) == len(styles)
    shades = [sum(bytes.fromhex(styles["vqvae", noise].colour[1:])) for noise in (0.0, 0.25, 0.5, 0.75)]
    assert shades == sorted(shades, reverse=True)
    assert heat(0.0)[0] != heat(1.0)[0]
    assert (heat(0.0)[1], heat(1.0)[1]) == ("#000000", "#ffffff")
    for i in range(101):
        lighter, darker = sorted((relative_luminance(colour) for colour in heat(i / 100)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def relative_luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_settings_that_look_alike_once_shortened_keep_files_of_their_own() -> None:
    where = make.coordinates("ifgsm", 0.3)
    cells = [make.cell(where, 0.4, classifier={"weights": "0" * 20 + end}) for end in "ab"]
    first, second = facets(Grid(tuple(map(make.row, cells))))
    assert first.suffix != second.suffix
