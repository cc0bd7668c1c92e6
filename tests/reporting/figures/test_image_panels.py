"""What the image figures show, read back from the figures themselves."""

from dataclasses import replace

import reporting_factories as make

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import facets
from src.reporting.figures.charts import Chart
from src.reporting.figures.image_panels import attack_panel, reconstruction_panel


def texts(grid: Grid, eps: float) -> list[str]:
    (facet,) = facets(grid)
    return words(attack_panel(facet, "fgsm", eps))


def words(chart: Chart | None) -> list[str]:
    """The label and the titles of each row."""
    assert chart is not None
    texts = [row["text"] for row in chart["layer"][1]["data"]["values"]]
    return ["\n".join(text) if isinstance(text, list) else text for text in texts]


def test_rows_are_original_attacked_and_each_defense_with_what_they_were_taken_for(pictured: Grid) -> None:
    found = texts(pictured, 0.3)
    assert [text for text in found if "→" not in text] == ["original", "attacked", "binarize", "vqvae 0.5"]
    shown = {row.coordinates.defense: row.cell.examples for row in pictured.where(eps=0.3) if row.cell}
    for i, defense in enumerate(["none", "binarize", "vqvae"], start=1):
        pairs = zip(shown[defense]["labels"], shown[defense]["predictions"], strict=True)
        assert found[7 * i + 1 : 7 * i + 7] == [f"{label} → {predicted}" for label, predicted in pairs][:6]
    assert found[1:7] == ["7 → 7", "2 → 2", "1 → 1", "0 → 0", "4 → 4", "1 → 1"]


def test_without_attack_there_is_no_attacked_row(pictured: Grid) -> None:
    assert [text for text in texts(pictured, 0.0) if "→" not in text] == ["original", "binarize", "vqvae 0.5"]


def test_without_the_undefended_cell_its_predictions_are_the_quoted_ones(pictured: Grid) -> None:
    found = texts(make.without(pictured, defense="none"), 0.3)
    assert found[:7] == ["original", "7", "2", "1", "0", "4", "1"]
    assert found[7:14] == ["attacked", "7 → 3", "2 → 3", "1 → 3", "0 → 3", "4 → 3", "1 → 3"]


def test_an_attack_that_knows_the_defense_has_a_row_for_each(pictured: Grid) -> None:
    own = make.draw_examples(0.2, 0.5, 2)["attacked"]
    rows = []
    for row in pictured:
        cell = row.cell
        if cell and row.coordinates.defense == "vqvae" and row.coordinates.eps:
            cell = replace(cell, examples=cell.examples | {"attacked": own})
        rows.append(replace(row, cell=cell))
    labels = [text for text in texts(Grid(tuple(rows)), 0.3) if "→" not in text]
    assert labels == ["original", "attacked", "binarize", "attack on\nvqvae 0.5", "vqvae 0.5"]


def test_what_an_undefended_classifier_made_of_another_attack_is_not_shown() -> None:
    columns = {("vqvae", 0.5): (0.96, 0.4)}
    grid = make.make_grid(attacks=("fgsm",), budgets=(0.3,), columns=columns, images=True, threat="adaptive")
    labels = [text for text in texts(grid, 0.3) if "→" not in text and not text.isdigit()]
    assert labels == ["original", "attack on\nvqvae 0.5", "vqvae 0.5"]


def test_cells_without_images_have_no_panel(grid: Grid) -> None:
    assert attack_panel(facets(grid)[0], "fgsm", 0.3) is None


def test_reconstructions_show_the_input_wherever_there_was_noise() -> None:
    labels = words(reconstruction_panel(make.make_records((0.0, 0.5))))
    assert labels == ["original", "noise 0\nreconstruction", "noise 0.5\ninput", "noise 0.5\nreconstruction"]
    assert reconstruction_panel(make.make_records(images=False)) is None
