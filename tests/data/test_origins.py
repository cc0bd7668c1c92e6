import gzip
import hashlib
import logging
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torchvision.datasets

from src.data.files import ROLES
from src.data.origins import Mirrors, TorchvisionMirrors, UnavailableError


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tiny, tmp_path):
    """(url, folder) of a web server on this machine that has the tiny set's .gz files."""
    folder = tiny.write(tmp_path / "www", ".gz")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed():
    """The address of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_mirror_delivers(tiny, server):
    assert dict(Mirrors([server[0] + "/"])(tiny.files)) == tiny.content


def test_the_whole_way_from_a_mirror_to_verified_files(tiny, server, closed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = tiny.source(Mirrors([closed]), Mirrors([server[0]]))(tmp_path / "root")
    assert {role: found[role].path.read_bytes() for role in ROLES} == tiny.content
    (record,) = caplog.records
    assert closed in record.message


def test_each_file_comes_from_the_first_mirror_that_has_a_good_one(tiny, server, closed, tmp_path):
    url, folder = server
    (folder / "old").mkdir()
    name = f"{tiny.files['train_images'].name}.gz"
    (folder / "old" / name).write_bytes(gzip.compress(b"an older edition"))
    assert dict(Mirrors([closed, f"{url}/old", f"{url}/none", url])(tiny.files)) == tiny.content


def test_a_mirror_that_failed_is_not_asked_for_the_other_files(tiny, server):
    url, folder = server
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UnavailableError, match="File not found") as error:
        list(Mirrors([url])(tiny.files))
    assert str(error.value).count(url) == 1


@pytest.mark.parametrize(
    "content",
    [b"<html>please log in</html>", b"", gzip.compress(b"x" * 999)[:-9]],
    ids=["a page", "nothing", "cut short"],  # gzip writes down the time, and all workers must find the same tests
)
def test_what_is_not_the_file_is_refused(tiny, server, content):
    url, folder = server
    (folder / f"{tiny.files['train_images'].name}.gz").write_bytes(content)
    with pytest.raises(UnavailableError, match=url):
        list(Mirrors([url])(tiny.files))


def test_a_wrong_compressed_file_is_not_even_decompressed(tiny, server):
    name = f"{tiny.files['train_images'].name}.gz"
    right = hashlib.md5((server[1] / name).read_bytes()).hexdigest()
    bomb = gzip.compress(b"\0" * 10_000_000)
    (server[1] / name).write_bytes(bomb)
    with pytest.raises(UnavailableError, match=f"{hashlib.md5(bomb).hexdigest()} where {right}"):
        list(Mirrors([server[0]], {name: right})(tiny.files))


def test_a_mirror_that_never_answers_is_left_soon(tiny):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        start = time.monotonic()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            list(Mirrors([f"http://127.0.0.1:{deaf.getsockname()[1]}"], timeout=0.2)(tiny.files))
        assert time.monotonic() - start < 2


def test_name_resolution_counts_towards_the_time_limit(tiny, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(UnavailableError, match="no answer"):
        list(Mirrors(["http://example.invalid"], timeout=0.2)(tiny.files))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("urls", [[], ["no address at all"]])
def test_unusable_settings_are_a_source_that_does_not_deliver(tiny, urls):
    with pytest.raises(UnavailableError):
        list(Mirrors(urls)(tiny.files))


def test_mirrors_and_hashes_are_torchvisions_own(tiny, server, closed, monkeypatch):
    url, folder = server
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in folder.iterdir()]
    known = SimpleNamespace(mirrors=[f"{closed}/", f"{url}/"], resources=resources)
    monkeypatch.setattr(torchvision.datasets, "Tiny", known, raising=False)
    assert dict(TorchvisionMirrors("Tiny")(tiny.files)) == tiny.content
    known.resources = [(name, "0" * 32) for name, _ in resources]
    with pytest.raises(UnavailableError, match="0" * 32):
        list(TorchvisionMirrors("Tiny")(tiny.files))


def test_a_set_unknown_to_torchvision_is_named(tiny):
    with pytest.raises(UnavailableError, match="NoSuchSet"):
        list(TorchvisionMirrors("NoSuchSet")(tiny.files))
