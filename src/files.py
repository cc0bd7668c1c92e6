"""Files that are whole or absent, never half written, and written by one process at a time."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from src.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

T = TypeVar("T")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    Raises:
        UserError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    try:
        replace_atomically(path, write)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; make room or set paths.outputs elsewhere") from error


def replace_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """As :func:`write_atomically`, with the system's own error.

    Raises:
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as temporary:
        write(temporary)
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, ``.<name>.<8 letters>.tmp``, which is gone afterwards.

    This process holds a lock on it meanwhile, by which :func:`clear_temporaries` knows that it is in use.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        if fcntl is None:
            os.close(handle)  # Windows moves no file that is open
        else:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        if fcntl is not None:
            os.close(handle)


def clear_temporaries(folder: Path) -> None:
    """Remove what :func:`write_atomically` left in ``folder`` when its process was killed.

    The files of running processes stay: these hold a lock on them, which the system releases when they die. Where the
    system has no such locks, all stay.
    """
    for path in folder.glob(".*.????????.tmp"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                if fcntl is not None:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
            finally:
                os.close(handle)


def make_folder(path: Path) -> None:
    """Make the folder ``path`` unless it is there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}; set paths.outputs elsewhere") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; errors as :func:`write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content``, atomically; errors as :func:`write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


@contextmanager
def held(lock: Path, task: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``lock``, which stays unless its holder removes it; waits, and says that it waits for another
    process to do ``task``. The system releases the lock when its holder dies.

    Raises:
        OSError: the folder cannot be made or written; a ``Timeout`` of filelock where another process holds the lock
            and ``wait`` is false.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        log.info("waiting for another process to %s", task)
        file.acquire()
    try:
        yield
    finally:
        file.release()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to make the file ``path``; waits, and says so, while another process holds it.

    The lock is a file beside it, ``.<name>.lock``, which stays; the system releases it when its holder dies. What a
    holder that was killed left half written is removed.

    Raises:
        UserError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(held(path.parent / f".{path.name}.lock", f"make {path}"))
        except OSError as error:
            raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
        for temporary in path.parent.glob(f".{path.name}.*.tmp"):
            temporary.unlink(missing_ok=True)
        yield


def get_or_make(path: Path, read: Callable[[], T | None], make: Callable[[], T]) -> T:
    """What ``read`` finds in the file ``path``, or else what ``make`` makes and stores there. Of several processes that
    want it, one makes it while the others wait.

    Raises:
        UserError: the folder cannot be written.
    """
    if (content := read()) is not None:
        return content
    with locked(path):
        content = read()
        return make() if content is None else content
