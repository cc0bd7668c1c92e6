"""What the line figures show, read back from the figures themselves."""

import numpy as np
import reporting_factories as make
from matplotlib.colors import to_hex

from src.evaluation.grid import Grid
from src.reporting.analysis.facets import facets
from src.reporting.analysis.labels import percent
from src.reporting.analysis.tradeoff import trade_offs
from src.reporting.figures.colours import column_styles
from src.reporting.figures.curves import accuracy_curves, tradeoff_scatter, training_curves
from src.reporting.figures.heatmap import heat_map


def test_each_defense_is_a_line_with_its_intervals_as_error_bars(grid: Grid) -> None:
    (facet,) = facets(make.without(grid, attack="fgsm", eps=0.2, defense="kmeans"))
    axes = accuracy_curves([facet], "fgsm", "title").axes[0]
    assert len(axes.containers) == len(make.COLUMNS)
    assert axes.get_ylim()[0] <= 0
    assert axes.get_ylim()[1] >= 100
    styles = column_styles(facet.columns, facet.grid.bare)
    for column, container in zip(make.COLUMNS, axes.containers, strict=True):
        line, _, (bars,) = container
        assert to_hex(line.get_color()) == styles[column].colour
        cells = [facet.cell("fgsm", eps, column) for eps in make.BUDGETS]
        expected = [100 * cell.accuracy if cell else np.nan for cell in cells]
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), make.BUDGETS)
        drawn = [segment[:, 1] for segment in bars.get_segments() if len(segment)]
        intervals = [[100 * end for end in cell.interval] for cell in cells if cell]
        np.testing.assert_allclose([ends for ends in drawn if not np.isnan(ends).any()], intervals, atol=1e-9)


def test_the_trade_off_is_a_point_a_column(grid: Grid) -> None:
    (facet,) = facets(grid)
    found = trade_offs(facet.grid)
    axes = tradeoff_scatter(facet, found, "title").axes[0]
    points = [tuple(float(container[0].get_data()[i][0]) for i in (0, 1)) for container in axes.containers]
    expected = [(100 * i.clean.fraction, 100 * i.attacked.fraction) for i in found.items if i.clean and i.attacked]
    np.testing.assert_allclose(points, expected)
    assert len(points) == 7


def test_losses_are_drawn_for_each_model_and_noise() -> None:
    figure = training_curves(make.make_records(), "title")
    classifier, vqvae = figure.axes
    assert (classifier.get_title(loc="left"), vqvae.get_title(loc="left")) == ("classifier", "vqvae")
    legend = vqvae.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["noise 0", "noise 0.25", "noise 0.5", "noise 0.75"]
    raw = vqvae.lines[0]
    assert list(raw.get_ydata()) == [loss for _, loss in make.make_records()[1].losses]
    assert len(vqvae.lines) == 3 * 4  # the losses, their average, the validation losses


def test_the_heat_map_writes_every_accuracy_and_eps_0_once(grid: Grid) -> None:
    (facet,) = facets(make.without(grid, attack="mifgsm", eps=0.3, defense="kmeans"))
    axes = heat_map(facet, "title").axes[0]
    written = [text.get_text() for text in axes.texts]
    rows = [("fgsm", 0.0)] + [(attack, eps) for attack in make.ATTACKS for eps in make.BUDGETS[1:]]
    cells = [facet.cell(attack, eps, column) for attack, eps in rows for column in facet.columns]
    assert written == [percent(cell.accuracy) if cell else "—" for cell in cells]
    assert written.count("—") == 1
