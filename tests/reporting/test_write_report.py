"""The folder that a report leaves."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import reporting_factories as make
from PIL import Image

from src.errors import UserError
from src.evaluation.grid import COLUMNS, Grid
from src.reporting.figures.image_panels import draw_strips
from src.reporting.markdown import escape
from src.reporting.report import Report, write_report
from src.training_record import TrainingRecord


def write(grid: Grid, folder: Path, records: list[TrainingRecord] | None = None, compare: bool = False) -> Report:
    return write_report(grid, records or [], folder, compare)


def figures(folder: Path) -> set[str]:
    return {path.name for path in (folder / "figures").glob("*.png")}


class Cells(HTMLParser):
    """The text of every table of a page, row by row, and all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_everything_is_written_and_named(pictured: Grid, tmp_path: Path) -> None:
    report = write(pictured, tmp_path, make.make_records((0.0, 0.5)))
    assert report.folder == tmp_path
    assert {path.relative_to(tmp_path).as_posix() for path in report.paths} == {
        *("grid.csv", "grid.md", "index.html", "findings.json", "figures/accuracy-fgsm.png", "figures/heatmap.png"),
        *("figures/tradeoff.png", "figures/panel-eps0.png", "figures/panel-fgsm-eps0.3.png"),
        *("figures/training-loss.png", "figures/reconstructions-vqvae.png"),
    }
    assert all(path.is_file() for path in report.paths)
    assert report.sentences[0].startswith("At eps 0.3")


def test_figures_are_pictures_with_something_in_them(pictured: Grid, tmp_path: Path) -> None:
    report = write(pictured, tmp_path, make.make_records((0.0, 0.5)))
    for path in report.paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                assert min(image.size) > 150
                pixels = np.asarray(image.convert("L"), dtype=float)
            assert pixels.std() > 5, path.name
            assert (pixels < 128).mean() > 0.003, path.name


def test_csv_is_the_grids(grid: Grid, tmp_path: Path) -> None:
    holed = make.without(grid.where(attack="fgsm"), eps=0.1)
    write(holed, tmp_path)
    text = (tmp_path / "grid.csv").read_text()
    assert text == holed.to_csv()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 28
    for written, row in zip(rows, holed, strict=True):
        assert written["accuracy"] == ("" if row.cell is None else f"{row.cell.accuracy:g}")


def test_markdown_shows_every_cell_with_its_interval(grid: Grid, tmp_path: Path) -> None:
    write(make.without(grid, attack="mifgsm", eps=0.2, defense="kmeans"), tmp_path)
    text = (tmp_path / "grid.md").read_text()
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    tables = [lines[i : i + 6] for i in range(0, 18, 6)]
    for attack, table in zip(make.ATTACKS, tables, strict=True):
        assert table[0] == ["eps", "none", "kmeans", "binarize", "vqvae 0", "vqvae 0.25", "vqvae 0.5", "vqvae 0.75"]
        for eps, (label, *entries) in zip(make.BUDGETS, table[2:], strict=True):
            assert float(label) == eps
            for (defense, noise), entry in zip(make.COLUMNS, entries, strict=True):
                if (attack, eps, defense) == ("mifgsm", 0.2, "kmeans"):
                    assert entry == "—"
                    continue
                cell = grid.where(attack=attack, eps=eps, defense=defense, noise=noise).rows[0].cell
                assert cell is not None
                assert re.fullmatch(rf"\*{{0,2}}{100 * cell.accuracy:.1f}\*{{0,2}} ±\d\.\d+", entry)
    assert tables[0][5][3] == "**82.1** ±0.8"
    assert "95 % Wilson interval" in text
    assert "These are gray-box numbers" in text
    assert "binarize, which learns nothing, reaches" in text
    assert "![accuracy-fgsm](figures/accuracy-fgsm.png)" in text


def test_the_page_shows_the_same_and_needs_nothing_else(pictured: Grid, tmp_path: Path) -> None:
    write(make.without(pictured, eps=0.0, defense="binarize"), tmp_path)
    page = (tmp_path / "index.html").read_text()
    found = Cells(page)
    assert ["0.3", "1.2 ±0.2", "82.1 ±0.8", "41.7 ±1.0"] in found.rows
    assert ["0", "98.4 ±0.2", "—", "96.4 ±0.4"] in found.rows
    assert not [a for _, a in found.tags for name in ("src", "href") if (a.get(name) or "").startswith(("http", "/"))]
    assert "At eps 0.3 the strongest attack" in re.sub(r"\s+", " ", page)
    assert "prefers-color-scheme: dark" in page
    assert "2.14.1" in page


def test_names_cannot_smuggle_html_or_leave_the_folder(tmp_path: Path) -> None:
    columns = {("none", None): (0.9, 0.1), ("<script>alert(1)</script>|*x*", 0.5): (0.9, 0.3)}
    grid = make.make_grid(attacks=("../<img src=x>$\\a^$",), budgets=(0.0, 0.3), columns=columns, images=True)
    report = write(grid, tmp_path / "report", make.make_records())
    page = (tmp_path / "report" / "index.html").read_text()
    assert len([tag for tag, _ in Cells(page).tags if tag == "script"]) == 4  # our own
    assert "<img src=x>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    text = (tmp_path / "report" / "grid.md").read_text()
    assert "<script" not in text
    assert (
        len({line.replace("\\|", "").count("|") for line in text.splitlines() if "script" in line and line[0] == "|"})
        == 2
    )
    assert all(path.parent in (report.folder, report.folder / "figures") for path in report.paths)
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


def test_markdown_escapes_what_would_be_markup() -> None:
    assert escape("a|b *c* [d] `e` <f> & _g_ gray_box") == r"a\|b \*c\* \[d\] \`e\` &lt;f&gt; &amp; \_g\_ gray_box"


def test_the_comparison_is_in_markdown_and_page_only_on_request(grid: Grid, tmp_path: Path) -> None:
    fgsm = grid.where(attack="fgsm")
    write(fgsm, tmp_path / "plain")
    write(fgsm, tmp_path / "beside", compare=True)
    for name in ("grid.md", "index.html"):
        assert "the report" not in (tmp_path / "plain" / name).read_text().lower()
        text = re.sub(r"<[^>]+>", "", (tmp_path / "beside" / name).read_text())
        assert "41.70 / 41.71 / -0.01" in text
        assert len(re.findall(r"/ \d+\.\d\d / (?:[+-]?\d+\.\d\d|—)", text)) == 75


def test_nothing_is_drawn_twice(pictured: Grid, tmp_path: Path) -> None:
    def seen() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in (tmp_path / "figures").glob("*.png")}

    write(pictured, tmp_path)
    first = seen()
    write(pictured, tmp_path)
    assert seen() == first
    changed = make.without(pictured, eps=0.3, defense="vqvae")
    write(changed, tmp_path)
    again = {path.name for path, inode in seen().items() if first[path] != inode}
    assert again == {"accuracy-fgsm.png", "heatmap.png", "tradeoff.png", "panel-fgsm-eps0.3.png"}


def test_a_damaged_figure_is_drawn_again(pictured: Grid, tmp_path: Path) -> None:
    write(pictured, tmp_path)
    path = tmp_path / "figures" / "heatmap.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    (tmp_path / "figures" / "panel-eps0.png").unlink()
    write(pictured, tmp_path)
    assert path.read_bytes() == whole
    assert (tmp_path / "figures" / "panel-eps0.png").is_file()


def test_what_a_killed_report_left_half_written_goes(pictured: Grid, tmp_path: Path) -> None:
    write(pictured, tmp_path)
    for name in (".index.html.k1ll3d__.tmp", "figures/.heatmap.png.k1ll3d__.tmp"):
        (tmp_path / name).write_text("half")
    write(pictured, tmp_path)
    assert list(tmp_path.rglob("*.tmp")) == []


def test_figures_of_an_older_grid_go_and_files_of_others_stay(pictured: Grid, tmp_path: Path) -> None:
    write(pictured, tmp_path)
    (tmp_path / "figures" / "mine.png").write_bytes(b"not ours")
    write(pictured.where(eps=0.0), tmp_path)
    assert figures(tmp_path) == {"accuracy-fgsm.png", "heatmap.png", "panel-eps0.png", "mine.png"}


def test_a_manifest_that_names_other_folders_removes_nothing_there(pictured: Grid, tmp_path: Path) -> None:
    (tmp_path / "precious.png").write_bytes(b"mine")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / ".drawn.json").write_text('{"../precious.png": {}}')
    write(pictured, tmp_path)
    assert (tmp_path / "precious.png").read_bytes() == b"mine"


@pytest.mark.parametrize("damaged", ["", "[]", '{"heatmap.png": 3}', "\x00"])
def test_a_damaged_manifest_is_no_obstacle(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / ".drawn.json").write_text(damaged)
    write(make.make_grid(attacks=("fgsm",), budgets=(0.0,), columns={("none", None): (0.9, 0.1)}), tmp_path)
    assert figures(tmp_path) == {"accuracy-fgsm.png", "heatmap.png"}


@pytest.mark.parametrize("grid", [Grid(()), make.without(make.make_grid())], ids=["no rows", "no cells"])
def test_a_grid_without_cells_has_a_page_and_no_figures(grid: Grid, tmp_path: Path) -> None:
    report = write(grid, tmp_path, compare=True)
    assert figures(tmp_path) == set()
    assert len(report.sentences) == 1
    assert report.sentences[0] in (tmp_path / "index.html").read_text()
    assert (tmp_path / "grid.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_each_threat_has_figures_and_tables_of_its_own(pictured: Grid, tmp_path: Path) -> None:
    columns = {("none", None): (0.98, 0.01), ("vqvae", 0.5): (0.96, 0.02)}
    other = make.make_grid(attacks=("fgsm",), budgets=(0.0, 0.3), columns=columns, threat="adaptive")
    report = write(Grid(pictured.rows + other.rows), tmp_path)
    assert {"accuracy-fgsm-gray_box.png", "accuracy-fgsm-adaptive.png", "heatmap-adaptive.png"} <= figures(tmp_path)
    assert {sentence.split(":")[0] for sentence in report.sentences} == {
        *("gray_box and adaptive", "gray_box", "adaptive")
    }


@pytest.mark.slow
def test_a_hundred_noises_are_drawn_at_a_size_one_can_look_at(tmp_path: Path) -> None:
    columns: dict[tuple[str, float | None], tuple[float, float]] = {("none", None): (0.98, 0.01)}
    columns |= {("vqvae", i / 99): (0.98 - i / 2000, 0.2 + i / 500) for i in range(100)}
    write(make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns=columns, images=True), tmp_path)
    for name in figures(tmp_path):
        with Image.open(tmp_path / "figures" / name) as image:
            assert max(image.size) < 2000, name


def test_a_mosaic_holds_the_pixels_it_was_given(tmp_path: Path) -> None:
    from src.reporting.figures.gallery import save
    from src.reporting.figures.image_panels import Strip

    colours = np.zeros((2, 3, 8, 8), np.float32)
    colours[0, 0] = colours[1, 2] = 1.0
    save(draw_strips([Strip("rows", colours, [("1 → 1", True), ("1 → 7", False)])]), tmp_path / "mosaic.png")
    with Image.open(tmp_path / "mosaic.png") as image:
        found = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert {(255, 0, 0), (0, 0, 255)} <= found


def test_a_folder_that_cannot_be_written_is_named(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write(grid, tmp_path / "file" / "report")
