"""Adversarial sets: attacked once, used by every defense."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.attacks import check_adversarial
from src.errors import UserError
from src.files import write_atomically

log = logging.getLogger(__name__)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]  #: (model, x, y) -> x_adv, its eps bound


class AdversarialStore:
    """Attacked test sets: the last one in memory, all of them under ``folder`` as ``<key>.safetensors``.

    Args:
        folder: usually ``outputs/adversarial``; None keeps nothing on disk.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._last: tuple[str, Tensor] | None = None

    @contextmanager
    def share(self, key: str, x: Tensor, eps: float, attack: Attack, seed: int) -> Iterator[Attack]:
        """An attack that makes each set once: the set of this key if there is one, else ``attack``, recorded.

        Yields a function to be called on consecutive batches that together are ``x``, shape (N, C, H, W). What
        it returns is verified against ``eps`` whatever its source. A damaged file is named in a warning and made
        again. Of several processes that want one set, one makes it while the others wait.

        Raises:
            UserError: the folder cannot be written.
        """
        if self._last is not None and self._last[0] == key:
            yield Replay(self._last[1])
        elif (stored := self._read(key, x, eps)) is not None:
            self._last = (key, stored)
            yield Replay(stored)
        else:
            with self._lock(key):
                if (stored := self._read(key, x, eps)) is not None:  # made by another while this one waited
                    self._last = (key, stored)
                    yield Replay(stored)
                else:
                    recording = Recording(attack, eps, seed)
                    yield recording
                    self._keep(key, torch.cat(recording.batches))

    def _keep(self, key: str, x_adv: Tensor) -> None:
        if self.folder is not None:
            path = self.folder / f"{key}.safetensors"
            write_atomically(path, lambda temporary: save_file({"x_adv": x_adv.cpu()}, temporary))
        self._last = (key, x_adv)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        if self.folder is None:
            yield
            return
        lock = FileLock(self.folder / f".{key}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()

    def _read(self, key: str, x: Tensor, eps: float) -> Tensor | None:
        if self.folder is None or not (path := self.folder / f"{key}.safetensors").exists():
            return None
        try:
            return check_adversarial(load_file(path)["x_adv"].to(x.device), x, eps)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            log.warning("%s is damaged (%s) and will be made again", path, error)
            return None


class Replay:
    """Hands out a stored set batch by batch."""

    def __init__(self, stored: Tensor) -> None:
        self.stored, self.position = stored, 0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        begin, self.position = self.position, self.position + len(x)
        return self.stored[begin : self.position].to(x.device)


class Recording:
    """Runs an attack batch by batch, verifies and keeps what it returns.

    The attack draws from a random stream of its own: what a purifier draws between two batches, or whether the set
    was replayed, changes nothing for the other.
    """

    def __init__(self, attack: Attack, eps: float, seed: int) -> None:
        self.attack, self.eps = attack, eps
        self.batches: list[Tensor] = []
        self._states: list[Tensor] | None = None
        self._seed = seed

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices):
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                for device, state in zip(devices, self._states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            x_adv = check_adversarial(self.attack(model, x, y).detach(), x, self.eps)
            self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]
        self.batches.append(x_adv)
        return x_adv
