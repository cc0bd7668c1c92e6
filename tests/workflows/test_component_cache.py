"""What a process keeps for its cells."""

import pytest

from src.workflows import component_cache
from src.workflows.component_cache import ComponentCache

COLUMNS = [{"_target_": "torch.nn.Linear", "in_features": size, "out_features": 10} for size in (1, 2, 3)]


@pytest.fixture
def built():
    """``built()``: the columns of a grid in turn, and in turn again."""
    components = ComponentCache()
    return lambda: [components.build(column) for column in COLUMNS]


def test_small_networks_are_built_once(built):
    assert all(one is again for one, again in zip(built(), built(), strict=True))


def test_of_large_ones_the_last_is_kept(built, monkeypatch):
    monkeypatch.setattr(component_cache, "KEPT_PARAMETERS", 20)
    first, again = built(), built()
    assert all(one is not other for one, other in zip(first, again, strict=True))
    components = ComponentCache()
    assert components.build(COLUMNS[2]) is components.build(COLUMNS[2])
