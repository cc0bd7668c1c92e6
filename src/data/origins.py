"""Where files come from when they are not on disk. An origin is a callable.

    origin({role: IdxFile, ...}) -> iterator of (role, the uncompressed file's bytes)

that raises `UnavailableError` when it cannot deliver. `IdxSource` checks whatever it brings.
"""

import gzip
import http.client
import threading
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from src.data.files import IdxFile, md5_of
from src.data.progress import progress_bar
from src.errors import UserError

Origin = Callable[[Mapping[str, IdxFile]], Iterator[tuple[str, bytes]]]

_CHUNK = 1 << 16


class UnavailableError(Exception):
    """An origin cannot deliver; the message says which one and why, on one line."""


def download(url: str, md5: str | None, timeout: float) -> bytes:
    """The bytes at ``url``, with a progress bar.

    Args:
        md5: what their MD5 must be, in hex; None: anything.
        timeout: seconds to wait for a connection, and then for each piece of the answer.

    Raises:
        OSError, http.client.HTTPException: they cannot be fetched.
        ValueError: their MD5 is another, or ``url`` is no address.
    """
    with _open(url, timeout) as response:
        length = response.headers.get("Content-Length")
        pieces = []
        with progress_bar(url.rsplit("/", 1)[-1], int(length) if length else None) as advance:
            while piece := response.read(_CHUNK):
                pieces.append(piece)
                advance(len(piece))
    content = b"".join(pieces)
    if md5 and (digest := md5_of(content)) != md5:
        raise ValueError(f"{url} has MD5 {digest} where {md5} is right")
    return content


class Mirrors:
    """Web folders that hold `<file name>.gz`, tried in order until one delivers."""

    def __init__(self, urls: Sequence[str], gz_md5: Mapping[str, str] | None = None, timeout: float = 5.0) -> None:
        """
        Args:
            urls: the folders, tried in this order.
            gz_md5: MD5s of the compressed files by name (with `.gz`), where known: checked before anything is
                decompressed.
            timeout: seconds to wait for a connection, and then for each piece of the answer. Short, because a
                machine without a way out should soon be told so and go on to the next origin.
        """
        self.urls = [url.rstrip("/") for url in urls]
        self.gz_md5 = dict(gz_md5 or {})
        self.timeout = timeout

    def __call__(self, wanted: Mapping[str, IdxFile]) -> Iterator[tuple[str, bytes]]:
        """Yield each wanted role and its file's bytes. Raises UnavailableError when no mirror has a good one."""
        failures: dict[str, str] = {}
        for role, file in wanted.items():
            yield role, self._first(file, failures)

    def _first(self, file: IdxFile, failures: dict[str, str]) -> bytes:
        """The file from the first mirror that has it; one that failed before is not asked again."""
        for url in self.urls:
            if url in failures:
                continue
            try:
                content = gzip.decompress(
                    download(f"{url}/{file.name}.gz", self.gz_md5.get(f"{file.name}.gz"), self.timeout)
                )
                file.check(content)
                return content
            # ValueError: urllib on an address that is none.
            except (OSError, http.client.HTTPException, EOFError, zlib.error, ValueError, UserError) as error:
                failures[url] = str(getattr(error, "reason", None) or error) or type(error).__name__
        tried = "; ".join(f"{url}: {reason}" for url, reason in failures.items())
        raise UnavailableError(tried or "no mirrors are named")


class TorchvisionMirrors(Mirrors):
    """The mirrors, and the compressed files' MD5s, that torchvision's data set class of this name knows."""

    def __init__(self, dataset: str, timeout: float = 5.0) -> None:
        """
        Args:
            dataset: a class in `torchvision.datasets` with `mirrors` and `resources`, such as "MNIST".
            timeout: as for `Mirrors`.
        """
        super().__init__((), timeout=timeout)
        self.dataset = dataset

    def __call__(self, wanted: Mapping[str, IdxFile]) -> Iterator[tuple[str, bytes]]:
        """As `Mirrors`. Raises UnavailableError also when torchvision is not there or knows no such set."""
        try:
            # Only now: importing torchvision takes a second, which no run that finds its files should pay.
            import torchvision.datasets

            dataset: Any = getattr(torchvision.datasets, self.dataset)
            self.urls = [url.rstrip("/") for url in dataset.mirrors]
            self.gz_md5 = dict(dataset.resources)
        except (ImportError, AttributeError) as error:
            raise UnavailableError(f"torchvision.datasets.{self.dataset}: {error}") from error
        return super().__call__(wanted)


def _open(url: str, timeout: float) -> Any:
    """`urlopen` with a deadline on the whole connection.

    urllib's own timeout counts anew for each of a host's addresses, and does not cover name resolution:
    behind a firewall that drops packets, "5 seconds" can come to a minute. So it runs in a thread that may be
    abandoned.
    """
    outcome: list[Any] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=timeout))
        except BaseException as error:  # handed over to the waiting thread, whatever it is
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no answer within {timeout:g} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
