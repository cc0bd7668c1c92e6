"""EMNIST, QMNIST and USPS: small files of the same layouts, which torchvision reads as well."""

import bz2
import gzip
import hashlib
import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from src.data.archives import ArchiveSource
from src.data.characters import SPLITS, EmnistSource, QmnistSource, UspsSource
from src.data.idx import encode_idx, read_idx
from src.errors import UserError


def drawn(seed: int, n: int, size: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def zipped(content: bytes) -> bytes:
    return gzip.compress(content)


def emnist(split: str, first: int = 0, n: int = 12) -> dict[str, bytes]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for seed, part in enumerate(("train", "test")):
            images, labels = torch.from_numpy(drawn(seed, n)), torch.arange(n, dtype=torch.uint8) % 10 + first
            archive.writestr(f"gzip/emnist-{split}-{part}-images-idx3-ubyte.gz", zipped(encode_idx(images)))
            archive.writestr(f"gzip/emnist-{split}-{part}-labels-idx1-ubyte.gz", zipped(encode_idx(labels)))
    return {"gzip.zip": file.getvalue()}


def qmnist(columns: int = 8, n: int = 12) -> dict[str, bytes]:
    files = {}
    for seed, part in enumerate(("train", "test")):
        labels = np.random.default_rng(seed).integers(0, 10, (n, columns)).astype(">i4")
        files[f"qmnist-{part}-images-idx3-ubyte.gz"] = zipped(encode_idx(torch.from_numpy(drawn(seed, n))))
        header = struct.pack(">HBB2I", 0, 0x0C, 2, n, columns)
        files[f"qmnist-{part}-labels-idx2-int.gz"] = zipped(header + labels.tobytes())
    return files


def usps(label: int = 1, value: float = 1.0, n: int = 12) -> dict[str, bytes]:
    files = {}
    for seed, name in enumerate(("usps.bz2", "usps.t.bz2")):
        pixels = np.random.default_rng(seed).uniform(-1, 1, (n, 256)).round(4)
        pixels[0, 0] = value
        lines = [
            f"{label if i == 0 else i % 10 + 1} " + " ".join(f"{j + 1}:{v}" for j, v in enumerate(row))
            for i, row in enumerate(pixels)
        ]
        files[name] = bz2.compress(("\n".join(lines) + " \n").encode())
    return files


SETS = {"EMNIST": (EmnistSource, emnist("balanced")), "QMNIST": (QmnistSource, qmnist()), "USPS": (UspsSource, usps())}


def source_of(kind: type[ArchiveSource], files: dict[str, bytes], folder: Path, **more) -> ArchiveSource:
    """The source that takes these files alone, which lie in ``folder / "root"``."""
    (folder / "root").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "root" / name).write_bytes(content)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    name = f"emnist_{more.get('split', 'balanced')}" if kind is EmnistSource else "it"
    return kind(cache=str(folder / "decoded"), of=name, dataset="X", archives=md5, urls={}, **more)


def theirs(name: str, files: dict[str, bytes], folder: Path, train: bool) -> tuple[np.ndarray, list[int]]:
    """What torchvision reads from them."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    if name == "USPS":
        for file, content in files.items():
            (folder / file).write_bytes(content)
        found = torchvision.datasets.USPS(folder, train=train)
        return found.data, found.targets
    if name == "EMNIST":
        with zipfile.ZipFile(io.BytesIO(files["gzip.zip"])) as archive:
            files = {Path(member).name: archive.read(member) for member in archive.namelist()}
    for file, content in files.items():
        (raw / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    if name == "EMNIST":
        found = torchvision.datasets.EMNIST(folder, "balanced", train=train)
        return found.data.numpy().transpose(0, 2, 1), found.targets.tolist()
    found = torchvision.datasets.QMNIST(folder, train=train)
    return found.data.numpy(), found.targets[:, 0].tolist()


@pytest.mark.parametrize("name", SETS)
def test_torchvision_reads_the_same_from_the_same_files(name: str, tmp_path: Path) -> None:
    kind, files = SETS[name]
    found = source_of(kind, files, tmp_path)(tmp_path / "root")
    for part, train in (("train", True), ("test", False)):
        images, labels = theirs(name, files, tmp_path / "theirs", train)
        assert np.array_equal(read_idx(found[f"{part}_images"].path)[:, 0].numpy(), images)
        assert read_idx(found[f"{part}_labels"].path).tolist() == list(labels)


def test_letters_begin_at_zero(tmp_path: Path) -> None:
    found = source_of(EmnistSource, emnist("letters", first=1), tmp_path, split="letters")(tmp_path / "root")
    assert read_idx(found["train_labels"].path).tolist() == [*range(10), 0, 1]
    assert {name: len(characters) for name, characters in SPLITS.items()} == {
        "balanced": 47, "bymerge": 47, "byclass": 62, "letters": 26, "digits": 10, "mnist": 10,
    }  # fmt: skip


def test_two_splits_of_one_archive_are_two_data_sets(from_config) -> None:
    names = [from_config("emnist", source={"urls": {}, "split": split}).name for split in ("balanced", "letters")]
    assert names == ["emnist_balanced", "emnist_letters"]
    with pytest.raises(Exception, match="split must be one of balanced"):
        from_config("emnist", source={"urls": {}, "split": "greek"})
    with pytest.raises(Exception, match="of must be emnist_balanced, whose files these are; got emnist_letters"):
        from_config("emnist", source={"urls": {}, "of": "emnist_letters"})


LISTED = {
    "emnist": lambda known: {known.md5},
    "qmnist": lambda known: {md5 for part in ("train", "test") for _, md5 in known.resources[part]},
    "usps": lambda known: {md5 for *_, md5 in known.split_list.values()},
}


@pytest.mark.parametrize("name", LISTED)
def test_the_configuration_is_of_torchvisions_files(from_config, tmp_path: Path, name: str) -> None:
    data = from_config(name, root=str(tmp_path / "mine"), source={"urls": {}})
    source = data._source
    assert set(source.archives.values()) == LISTED[name](getattr(torchvision.datasets, name.upper()))
    assert all(len(replace(source, urls=None)._addresses(file)) == 1 for file in source.archives)
    with pytest.raises(UserError, match=r"no address is known\. To bring it by hand"):
        data.prepare_data()


DAMAGE = {
    "no zip": (EmnistSource, {"gzip.zip": b"junk"}),
    "another split": (EmnistSource, emnist("digits")),
    "seven columns": (QmnistSource, qmnist(columns=7)),
    "no gzip": (QmnistSource, dict.fromkeys(qmnist(), b"junk")),
    "a class of 11": (UspsSource, usps(label=11)),
    "a value of 2": (UspsSource, usps(value=2.0)),
    "no number": (UspsSource, usps(value=float("nan"))),
}


@pytest.mark.parametrize(("kind", "files"), DAMAGE.values(), ids=DAMAGE)
def test_anything_else_is_named_in_a_line(kind: type[ArchiveSource], files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read as (it|emnist_balanced)") as error:
        source_of(kind, files, tmp_path)(tmp_path / "root")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "decoded").rglob("*ubyte"))


def test_an_archive_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    source = source_of(UspsSource, usps(), tmp_path)
    (tmp_path / "root" / "usps.bz2").unlink()
    (tmp_path / "root" / "usps.bz2").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"cannot read .*usps\.bz2: No such file"):
        source(tmp_path / "root")
