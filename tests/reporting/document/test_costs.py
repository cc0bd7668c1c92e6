"""What a grid cost in time."""

import reporting_factories as make

from src.reporting.analysis.facets import facets
from src.reporting.document.costs import cost_table


def test_times_are_medians_an_image_and_sums_over_cells():
    columns = {column: make.COLUMNS[column] for column in [("none", None), ("vqvae", 0.5)]}
    (facet,) = facets(make.make_grid(("fgsm", "pgd"), (0.1, 0.3), columns, n=1000))
    table = cost_table(facet)
    assert table is not None
    assert table.columns[:3] == ("purify, ms an image", "classify, ms an image", "attack, propagations an image")
    # Each of a column's four cells takes 3 s for the attack, 0.6 ms an image to purify and 1 s to classify.
    for (label, entries), expected in zip(table.rows, ("none", "vqvae 0.5"), strict=True):
        assert label == expected
        assert [entry.text for entry in entries] == ["0.60", "1.00", "20", "12.0", "2.4", "4.0"]


def test_without_cells_there_is_no_table():
    (facet,) = facets(make.without(make.make_grid(attacks=("fgsm",), budgets=(0.3,))))
    assert cost_table(facet) is None
