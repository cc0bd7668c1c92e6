"""What a process keeps for its cells."""

import pytest
import torch

from src.data import ImageDataModule
from src.data.idx import write_idx
from src.errors import UserError
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


def test_a_limit_is_refused_where_all_images_are_there_already(tmp_path):
    """They are sorted by class, so that the first of them are no sample."""
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", torch.full((1000, 4, 4), 255, dtype=torch.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", (torch.arange(1000) // 100).byte())
    data = ImageDataModule("tiny", tmp_path, image_shape=(1, 4, 4), val_size=100)
    components = ComponentCache()
    assert components.data_spec(data, "test", None).n == 1000
    with pytest.raises(UserError, match="limit=20 takes images of 1 of 10 classes"):
        components.data_spec(data, "test", 20)
