"""Tensors that are costly to make, made once for all cells and processes."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from src.files import locked, write_atomically

log = logging.getLogger(__name__)

Verify = Callable[[Tensor], Tensor]  #: a tensor as it was read -> the tensor to be used; ValueError if it is no good


class TensorStore:
    """Tensors by content key: the last one in memory, all of them under ``folder`` as ``<key>.safetensors``.

    Args:
        folder: made when the first tensor is kept; None keeps nothing on disk.
        name: of the tensor within its file.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.folder, self.name = folder, name
        self._last: tuple[str, Tensor] | None = None

    def find(self, key: str, verify: Verify) -> Tensor | None:
        """The tensor of this key, or None. A file that is damaged, or that ``verify`` refuses, is named in a warning
        and counts as none, so that it is made again."""
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        if self.folder is None or not (path := self._path(key)).exists():
            return None
        try:
            # Not load_file, which maps the file into memory: a file truncated later would kill the process.
            tensor = verify(load(path.read_bytes())[self.name])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("%s is damaged (%s) and will be made again", path, error)
            return None
        self._last = (key, tensor)
        return tensor

    def keep(self, key: str, tensor: Tensor) -> None:
        """Store a tensor, atomically.

        Raises:
            UserError: the folder cannot be written.
        """
        if self.folder is not None:
            content = save({self.name: tensor.cpu()})  # save_file turns a full disk into an error of its own
            write_atomically(self._path(key), lambda temporary: temporary.write_bytes(content))
        self._last = (key, tensor)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the right to make the tensor of this key: of several processes that want it, one makes it while the
        others wait. Look for it again once inside."""
        if self.folder is None:
            yield
        else:
            with locked(self._path(key)):
                yield

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"
