"""A network is judged on no validation image that it was trained on."""

from pathlib import Path

import pytest
import torch

from src.data import ImageDataModule
from src.data.idx import write_idx
from src.errors import UserError
from src.models.checkpoint import Provenance
from src.workflows.component_cache import ComponentCache
from src.workflows.trained_on import trained_on


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """200 training images, each with its number in its first two pixels."""
    folder = tmp_path_factory.mktemp("numbered")
    for part, size in (("train", 200), ("t10k", 5)):
        images = torch.zeros(size, 1, 2, dtype=torch.uint8)
        images[:, 0, 0] = torch.arange(size)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", torch.zeros(size, dtype=torch.uint8))
    return folder


def data_of(root: Path, split_seed: int, val_size: int) -> ImageDataModule:
    return ImageDataModule(
        "numbered", root, image_shape=(1, 1, 2), batch_size=200, split_seed=split_seed, val_size=val_size
    )


def numbers(images: torch.Tensor) -> set[int]:
    return set((images[:, 0, 0, 0] * 255).round().int().tolist())


@pytest.mark.parametrize("trained_with", [(0, 100), (0, 60), (1, 100)])
@pytest.mark.parametrize("asked_for", [(0, 100), (0, 60), (1, 100), (1, 130)])
def test_another_split_is_refused_exactly_where_it_has_images_that_were_trained_on(root, trained_with, asked_for):
    trained, asked = data_of(root, *trained_with), data_of(root, *asked_for)
    seen = numbers(next(iter(trained.train_dataloader()))[0])  # all in one batch
    assert len(seen) == 200 - trained_with[1]
    split_seed, val_size = trained_with
    provenance = Provenance(
        "x", "numbered", trained.fingerprint, [1, 1, 2], seed=0, epochs=1, planned_epochs=1,
        split_seed=split_seed, val_size=val_size,
    )  # fmt: skip
    assert trained_on(asked, "test", provenance, Path("x.ckpt"), "train") is provenance
    if seen & numbers(asked.held_out("val")[0]):
        with pytest.raises(UserError, match=rf"x\.ckpt .* data\.split_seed={split_seed} data\.val_size={val_size}"):
            trained_on(asked, "val", provenance, Path("x.ckpt"), "train")
    else:
        assert trained_on(asked, "val", provenance, Path("x.ckpt"), "train") is provenance


def test_splits_and_numbers_of_images_in_one_process_are_not_taken_for_each_other(root):
    components = ComponentCache()
    asked = [(0, "val", None), (1, "val", None), (1, "val", 10), (0, "val", 20), (0, "test", None), (1, "val", None)]
    specs = []
    for split_seed, split, limit in asked:
        data = data_of(root, split_seed, 60)
        spec = components.data_spec(data, split, limit)
        specs.append((spec, data.held_out(split, limit)[0]))
        assert spec.n == len(specs[-1][1])
    for spec, images in specs:
        assert components.images(spec).images.equal(images)
