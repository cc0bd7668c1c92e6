"""Real MNIST, and a tiny set of the same form whose files tests may break."""

import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.data import ImageDataModule
from src.data.files import STANDARD, IdxFile
from src.data.idx import encode_idx
from src.data.sources import IdxSource

REPO = Path(__file__).parents[2]


def _from_config(name: str, **changes: object) -> ImageDataModule:
    config = OmegaConf.create({"seed": 0, "paths": {"data": str(REPO / "outputs" / "data")}})
    config.data = OmegaConf.merge(OmegaConf.load(REPO / "conf" / "data" / f"{name}.yaml"), changes)
    return instantiate(config.data, _convert_="all")


@pytest.fixture(scope="session")
def from_config() -> Callable[..., ImageDataModule]:
    """f(name, **changes): the data module that conf/data/<name>.yaml describes, as entry points build it."""
    return _from_config


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """A root with real MNIST in it: the repository's own, fetched on the first run."""
    data = _from_config("mnist")
    data.prepare_data()
    return data.root


class Tiny(NamedTuple):
    """60 training and 20 test images, (1, 28, 28), of 10 classes."""

    tensors: dict[str, torch.Tensor]
    content: dict[str, bytes]
    files: dict[str, IdxFile]

    def source(self, *origins: object) -> IdxSource:
        return IdxSource(**self.files, folder="Tiny/raw", origins=origins)

    def origin(self, wanted: Mapping[str, IdxFile]) -> Iterator[tuple[str, bytes]]:
        for role in wanted:
            yield role, self.content[role]

    def write(self, folder: Path, ending: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for role, content in self.content.items():
            packed = gzip.compress(content) if ending else content
            (folder / f"{self.files[role].name}{ending}").write_bytes(packed)
        return folder


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for part, size in (("train", 60), ("test", 20)):
        images = torch.randint(0, 256, (size, 28, 28), dtype=torch.uint8, generator=generator)
        tensors |= {f"{part}_images": images, f"{part}_labels": torch.arange(size).remainder(10).byte()}
    content = {role: encode_idx(values) for role, values in tensors.items()}
    files = {
        role: IdxFile(STANDARD[role].name, hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
        for role, data in content.items()
    }
    return Tiny(tensors, content, files)
