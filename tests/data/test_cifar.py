"""CIFAR-10's archive, by a small one of the same layout on a server of this machine."""

import gzip
import hashlib
import io
import os
import pickle
import socket
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.datasets

from src.data.cifar import CifarSource
from src.data.files import ROLES
from src.data.idx import read_idx
from src.errors import UserError
from tests.data.test_wheel import Bomb, Python2Pickler

NAME = "cifar-10-python.tar.gz"
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def batch(seed: int, python2: bool = True, **changes) -> bytes:
    """A pickle of 7 images, as Python 2 wrote CIFAR's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 3072), dtype=np.uint8)
    content = {"batch_label": "a", "labels": [seed, *range(6)], "data": pixels, "filenames": ["x.png"] * 7} | changes
    file = io.BytesIO()
    (Python2Pickler(file, 2) if python2 else pickle.Pickler(file, 2)).dump(content)
    return file.getvalue()


def archive(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def good() -> dict[str, bytes]:
    return {name: batch(number) for number, name in enumerate(BATCHES)}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def source(tmp_path):
    """f(the right archive's bytes, **arguments): the source that takes no other."""

    def make(content: bytes, **arguments) -> CifarSource:
        known = {"of": "cifar10", "dataset": "CIFAR10", "archives": {NAME: md5(content)}, "urls": {}}
        return CifarSource(cache=str(tmp_path / "decoded"), **known | arguments)

    return make


@pytest.fixture
def server(tmp_path):
    """(url, folder) of a web server on this machine."""
    folder = tmp_path / "www"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def brought(root: Path, content: bytes) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / NAME).write_bytes(content)
    return root


def assert_good(found):
    parts = {"train": range(5), "test": [5]}
    for part, seeds in parts.items():
        pixels = np.concatenate([np.random.default_rng(s).integers(0, 256, (7, 3072), dtype=np.uint8) for s in seeds])
        assert read_idx(found[f"{part}_images"].path).equal(torch.from_numpy(pixels).reshape(-1, 3, 32, 32))
        labels = torch.tensor([label for seed in seeds for label in [seed, *range(6)]], dtype=torch.uint8)
        assert read_idx(found[f"{part}_labels"].path).equal(labels)


def test_an_archive_that_was_brought_is_decoded_once_and_root_stays_as_it_is(source, tmp_path):
    content = archive(good())
    root = brought(tmp_path / "mine", content)
    found = source(content)(root)
    assert_good(found)
    assert [path.name for path in root.iterdir()] == ["cifar-10-python.tar.gz"]
    times = [found[role].path.stat().st_mtime_ns for role in ROLES]
    again = source(content)(root)
    assert again == found
    assert [again[role].path.stat().st_mtime_ns for role in ROLES] == times


def test_torchvision_reads_the_same_images_from_the_same_archive(source, tmp_path, monkeypatch):
    content = archive(good() | {"batches.meta": pickle.dumps({"label_names": ["a"]}, 2)})
    found = source(content)(brought(tmp_path / "mine", content))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(tmp_path / "theirs", filter="data")
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs = torchvision.datasets.CIFAR10(tmp_path / "theirs", train=True)
    assert np.array_equal(read_idx(found["train_images"].path).permute(0, 2, 3, 1).numpy(), theirs.data)
    assert read_idx(found["train_labels"].path).tolist() == theirs.targets


def test_what_is_missing_is_fetched_from_torchvisions_address(source, server, tmp_path, monkeypatch):
    content = archive(good())
    (server[1] / NAME).write_bytes(content)
    known = SimpleNamespace(url=f"{server[0]}/{NAME}")
    monkeypatch.setattr(torchvision.datasets, "Small", known, raising=False)
    root = tmp_path / "not" / "there"
    assert_good(source(content, urls=None, dataset="Small")(root))
    assert (root / NAME).read_bytes() == content


def test_without_torchvision_one_line_says_what_would_help(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=f"{NAME} .* pip install torchvision; or put the file .* into data.root$"):
        source(archive(good()), urls=None)(tmp_path / "root")


def test_another_file_at_the_address_is_not_stored(source, server, tmp_path):
    (server[1] / "it.tar.gz").write_bytes(b"<html>please log in</html>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/it.tar.gz"
    with pytest.raises(UserError) as error:
        source(archive(good()), urls={NAME: [closed, f"{server[0]}/it.tar.gz"]})(tmp_path / "root")
    message = str(error.value)
    assert "\n" not in message and closed in message and server[0] in message and "data.root" in message
    assert not list((tmp_path / "root").glob("[!.]*"))


def test_an_archive_of_another_hash_is_not_opened(source, tmp_path):
    root = brought(tmp_path / "mine", archive(good() | {"test_batch": pickle.dumps(Bomb(tmp_path / "boom"))}))
    with pytest.raises(UserError, match="it was not opened"):
        source(archive(good()))(root)
    assert not (tmp_path / "boom").exists()


def test_code_is_refused_even_with_the_right_hash(source, tmp_path):
    content = archive(good() | {"test_batch": pickle.dumps({"data": Bomb(tmp_path / "boom")})})
    with pytest.raises(UserError, match="mkdir"):
        source(content)(brought(tmp_path / "mine", content))
    assert not (tmp_path / "boom").exists()
    assert not list((tmp_path / "decoded").rglob("*ubyte"))


DAMAGE = {
    "no archive": lambda: gzip.compress(b"junk"),
    "a batch less": lambda: archive({name: content for name, content in good().items() if name != "data_batch_3"}),
    "floats": lambda: archive(good() | {"test_batch": batch(5, data=np.zeros((7, 3072)))}),
    "other sizes": lambda: archive(good() | {"test_batch": batch(5, data=np.zeros((7, 784), dtype=np.uint8))}),
    "a label of 10": lambda: archive(good() | {"test_batch": batch(5, labels=[10, *range(6)])}),
    "a label less": lambda: archive(good() | {"test_batch": batch(5, labels=list(range(6)))}),
}


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_anything_else_is_named_in_a_line(source, tmp_path, damaged):
    content = damaged()
    with pytest.raises(UserError, match="cannot be read as cifar10") as error:
        source(content)(brought(tmp_path / "mine", content))
    assert "\n" not in str(error.value)


def test_nothing_is_fetched_into_a_folder_of_other_things(source, server, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cat.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other files"):
        source(archive(good()), urls={NAME: [f"{server[0]}/it.tar.gz"]})(tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["cat.png"]


def test_the_configuration_is_of_the_canonical_archive(from_config, tmp_path):
    data = from_config("cifar10", root=str(tmp_path / "mine"), source={"urls": {}})
    with pytest.raises(UserError, match="c58f30108f718f92721af3b95e74349a"):
        data.prepare_data()
    assert (data.image_shape, data.num_classes) == ((3, 32, 32), 10)
