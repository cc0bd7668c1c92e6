"""Handwritten characters in other files than MNIST's four: EMNIST, QMNIST and USPS."""

import bz2
import gzip
import io
import string
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from src.data.archives import ArchiveSource
from src.data.idx import decode_idx
from src.data.labelled import Labelled, LabelledSet

#: The splits of EMNIST by name, and the characters that their labels stand for.
_CASELESS = "CIJKLMOPSUVWXYZ"  # whose small letters look alike: one class for both
_MERGED = (*string.digits, *string.ascii_uppercase, *(c for c in string.ascii_lowercase if c.upper() not in _CASELESS))
SPLITS = {
    "balanced": _MERGED,
    "bymerge": _MERGED,
    "byclass": (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase),
    "letters": tuple(string.ascii_lowercase),
    "digits": tuple(string.digits),
    "mnist": tuple(string.digits),
}


@dataclass(frozen=True)
class EmnistSource(ArchiveSource):
    """EMNIST (Cohen et al., arXiv:1702.05373), upright: its files hold every image transposed, and torchvision returns
    them so. The labels of `letters` begin at 0 here, at 1 in the files.

    Attributes:
        split: one of :data:`SPLITS`.
    """

    split: str = "balanced"

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split}")
        if self.of != f"emnist_{self.split}":
            raise ValueError(f"of must be emnist_{self.split}, whose files these are; got {self.of}")

    def decode(self, contents: Mapping[str, bytes]) -> LabelledSet:
        """One split out of the zip file of them all, each of four gzipped IDX files."""
        (content,) = contents.values()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return LabelledSet(self._part(archive, "train"), self._part(archive, "test"), SPLITS[self.split], ())

    def _part(self, archive: zipfile.ZipFile, part: str) -> Labelled:
        names = (f"gzip/emnist-{self.split}-{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        images, labels = (decode_idx(gzip.decompress(archive.read(name)), name) for name in names)
        first = 1 if self.split == "letters" else 0
        if len(images) != len(labels) or int(labels.min()) < first:
            raise ValueError(f"the labels of {self.split}, {part}, do not fit its images")
        return Labelled(images.transpose(1, 2).unsqueeze(1).contiguous(), labels - first)


class QmnistSource(ArchiveSource):
    """QMNIST (Yadav & Bottou, arXiv:1905.10498): MNIST's training digits made anew, and all 60,000 test digits. The
    first 10,000 of these are MNIST's test digits."""

    def decode(self, contents: Mapping[str, bytes]) -> LabelledSet:
        """Images as gzipped IDX files; labels as IDX files of whole numbers (n, 8) whose first column is the class."""
        files = {name: gzip.decompress(content) for name, content in contents.items()}
        parts = {}
        for part in ("train", "test"):
            images = decode_idx(files[f"qmnist-{part}-images-idx3-ubyte.gz"], f"the {part} images")
            labels = _classes(files[f"qmnist-{part}-labels-idx2-int.gz"], len(images))
            parts[part] = Labelled(images.unsqueeze(1), labels)
        return LabelledSet(parts["train"], parts["test"], tuple(string.digits), ())


def _classes(content: bytes, n: int) -> torch.Tensor:
    """The first column of an IDX file of 32-bit whole numbers (n, 8)."""
    header = np.frombuffer(content, ">u4", 3)
    if header.tolist() != [0x0C02, n, 8]:
        raise ValueError(f"the labels are not {n} rows of 8 whole numbers")
    return torch.from_numpy(np.frombuffer(content, ">i4", offset=12).reshape(n, 8)[:, 0].astype(np.uint8))


class UspsSource(ArchiveSource):
    """USPS (Hull 1994): 7,291 training and 2,007 test digits from envelopes, 16 × 16, as LIBSVM distributes them."""

    def decode(self, contents: Mapping[str, bytes]) -> LabelledSet:
        """Text, a line an image: the class from 1 to 10, then `index:value` for 256 pixels from −1 to 1. They become
        uint8 as in torchvision, (value + 1) / 2 · 255 without its fraction."""
        return LabelledSet(
            _read_lines(contents["usps.bz2"]), _read_lines(contents["usps.t.bz2"]), tuple(string.digits), ()
        )


def _read_lines(content: bytes) -> Labelled:
    lines = [line.split() for line in bz2.decompress(content).decode("ascii").splitlines()]
    labels = np.array([int(line[0]) - 1 for line in lines])
    pixels = np.array([[value.partition(":")[2] for value in line[1:]] for line in lines], dtype=np.float32)
    if pixels.shape[1:] != (256,) or not np.isin(labels, range(10)).all() or not (np.abs(pixels) <= 1).all():
        raise ValueError("there are lines that are not a class from 1 to 10 and 256 values from −1 to 1")
    images = ((pixels + 1) / 2 * 255).astype(np.uint8).reshape(-1, 1, 16, 16)
    return Labelled(torch.from_numpy(images), torch.from_numpy(labels.astype(np.uint8)))
