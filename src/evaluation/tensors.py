"""Tensors that are costly to make, made once for all cells and processes."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from src.files import get_or_make, write_bytes
from src.models.checkpoint import weights_fingerprint

log = logging.getLogger(__name__)

#: Under this name a file's metadata hold the digest of what is in it.
DIGEST = "digest"

Tensors = Mapping[str, Tensor]  #: by name
#: tensors as they were read -> the tensors to be used; ValueError if they are no good, KeyError if one is not there
Verify = Callable[[Tensors], Tensors]


class TensorStore:
    """Named tensors by content key: the last ones in memory, all of them under ``folder`` as ``<key>.safetensors``.

    A file states a digest of its key and its tensors. One that does not fit is not used: bits that flipped, other
    tensors, or a file that was renamed to another key.

    Args:
        folder: made when the first tensors are kept; None keeps nothing on disk.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._last: tuple[str, Tensors] | None = None

    def get_or_make(self, key: str, verify: Verify, make: Callable[[], Tensors]) -> Tensors:
        """The tensors of this key, or what ``make`` makes, which is stored. Of several processes that want them, one
        makes them while the others wait.

        A file that is damaged, that does not hold what was stored under this key, or that ``verify`` refuses, is named
        in a warning and made again. Whoever gets the tensors must not write into them: they are handed out again.

        Raises:
            UserError: the folder cannot be written.
        """
        if self._last is not None and self._last[0] == key:
            return self._last[1]

        def make_stored() -> Tensors:
            # In memory as on disk: the order of values may change how sums are rounded
            tensors = {name: tensor.contiguous() for name, tensor in make().items()}
            self._write(key, tensors)
            return tensors

        path = None if self.folder is None else self._path(key)
        tensors = make_stored() if path is None else get_or_make(path, lambda: self._read(key, verify), make_stored)
        self._last = (key, tensors)
        return tensors

    def _read(self, key: str, verify: Verify) -> Tensors | None:
        path = self._path(key)
        if not path.exists():
            return None
        try:
            # Not load_file, which maps the file into memory: a file truncated later would kill the process.
            content = path.read_bytes()
            tensors = load(content)
            if _stated_digest(content) != _digest(key, tensors):
                raise ValueError("it does not hold what was stored under this key")
            return verify(tensors)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("%s is damaged (%s) and will be made again", path, error)
            return None

    def _write(self, key: str, tensors: Tensors) -> None:
        if self.folder is not None:
            # Not save_file, which turns a full disk into an error of its own
            content = save({name: tensor.cpu() for name, tensor in tensors.items()}, {DIGEST: _digest(key, tensors)})
            write_bytes(self._path(key), content)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def _digest(key: str, tensors: Tensors) -> str:
    """SHA-256 of the key, and of the tensors' names, shapes, types and bytes."""
    return weights_fingerprint({f"{key}/{name}": tensor for name, tensor in tensors.items()})


def _stated_digest(content: bytes) -> str | None:
    """The digest in the metadata of a safetensors file: 8 bytes for the length of a JSON header, then the header."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(DIGEST)
