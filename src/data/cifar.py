"""CIFAR-10 in its canonical form: one archive of Python pickles, verified before anything in it is opened."""

import hashlib
import http.client
import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from src.data.conversion import RECORD, convert, converted
from src.data.files import ROLES, STANDARD
from src.data.idx import write_content
from src.data.labelled import Labelled, LabelledSet
from src.data.origins import download
from src.data.sources import GoodFile, refuse_other_files
from src.data.unpickling import ArraysOnly
from src.errors import UserError, in_a_line
from src.files import locked

_SHAPE = (3, 32, 32)
_FOLDER = "cifar-10-batches-py"
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class CifarSource:
    """CIFAR-10's archive (Krizhevsky 2009), as four verified IDX files: `source(root)` is all there is to call.

    The archive is looked for in `root`, and fetched into it if it is not there. It is decoded once, into IDX files
    below `cache`: images (N, 3, 32, 32) and labels in canonical order. An archive of another MD5 is not opened.

    Attributes:
        cache: where decoded images are kept.
        of: the data set that this is.
        archive: the file's name.
        md5: its MD5, in hex.
        dataset: the class of `torchvision.datasets` whose address is asked.
        urls: addresses to ask instead.
        timeout: as of `src.data.origins.download`.
    """

    cache: str
    of: str = "cifar10"
    archive: str = "cifar-10-python.tar.gz"
    md5: str = "c58f30108f718f92721af3b95e74349a"
    dataset: str = "CIFAR10"
    urls: Sequence[str] | None = None
    timeout: float = 5.0

    def __call__(self, root: Path) -> dict[str, GoodFile]:
        """Say where the four files are, after fetching and decoding the archive if that has not been done.

        Raises:
            UserError: `root` is no folder or holds something else, the archive is not to be had or not the canonical
            one, or there is no room.
        """
        if os.path.lexists(root) and not os.path.isdir(root):
            raise UserError(f"data.root={root} is not a folder; it must be one, or a path to make one at")
        path = root / self.archive
        if not os.path.lexists(path):
            self._fetch(root)
        folder = Path(self.cache).expanduser() / f"{self.of}-{self.md5[:12]}"
        stat = path.stat()
        state = f"{self.md5} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        with locked(folder / RECORD):
            found = converted(folder, state) or convert(self._read(path), folder, state)
        return {role: GoodFile(folder / STANDARD[role].name, found["md5"][role]) for role in ROLES}

    def _fetch(self, root: Path) -> None:
        refuse_other_files(root, self.of)
        try:
            with locked(root / self.archive):
                if not (root / self.archive).exists():
                    write_content(root / self.archive, self._download(root))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{root} cannot be written: {reason}; set data.root to another folder") from error

    def _download(self, root: Path) -> bytes:
        failures = []
        for url in self._addresses():
            try:
                return download(url, self.md5, self.timeout)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or in_a_line(error)}")
        raise UserError(
            f"{root} lacks {self.archive}, and no source delivers: {'; '.join(failures) or 'no address is known'}. "
            f"To bring it by hand, put it (MD5 {self.md5}) into {root}, or set data.root to the folder that holds it"
        )

    def _addresses(self) -> Sequence[str]:
        if self.urls is not None:
            return self.urls
        # Only now: importing torchvision takes a second, which no run that finds its files should pay.
        import torchvision.datasets

        known = getattr(torchvision.datasets, self.dataset, None)
        return [known.url] if known else []

    def _read(self, path: Path) -> LabelledSet:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != self.md5:
            raise UserError(
                f"{path} is not {self.of}'s archive: its MD5 is {found} where {self.md5} is right; it was not opened. "
                "If it is a damaged copy, delete it, and the same command gets it anew"
            )
        return decode_archive(content, str(path))


def decode_archive(content: bytes, name: str) -> LabelledSet:
    """CIFAR-10 from the bytes of its archive.

    Args:
        content: the gzipped tar file with `cifar-10-batches-py/data_batch_1` to `5` and `test_batch`, each a pickle
            of a dict with "data", uint8 (n, 3072), and "labels", n whole numbers from 0 to 9.
        name: what error messages call it.

    Raises:
        UserError: a pickle of more than arrays and plain containers, or anything else that is not as it should be.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            return LabelledSet(_part(archive, _TRAIN), _part(archive, _TEST), _CLASSES, ())
    # A damaged pickle can fail in any way at all.
    except Exception as error:
        raise UserError(f"{name} is no archive of CIFAR-10: {in_a_line(error)}") from error


def _part(archive: tarfile.TarFile, names: Sequence[str]) -> Labelled:
    batches = [_batch(archive, name) for name in names]
    return Labelled(torch.cat([each.images for each in batches]), torch.cat([each.labels for each in batches]))


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
