"""Tensors that are costly to make, made once for all cells and processes."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from src.files import get_or_make, write_atomically
from src.models.checkpoint import weights_fingerprint

log = logging.getLogger(__name__)

#: Under this name a file's metadata hold the digest of what is in it.
DIGEST = "digest"

Verify = Callable[[Tensor], Tensor]  #: a tensor as it was read -> the tensor to be used; ValueError if it is no good


class TensorStore:
    """Tensors by content key: the last one in memory, all of them under ``folder`` as ``<key>.safetensors``.

    A file states a digest of its key and its tensor. One that does not fit is not used: bits that flipped, another
    tensor, or a file that was renamed to another key.

    Args:
        folder: made when the first tensor is kept; None keeps nothing on disk.
        name: of the tensor within its file.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder, self.name = folder, name
        self._last: tuple[str, Tensor] | None = None

    def get_or_make(self, key: str, verify: Verify, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of this key, or what ``make`` makes, which is stored. Of several processes that want one tensor,
        one makes it while the others wait.

        A file that is damaged, that does not hold what was stored under this key, or that ``verify`` refuses, is named
        in a warning and made again. Whoever gets the tensor must not write into it: it is handed out again.

        Raises:
            UserError: the folder cannot be written.
        """
        if self._last is not None and self._last[0] == key:
            return self._last[1]

        def made() -> Tensor:
            tensor = make().contiguous()  # in memory as on disk: the order of values may change how sums are rounded
            self._write(key, tensor)
            return tensor

        path = None if self.folder is None else self._path(key)
        tensor = made() if path is None else get_or_make(path, lambda: self._read(key, verify), made)
        self._last = (key, tensor)
        return tensor

    def _read(self, key: str, verify: Verify) -> Tensor | None:
        path = self._path(key)
        if not path.exists():
            return None
        try:
            # Not load_file, which maps the file into memory: a file truncated later would kill the process.
            content = path.read_bytes()
            tensor = load(content)[self.name]
            if _stated_digest(content) != self._digest(key, tensor):
                raise ValueError("it does not hold what was stored under this key")
            return verify(tensor)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("%s is damaged (%s) and will be made again", path, error)
            return None

    def _write(self, key: str, tensor: Tensor) -> None:
        if self.folder is not None:
            # Not save_file, which turns a full disk into an error of its own
            content = save({self.name: tensor.cpu()}, {DIGEST: self._digest(key, tensor)})
            write_atomically(self._path(key), lambda temporary: temporary.write_bytes(content))

    def _digest(self, key: str, tensor: Tensor) -> str:
        """SHA-256 of the key, and of the tensor's name, shape, type and bytes."""
        return weights_fingerprint({f"{key}/{self.name}": tensor})

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def _stated_digest(content: bytes) -> str | None:
    """The digest in the metadata of a safetensors file: 8 bytes for the length of a JSON header, then the header."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(DIGEST)
