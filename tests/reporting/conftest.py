"""Fixtures of the reporting room; how they are made is in reporting_factories.py."""

import pytest
import reporting_factories as make

from src.evaluation.grid import Grid


@pytest.fixture
def grid() -> Grid:
    """The default sweep, all computed, without images: 3 attacks × 4 eps × 7 columns."""
    return make.make_grid()


@pytest.fixture
def pictured() -> Grid:
    """A small grid whose cells keep images: 1 attack × 2 eps × 3 columns."""
    columns = {column: make.COLUMNS[column] for column in [("none", None), ("binarize", None), ("vqvae", 0.5)]}
    return make.make_grid(attacks=("fgsm",), budgets=(0.0, 0.3), columns=columns, images=True)
