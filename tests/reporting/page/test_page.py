"""The page as a reader has it: opened from disk in a real browser."""

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reporting_factories as make

from src.encoded_images import decode_images
from src.evaluation.grid import Grid
from src.reporting.analysis.labels import column_label
from src.reporting.analysis.tradeoff import trade_offs
from src.reporting.document.certified import certified_sections
from src.reporting.document.sections import sections
from src.reporting.figures.colours import RAMPS, on_dark
from src.reporting.page.page import to_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

pytestmark = pytest.mark.slow

SMALL = {
    column: make.COLUMNS[column] for column in [("none", None), ("binarize", None), ("vqvae", 0.25), ("vqvae", 0.5)]
}
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def windows(browser: "Browser") -> "Iterator[Callable[..., BrowserContext]]":
    """``windows(1280)``: where pages of this width are opened, one for all tests."""
    contexts: dict[tuple[Any, ...], BrowserContext] = {}

    def of(width: int, **settings: Any) -> "BrowserContext":
        asked = (width, *sorted(settings.items()))
        if asked not in contexts:
            contexts[asked] = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        return contexts[asked]

    yield of
    for context in contexts.values():
        context.close()


@pytest.fixture
def opened(windows: "Callable[..., BrowserContext]", tmp_path: Path) -> Iterator[Open]:
    """``opened(grid, width=1280)``: the page of a grid, whose script has ended. Nothing may have gone wrong in it."""
    pages, wrong = [], []

    def open_page(grid: Grid, width: int = 1280, records: Any = (), certified: Any = (), **settings: Any) -> "Page":
        parts, files = sections(grid), {"grid.csv": grid.to_csv()}
        written = to_html(grid, parts, [], records, certified=certified_sections(certified), downloads=files)
        (tmp_path / "index.html").write_text(written, encoding="utf-8")
        page = windows(width, **settings).new_page()
        pages.append(page)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda sent: wrong.append(sent.url) if sent.url[:5] not in ("file:", "data:") else None)
        page.goto((tmp_path / "index.html").as_uri())
        if settings.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def chart_rows(page: "Page", name: str) -> list[dict[str, Any]]:
    """What a chart is drawn from, once it is drawn."""
    page.wait_for_function("name => charts.get(name)?.view", arg=name)
    page.wait_for_selector(f'[data-chart="{name}"] svg')
    return page.evaluate("name => charts.get(name).view.getState({data: n => n === 'source_0'}).data.source_0", name)


def drawn_as(page: "Page", name: str, channel: str) -> dict[str, Any]:
    """Of each label of a chart its colour, shape or stroke."""
    chart_rows(page, name)
    script = "([name, channel]) => { const s = charts.get(name).view.scale(channel); return [s.domain(), s.range()]; }"
    return dict(zip(*page.evaluate(script, [name, channel]), strict=True))


def visible_table(page: "Page", section: str) -> list[list[str]]:
    rows = page.locator(f"#{section} .scroll table:visible").first.locator("tr")
    return [[entry.inner_text().replace("\n", " ") for entry in row.locator("th, td").all()] for row in rows.all()]


def choose(page: "Page", value: str) -> None:
    page.locator(f'.switches input[value="{value}"]').check(force=True)


def label(row: dict[str, str]) -> str:
    return f"{row['defense']} {row['noise']}".strip()


def crossed() -> Grid:
    """Two threats, two protocols, two seeds; one combination of them is not asked for."""
    rows = []
    for threat, protocol, seed in [("gray_box", "default", 0), ("adaptive", "default", 0), ("gray_box", "default", 1),
                                   ("adaptive", "default", 1), ("gray_box", "report", 0)]:  # fmt: skip
        lower = 0.3 * (threat == "adaptive") + 0.05 * (protocol == "report") + 0.01 * seed
        columns = {column: (clean, max(worst - lower, 0)) for column, (clean, worst) in SMALL.items()}
        attacks = ("fgsm", "pgd") if threat == "adaptive" else ("fgsm",)
        rows += make.make_grid(attacks, (0.0, 0.3), columns, threat=threat, protocol=protocol, seed=seed).rows
    return Grid(tuple(rows))


@pytest.mark.parametrize("width", [1280, 360])
def test_every_section_opens_within_the_page(opened: Open, width: int) -> None:
    page = opened(make.make_grid(images=True), width, make.make_records())
    for chart in ("accuracy", "tradeoff", "training"):
        assert chart_rows(page, chart)
        box = page.locator(f'[data-chart="{chart}"] svg').first.bounding_box()
        assert box and box["width"] > 150 and box["x"] + box["width"] <= width
    for section in ("grid", "tradeoff", "images", "classes", "training", "cost", "settings"):
        assert page.locator(f"#{section}").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_number_of_charts_and_tables_is_that_of_the_csv(opened: Open) -> None:
    grid = make.without(make.make_grid(), attack="ifgsm", eps=0.2, defense="kmeans")
    page = opened(grid)
    rows = list(csv.DictReader(io.StringIO(grid.to_csv())))
    for attack in make.ATTACKS:
        choose(page, attack)
        asked = [row for row in rows if row["attack"] == attack]
        computed = {(label(row), float(row["eps"])): row for row in asked if row["accuracy"]}
        points = [point for point in chart_rows(page, "accuracy") if point["accuracy"] is not None]
        drawn = {(point["label"], point["eps"]): point for point in points}
        assert drawn.keys() == computed.keys()
        for place, point in drawn.items():
            for ours, theirs in (("accuracy", "accuracy"), ("low", "ci_low"), ("high", "ci_high")):
                assert point[ours] == pytest.approx(float(computed[place][theirs]), rel=1e-5)
        head, *body = visible_table(page, "grid")
        shown = {
            (name, float(eps)): entry for eps, *entries in body for name, entry in zip(head[1:], entries, strict=True)
        }
        assert shown.keys() == {(label(row), float(row["eps"])) for row in asked}
        for place, entry in shown.items():
            accuracy = computed[place]["accuracy"] if place in computed else ""
            assert entry.split()[0] == (f"{100 * float(accuracy):.1f}" if accuracy else "—")


def test_switches_lead_to_every_part_of_the_grid(opened: Open) -> None:
    page = opened(crossed())
    assert not page.locator('.switches input[name="data"]').count()  # there is one data set
    choose(page, "0")
    for threat, protocol, lost in (
        ("gray_box", "default", 0.0),
        ("adaptive", "default", 0.3),
        ("gray_box", "report", 0.05),
    ):
        choose(page, protocol)
        choose(page, threat)
        points = {(p["label"], p["eps"]): p["accuracy"] for p in chart_rows(page, "accuracy")}
        assert points["binarize", 0.3] == pytest.approx(0.821 - lost, abs=1e-3)
        assert page.locator("#grid [data-part]:visible").count() == 1
        expected = f"mnist · {threat} · {protocol} protocol · seed 0"
        assert page.locator("#grid [data-part]:visible h3").first.inner_text() == expected
    choose(page, "adaptive")  # not asked for with the report's protocol: the nearest part is shown
    assert page.locator('.switches input[value="default"]').is_checked()
    choose(page, "pgd")
    assert visible_table(page, "grid")[2][1:] == ["0.0 ±0.02", "51.8 ±1.0", "5.2 ±0.4", "11.4 ±0.6"]
    choose(page, "1")
    assert page.locator('.switches input[value="pgd"]').is_checked()
    choose(page, "gray_box and adaptive")
    assert page.locator(".lead").inner_text().startswith("From gray_box to adaptive, at eps 0.3")
    choose(page, "fgsm")
    assert {row["threat"] for row in chart_rows(page, "accuracy")} == {"gray_box", "adaptive"}
    assert drawn_as(page, "accuracy", "strokeDash")["adaptive"] == [7, 4]
    assert page.locator('[data-chart="accuracy"] p').inner_text() == "Solid: gray_box. Dashed: adaptive."


def test_the_floor_names_the_column_to_take(opened: Open) -> None:
    grid = make.make_grid()
    page, found = opened(grid), trade_offs(grid)
    noises = [item for item in found.items if not item.defended or item.learned]
    slider = page.locator("input[name=floor]")
    for floor in (0.93, 0.97, 0.98, 0.983):
        slider.evaluate("(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", floor)
        said = page.locator("[data-chosen] p").inner_text()
        best, noise = found.best_for_floor(floor), found.best_for_floor(floor, noises)
        assert best and noise
        assert f"Of the trained: {noise.item.label}," in said and f"Of all columns: {best.item.label}," in said
    slider.evaluate("slider => { slider.value = 0.999; slider.dispatchEvent(new Event('input')); }")
    slider.focus()
    page.keyboard.press("End")
    assert "No column" in page.locator("[data-chosen] p").inner_text()


def pixels_of(figure: "Locator") -> np.ndarray:
    """The red of a picture in the image browser, (H, W)."""
    script = """c => {
      const copy = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0);
    }"""
    return np.array(figure.locator("canvas").evaluate(script)).reshape(28, 28)


def outcome_of(page: "Page", name: str) -> "Locator":
    """What is said of one defense in the image browser."""
    return page.locator(f'.outcome[data-cell="{name}"]')


def test_the_browser_shows_the_stored_images_step_by_step(opened: Open) -> None:
    grid = make.make_grid(attacks=("fgsm",), budgets=(0.0, 0.1, 0.3), columns=SMALL, images=True)
    page = opened(grid)
    eps = page.locator("input[name=eps]")
    assert page.locator("input[name=eps] + output").inner_text() == "0.3"
    page.locator(".thumbs button").nth(3).click()
    for budget, key in ((0.3, None), (0.1, "ArrowLeft"), (0.0, "ArrowLeft")):
        if key:
            eps.focus()
            page.keyboard.press(key)
        rows = grid.where(eps=budget).rows
        assert page.locator(".browser .outcome").count() == len(rows)
        for stage in ("original", "attacked") if budget else ("original",):
            kept = {str(row.cell.examples[stage]) for row in rows if row.cell}
            assert page.locator(f'.browser figure[data-stage="{stage}"]').count() == len(kept) == 1
        for row in rows:
            assert row.cell
            shown, name = row.cell.examples, column_label(row.coordinates.defense, row.coordinates.noise)
            places = {
                stage: page.locator(f'.browser figure[data-stage="{stage}"]') for stage in ("original", "attacked")
            }
            places["purified"] = page.locator(".browser figure").filter(has=outcome_of(page, name))
            for stage, place in places.items() if budget else [("original", places["original"])]:
                stored = np.round(255 * decode_images(shown[stage])[3, 0])
                assert np.array_equal(pixels_of(place), stored), (budget, stage)
            said = outcome_of(page, name).inner_text()
            right = shown["predictions"][3] == shown["labels"][3]
            assert said.replace("\N{NO-BREAK SPACE}", " ").split() == [
                *name.split(),
                "✓" if right else "✗",
                str(shown["predictions"][3]),
                "at",
                "90.0",
                "%",
            ]


def test_a_confidence_that_is_not_finite_is_not_shown_as_0(opened: Open) -> None:
    row = make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns={("none", None): (0.98, 0.01)}, images=True).rows[0]
    assert row.cell
    unsure = replace(row.cell, examples=row.cell.examples | {"confidences": [None] * 10})
    page = opened(Grid((replace(row, cell=unsure),)))
    assert "%" not in outcome_of(page, "none").inner_text()
    assert outcome_of(page, "none").locator("meter").count() == 0


def test_classes_add_up_to_the_cell(opened: Open) -> None:
    page = opened(make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns=SMALL))
    rows = page.locator(".classes tbody tr").all()
    assert [row.locator("th").inner_text() for row in rows] == ["none", "binarize", "vqvae 0.25", "vqvae 0.5"]
    for row, (_, accuracy) in zip(rows, SMALL.values(), strict=True):
        counts = [
            list(map(int, re.findall(r"\d+", str(entry.get_attribute("title"))))) for entry in row.locator("td").all()
        ]
        assert [sum(each) for each in zip(*counts, strict=True)] == [round(10_000 * accuracy), 10_000]


def test_a_defense_can_be_taken_out_of_charts_and_images(opened: Open) -> None:
    page = opened(make.make_grid(columns=SMALL, images=True))
    chip = page.get_by_role("button", name="binarize")
    chip.focus()
    page.keyboard.press("Space")
    assert chip.get_attribute("aria-pressed") == "false"
    assert {row["label"] for row in chart_rows(page, "accuracy")} == {"none", "vqvae 0.25", "vqvae 0.5"}
    assert page.locator(".browser .outcome").count() == 3


def test_names_cannot_smuggle_markup_or_script(opened: Open) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    columns = {("none", None): (0.9, 0.1), (evil, 0.5): (0.9, 0.3)}
    page = opened(make.make_grid((evil, "fgsm"), (0.0, 0.3), columns, images=True), records=[
        make.make_record("vqvae", 0.5, images=True), make.make_record(evil, 0.5, images=True)])  # fmt: skip
    assert page.locator("img").count() == 0
    choose(page, "fgsm")
    assert {row["label"] for row in chart_rows(page, "accuracy")} == {"none", f"{evil} 0.5"}


@pytest.mark.parametrize(
    "grid",
    [
        Grid(()),
        make.without(make.make_grid()),
        make.make_grid(attacks=("fgsm",), budgets=(0.0,)),
        make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns={("vqvae", 0.5): (0.9, 0.4)}),
        make.make_replicates(attacks=("fgsm",), budgets=(0.0, 0.3)),
    ],
    ids=["no rows", "no cells", "clean only", "one cell", "three seeds"],
)
def test_what_there_is_is_shown(opened: Open, grid: Grid) -> None:
    page = opened(grid)
    assert 0 < len(page.locator("h1").inner_text().split()) <= 20
    assert page.locator("svg").count() == 0 or chart_rows(page, "accuracy")


def test_a_hundred_noises_and_six_hundred_cells_fit(opened: Open, tmp_path: Path) -> None:
    columns: dict[tuple[str, float | None], tuple[float, float]] = {("none", None): (0.98, 0.01)}
    columns |= {("vqvae", i / 99): (0.98 - i / 2000, 0.2 + i / 500) for i in range(100)}
    page = opened(make.make_grid(("fgsm", "pgd"), (0.1, 0.2, 0.3), columns, images=True))
    assert (tmp_path / "index.html").stat().st_size < 5_000_000
    assert page.locator(".chips.controls button").count() == 101
    assert len({row["label"] for row in chart_rows(page, "accuracy")}) == 12
    assert len(visible_table(page, "grid")[0]) == 102
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_certified_curves_hold_back_to_the_radius_before(opened: Open) -> None:
    found = make.certified(0.1, 0.2, 0.4, 0.4, wrong=1), make.certified(0.2, wrong=1, denoiser=None)
    page = opened(make.make_grid(columns=SMALL), certified=found)
    rows = [row for row in chart_rows(page, "certified-0") if row["label"] == "σ 0.5 · vqvae 0.5"]
    # The radii follow from whole votes, so they are a little more than those asked for.
    assert {(round(row["radius"], 3), row["accuracy"]) for row in rows} == {
        (0, 0.8),
        (0.1, 0.8),
        (0.2, 0.6),
        (0.4, 0.4),
        (0.4, 0),
    }
    named = page.locator('[data-legend="certified-0"] li').all_inner_texts()
    assert named == ["σ 0.5 · vqvae 0.5", "σ 0.5 · none", "σ 0.5 · published"]


def test_without_script_every_number_stays(opened: Open) -> None:
    page = opened(make.make_grid(), java_script_enabled=False)
    assert page.locator("#grid table:visible").count() == 3
    assert page.locator(".switches:visible, .chips:visible, [data-chart]:visible").count() == 0
    assert "need JavaScript" in page.locator("noscript").inner_text()


def test_the_dark_page_has_light_lines(opened: Open) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = opened(make.make_grid(columns=SMALL), color_scheme=scheme)
        colours[scheme] = drawn_as(page, "accuracy", "color")
    assert colours["light"]["none"] == "#222222"
    for name, colour in colours["dark"].items():
        assert int(colour[1:3], 16) + int(colour[3:5], 16) + int(colour[5:], 16) > 330, name


@pytest.mark.parametrize("clean", [(0.5, 0.99), (0.95, 0.99), (0.981, 0.984)])
def test_ticks_of_the_trade_off_are_told_apart(opened: Open, clean: tuple[float, float]) -> None:
    columns = {("none", None): (clean[1], 0.0), ("binarize", None): (clean[0], 0.8)}
    page = opened(make.make_grid(columns=columns))
    chart_rows(page, "tradeoff")
    axes = page.locator('[data-chart="tradeoff"] .role-axis-label').all()
    assert len(axes) == 2
    for axis in axes:
        shown = axis.locator("text").all_text_contents()
        assert len(set(shown)) == len(shown) >= 2, shown


def test_the_chart_opens_on_the_attack_of_the_headline_and_the_images_name_it(opened: Open) -> None:
    grid = make.make_grid(columns=SMALL, images=True)
    page = opened(grid)
    assert "the strongest attack of this grid (mifgsm)" in page.locator(".lead").inner_text()
    assert page.locator('.switches input[value="mifgsm"]').is_checked()
    assert page.locator("[data-scene]").inner_text().startswith("Attacked by mifgsm at eps 0.3")
    kinds = {meter.get_attribute("class") for meter in page.locator(".browser meter").all()}
    assert kinds == {"right", "wrong"} or page.locator(".verdict.wrong").count() == page.locator("meter.wrong").count()


def test_the_warning_stands_beside_three_numbers_and_names_stand_at_the_ends_of_lines_apart(opened: Open) -> None:
    alike = {("vqvae", i / 8): (0.97, 0.5 + i / 1000) for i in range(9)}
    page = opened(make.make_grid(("fgsm",), (0.0, 0.3), SMALL | alike), width=1280)
    boxes = [page.locator(each).bounding_box() for each in (".figures", ".warning", ".lead")]
    assert page.locator(".figures div > dt").count() == 3
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] and boxes[1]["y"] < boxes[2]["y"]
    chart_rows(page, "accuracy")
    names = page.locator('[data-chart="accuracy"] .mark-text.role-mark text')
    labels = {each: box for each in names.all() if (box := each.bounding_box())}
    shown = page.locator(".chips.controls button[aria-pressed=true]").all_inner_texts()
    assert sorted(each.text_content() or "" for each in labels) == sorted(shown)
    tops = sorted(box["y"] for box in labels.values())
    assert all(lower - upper > 11 for upper, lower in itertools.pairwise(tops))
    chart = page.locator('[data-chart="accuracy"]').bounding_box()
    assert all(box["x"] + box["width"] <= chart["x"] + chart["width"] for box in labels.values())


def test_attacked_images_that_differ_stand_beside_what_is_made_of_each(
    opened: Open,
) -> None:
    grid = make.make_grid(("fgsm",), (0.3,), SMALL, images=True)
    other = make.make_grid(("pgd",), (0.3,), SMALL, images=True).rows[-1].cell
    assert other
    last = grid.rows[-1]
    assert last.cell
    moved = {**last.cell.examples, "attacked": other.examples["purified"]}
    rows = [*grid.rows[:-1], replace(last, cell=replace(last.cell, examples=moved))]
    page = opened(Grid(tuple(rows)))
    assert page.locator(".browser .scene").count() == 2
    assert page.locator('.browser figure[data-stage="original"]').count() == 1
    assert page.locator('.browser figure[data-stage="attacked"]').count() == 2


def test_shades_of_one_family_are_told_apart_on_the_dark_page_too() -> None:
    for ramp in RAMPS:
        dark = [[int(on_dark(colour)[i : i + 2], 16) for i in (1, 3, 5)] for colour in ramp]
        for one, other in itertools.pairwise(dark):
            assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 60


def test_settings_are_written_as_people_type_them_and_no_strip_stands_twice(opened: Open) -> None:
    seeded = [replace(row, cell=replace(row.cell, identity=row.cell.identity | {"seed": 0.0, "k": [20.0, 0.5]}))
              for row in make.make_grid(("fgsm",), (0.0,), SMALL) if row.cell]  # fmt: skip
    page = opened(Grid(tuple(seeded)), records=make.make_records((0.0, 0.5)))
    assert "seed: 0" in page.locator("#settings").inner_text() and "0.0" not in page.locator("#settings").inner_text()
    assert "[20, 0.5]" in page.locator("#settings").inner_text()
    for run, strips in (("vqvae 0 · mnist", 2), ("vqvae 0.5 · mnist", 3)):
        page.locator("select[name=run]").select_option(label=run)
        assert page.locator(".strips canvas").count() == strips


def test_the_table_can_be_saved_from_the_page(opened: Open) -> None:
    grid = make.make_grid(columns=SMALL)
    page = opened(grid)
    with page.expect_download() as download:
        page.get_by_role("link", name="grid.csv").click()
    assert Path(download.value.path()).read_text() == grid.to_csv()


def test_paper_shows_what_was_chosen_and_not_what_was_not(opened: Open) -> None:
    page = opened(make.make_grid(columns=SMALL, images=True))
    choose(page, "ifgsm")
    page.get_by_role("button", name="vqvae 0.25").click()
    page.emulate_media(media="print")
    assert page.locator(".switches .option:visible").all_inner_texts() == ["ifgsm"]
    assert page.locator(".chips.controls button:visible").all_inner_texts() == ["none", "binarize", "vqvae 0.5"]
    assert page.locator("nav:visible, input[type=range]:visible").count() == 0
    assert page.locator(".browser .outcome:visible").count() == 3


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"width": 360}], ids=str)
def test_axe_finds_nothing_that_keeps_people_out(opened: Open, settings: dict[str, Any]) -> None:
    """axe-core's rules, of WCAG and of good practice (https://github.com/dequelabs/axe-core)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    grid = Grid((*crossed().rows, *make.make_grid(("fgsm",), (0.3,), SMALL, seed=2, images=True).rows))
    page = opened(grid, records=make.make_records(), certified=[make.certified(0.1, 0.2, wrong=1)], **settings)
    chart_rows(page, "accuracy")
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert {each["id"]: [node["target"] for node in each["nodes"]] for each in found} == {}
