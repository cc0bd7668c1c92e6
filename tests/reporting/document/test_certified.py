"""Certified accuracy in tables, figures, words and W&B."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reporting_factories as make
from PIL import Image
from reporting_factories import certified
from rich.console import Console
from scipy.stats import bootstrap

from src.evaluation.certificates import CertificateFile
from src.evaluation.grid import Grid, GridRow
from src.reporting.analysis.certified import CertifiedSet, load_certified, of_grid
from src.reporting.document.certified import certified_sections, table_radii
from src.reporting.document.tables import Table
from src.reporting.report import write_certified, write_report
from src.reporting.terminal import print_certified

FIVE = certified(0.1, 0.25, 0.6, 1.3, wrong=1)
BARE = certified(0.2, wrong=3, abstained=1, denoiser=None)


def rows_of(table: Table) -> dict[str, list[str]]:
    return {label: [entry.text for entry in entries] for label, entries in table.rows}


def grid_on(fingerprint: str, classifier: str | None = None, **split: object) -> Grid:
    """A cell computed on data of this fingerprint, with another classifier if one is named."""
    where = make.coordinates(eps=0.0)
    other = {"classifier": classifier} if classifier else {}
    cell = make.cell(where, data={"name": "mnist", "fingerprint": fingerprint, "n": 100.0, **split}, **other)
    return Grid((GridRow(where, cell.key, cell),))


# ---------------------------------------------------------------- numbers


def test_certified_accuracy_counts_correct_images_whose_radius_reaches():
    expected = {0.0: 4, 0.1: 4, 0.11: 3, 0.25: 3, 0.5: 2, 0.9: 1, 1.3: 1, 1.31: 0}
    for radius, count in expected.items():
        assert FIVE.at(radius).fraction == count / 5
        assert FIVE.at(radius).low <= count / 5 <= FIVE.at(radius).high
        by_image = sum(image.holds_at(radius) for image in FIVE.images)
        assert by_image == count
    assert FIVE.average_radius == pytest.approx((0.1 + 0.25 + 0.6 + 1.3) / 5, abs=1e-3)
    low, high = bootstrap(([0.1, 0.25, 0.6, 1.3, 0.0] * 40,), np.mean, rng=0).confidence_interval
    many = certified(*[0.1, 0.25, 0.6, 1.3] * 40, wrong=40)
    assert many.average_radius_error == pytest.approx((high - low) / 2, rel=0.05)
    assert np.isnan(certified(0.5).average_radius_error)
    assert (FIVE.abstained, BARE.abstained) == (0, 1)
    assert FIVE.limit == pytest.approx(1.906, abs=1e-3)  # σ Φ⁻¹(0.001^(1/100000))


def test_the_curve_falls_and_passes_through_the_accuracies():
    many = certified(*np.random.default_rng(0).uniform(0, 1.9, 1000), wrong=50)
    curve = many.curve()
    assert curve[0] == (0.0, many.at(0))
    assert curve[-1][0] == many.largest
    assert len(curve) <= 300
    accuracies = [rate.fraction for _, rate in curve]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(rate == many.at(radius) for radius, rate in curve)


@pytest.mark.parametrize(("largest", "step", "count"), [(0.0, 0.25, 1), (0.61, 0.25, 3), (1.9, 0.25, 8), (3.8, 0.5, 8)])
def test_the_radii_of_a_table(largest, step, count):
    assert table_radii(largest) == [i * step for i in range(count)]


# ---------------------------------------------------------------- tables and words


def test_the_table_has_ours_by_sigma_and_the_published_ones_after_them():
    sets = [BARE, certified(0.2, 0.3, sigma=0.25), FIVE]
    (part,) = certified_sections(sorted(sets, key=lambda each: each.certification.sigma))
    assert part.tables[0].columns == ("0", "0.25", "0.5", "0.75", "1", "1.25", "ACR", "abstained", "images")
    rows = rows_of(part.tables[0])
    assert rows["σ 0.5 · vqvae 0.5"] == ["80.0", "60.0", "40.0", "20.0", "20.0", "20.0", "0.450", "0.0 %", "5"]
    notes = {label: entries[6].note for label, entries in part.tables[0].rows}
    assert notes["σ 0.5 · vqvae 0.5"] == f"±{FIVE.average_radius_error:.3f}" and notes["σ 0.5 · none"].startswith("±")
    assert rows["σ 0.5 · none"][:2] == ["20.0", "0.0"]
    assert rows["σ 0.5 · none"][-3:] == ["0.040", "20.0 %", "5"]
    published = rows["σ 0.5 · published, classifier trained under the noise"]
    assert published == ["99.2", "98.3", "96.9", "94.3", "89.8", "82.0", "1.558", "0.2 %", "10,000"]
    assert [label.split(" · ")[0] for label in rows] == ["σ 0.25"] * 2 + ["σ 0.5"] * 3
    beyond = [text for label, texts in rows.items() if "σ 0.25" in label for text in texts[4:6]]
    assert beyond == ["—"] * 4  # 0.95 is the largest radius of σ 0.25 and n = 100,000


def test_published_numbers_stand_beside_mnist_alone():
    (part,) = certified_sections([certified(0.3, data="fashion_mnist")])
    assert list(rows_of(part.tables[0])) == ["σ 0.5 · vqvae 0.5"]
    assert part.subject.published == ()


def test_what_differs_besides_sigma_and_denoiser_is_named():
    (part,) = certified_sections([certified(0.3), certified(0.2, n=1000), certified(0.2, sigma=0.25)])
    assert [each.label for each in part.subject.sets] == [
        "σ 0.5 · vqvae 0.5 · n 100,000",
        "σ 0.5 · vqvae 0.5 · n 1,000",
        "σ 0.25 · vqvae 0.25",
    ]


def test_certificates_of_another_precision_are_told_apart():
    exact = certified(0.3)
    identity = {**exact.certification.identity, "precision": "bfloat16"}
    (part,) = certified_sections([exact, replace(exact, certification=replace(exact.certification, identity=identity))])
    assert [each.variant for each in part.subject.sets] == ["precision float32", "precision bfloat16"]


@pytest.mark.parametrize("alphas", [(0.001, 0.05), (0.05, 0.001)])
def test_no_radius_exceeds_what_is_called_the_largest_possible(alphas):
    sets = [certified(1.0, n=1000, alpha=alpha) for alpha in alphas]
    limits = sorted(each.limit for each in sets)
    assert limits[1] > limits[0] + 0.1
    (part,) = certified_sections(sets)
    assert f"no radius could exceed {limits[1]:.2f} (σ 0.5, n 1,000)." in " ".join(part.sentences)


def test_the_words_say_what_is_guaranteed_and_what_is_not():
    (part,) = certified_sections([FIVE, BARE])
    said = " ".join(part.sentences)
    assert "80.0 % at radius 0 and 40.0 % at 0.5 with vqvae 0.5" in said
    assert "20.0 % at radius 0 and 0.0 % at 0.5 without a denoiser" in said
    assert "confidence of 99.9 %" in said
    assert "could exceed 1.91 (σ 0.5, n 100,000)" in said
    assert "not about the defended classifier" in said


def test_a_classifier_that_is_never_right_has_a_table_and_a_curve(tmp_path):
    never = certified(wrong=2, abstained=3)
    (part,) = certified_sections([never])
    assert rows_of(part.tables[0])["σ 0.5 · vqvae 0.5"] == ["0.0", "0.000", "60.0 %", "5"]
    assert all(path.is_file() for path in write_certified([never], tmp_path).paths)


def test_the_terminal_has_every_number_in_a_pipe():
    console = Console(file=io.StringIO(), force_terminal=False)
    print_certified([FIVE, BARE], console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    (part,) = certified_sections([FIVE, BARE])
    for label, entries in part.tables[0].rows:
        (line,) = (line for line in said.splitlines() if line.startswith(f"{label}  "))
        assert line.split() == " ".join([label, *(f"{e.text} {e.note}" for e in entries)]).split()


# ---------------------------------------------------------------- files


def store(folder: Path, each: CertifiedSet) -> CertificateFile:
    file = CertificateFile(folder, each.certification)
    for image in each.images:
        file.add(image)
    return file


def test_all_certificates_are_loaded_and_damaged_ones_named(tmp_path, caplog):
    assert load_certified(tmp_path / "nothing") == []
    for each in (BARE, FIVE, certified(0.1, sigma=0.25)):
        store(tmp_path, each)
    found = load_certified(tmp_path)
    assert [each.label for each in found] == ["σ 0.25 · vqvae 0.25", "σ 0.5 · vqvae 0.5", "σ 0.5 · none"]
    assert found[1].images == tuple(replace(image) for image in FIVE.images)
    store(tmp_path, FIVE).description.write_text("{}")
    assert [each.label for each in load_certified(tmp_path)] == ["σ 0.25 · vqvae 0.25", "σ 0.5 · none"]
    assert "is damaged" in caplog.text


def test_only_certificates_of_the_grids_classifier_on_its_data_are_in_its_report(tmp_path):
    assert of_grid([FIVE, BARE], grid_on("f00d")) == [FIVE, BARE]
    assert of_grid([FIVE, BARE], grid_on("beef")) == []
    assert of_grid([FIVE, BARE], grid_on("f00d", classifier="a" * 64)) == []
    assert of_grid([FIVE, BARE], grid_on("f00d", split="val", split_seed=0.0)) == []
    assert of_grid([FIVE], make.make_grid(attacks=("fgsm",), budgets=(0.0,))) == []


def test_the_report_has_them_in_markdown_page_and_figures(tmp_path):
    report = write_report(grid_on("f00d"), [], tmp_path, certified=[FIVE, BARE])
    figure = tmp_path / "figures" / "certified.png"
    assert figure in report.paths
    with Image.open(figure) as image:
        assert np.asarray(image.convert("L"), dtype=float).std() > 5
    text, page = (tmp_path / "grid.md").read_text(), (tmp_path / "index.html").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("| σ 0.5 · vqvae 0.5 "))
    assert [part.split()[0] for part in line.split("|")[2:5]] == ["80.0", "60.0", "40.0"]
    assert "![certified](figures/certified.png)" in text
    assert '<a href="#certified-1">' in page and '<section id="certified-1">' in page
    assert "σ 0.5 · published, classifier trained under the noise</th>" in page
    assert 'data-chart="certified-0"' in page


def test_a_report_without_certificates_says_nothing_of_them(tmp_path):
    write_report(grid_on("f00d"), [], tmp_path, certified=[FIVE])
    report = write_report(grid_on("f00d"), [], tmp_path)
    assert not (tmp_path / "figures" / "certified.png").exists()
    for path in report.paths:
        if path.suffix != ".png":
            text = path.read_text()
            assert "ertified" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
            assert '"certified":[]' in text or path.suffix != ".html"


def test_alone_they_leave_a_folder_as_it_is_but_for_their_own_files(tmp_path):
    write_report(grid_on("beef"), [], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    report = write_certified([FIVE, certified(0.2, data="fashion_mnist")], tmp_path)
    now = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert before.items() <= now.items()
    assert {path.relative_to(tmp_path).as_posix() for path in now.keys() - before.keys()} == {
        *("certified.md", "figures/certified-mnist.png", "figures/certified-fashion_mnist.png"),
    }
    assert set(report.paths) == now.keys() - before.keys()
