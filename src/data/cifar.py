"""CIFAR-10 in its canonical form: one archive of Python pickles."""

import io
import tarfile
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from src.data.archives import ArchiveSource
from src.data.labelled import Labelled, LabelledSet
from src.data.unpickling import ArraysOnly

_SHAPE = (3, 32, 32)
_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CifarSource(ArchiveSource):
    """CIFAR-10's archive (Krizhevsky 2009): images (N, 3, 32, 32)."""

    def decode(self, contents: Mapping[str, bytes]) -> LabelledSet:
        """CIFAR-10 from the bytes of its archive: a gzipped tar file with `cifar-10-batches-py/data_batch_1` to `5` and
        `test_batch`, each a pickle of a dict with "data", uint8 (n, 3072), and "labels", n whole numbers from 0 to 9. A
        pickle of more than arrays and plain containers is refused."""
        (content,) = contents.values()
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            return LabelledSet(_part(archive, _TRAIN), _part(archive, _TEST), _CLASSES, ())


def _part(archive: tarfile.TarFile, names: Sequence[str]) -> Labelled:
    batches = [_batch(archive, name) for name in names]
    return Labelled(torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches]))


def _batch(archive: tarfile.TarFile, name: str) -> Labelled:
    file = archive.extractfile(f"{_FOLDER}/{name}")
    if file is None:
        raise ValueError(f"{name} is no file")
    batch = ArraysOnly(file, encoding="latin1").load()
    pixels, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != int(np.prod(_SHAPE)):
        raise ValueError(f"{name} holds {pixels.dtype} {pixels.shape}, not uint8 (n, 3072)")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind != "i" or not set(labels.tolist()) <= set(range(10)):
        raise ValueError(f"the labels in {name} are not {len(pixels)} numbers from 0 to 9")
    return Labelled(torch.from_numpy(pixels.reshape(-1, *_SHAPE).copy()), torch.from_numpy(labels.astype(np.uint8)))
