"""From a folder to four verified files: those that are there, and the missing ones from the origins, in order."""

import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from src.data.files import ROLES, STANDARD, IdxFile
from src.data.idx import read_content, write_content
from src.data.origins import Origin, UnavailableError
from src.errors import UserError
from src.files import held

_REST_NS = 2 * 10**9

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoodFile:
    """A verified file on disk (gzipped where its name ends in `.gz`) and its uncompressed content's MD5."""

    path: Path
    md5: str


@dataclass(frozen=True)
class IdxSource:
    """The four IDX files of a data set, and how to get them: `source(root)` is all there is to call.

    A file is looked for in `<root>/<folder>/` (torchvision's layout) and directly in `<root>`, plain or with
    `.gz` added, and used where it lies when it is good: nothing is written then, so `root` may be read-only.
    Files that are missing come from the origins, the first that delivers, and are written plain. A file that is
    there is never written over: it may be the user's own. Nothing is fetched into a folder of other things.

    Attributes:
        of: the data set that these files are, such as "mnist"; empty: any.
        train_images, train_labels, test_images, test_labels: the files.
        folder: below `root`, such as "MNIST/raw"; empty to look in every `*/raw` (for files brought by hand).
        origins: asked in this order (see `src.data.origins`).
    """

    train_images: IdxFile = STANDARD["train_images"]
    train_labels: IdxFile = STANDARD["train_labels"]
    test_images: IdxFile = STANDARD["test_images"]
    test_labels: IdxFile = STANDARD["test_labels"]
    folder: str = ""
    origins: Sequence[Origin] = ()
    of: str = ""

    def __call__(self, root: Path) -> dict[str, GoodFile]:
        """Verify the files under `root`, get those that are missing, and say where each one lies.

        Safe when several processes start at once: one gets the files, the others wait and find them.

        Returns:
            a GoodFile for each of ROLES.

        Raises:
            UserError: `root` is no folder, it cannot be written to, the disk is full, no origin delivers, or `root`
            holds something else: a file that is not what it should be, or other files only.
        """
        # os.path, because pathlib's counterparts raise where a parent folder may not be read.
        if os.path.lexists(root) and not os.path.isdir(root):
            raise UserError(f"data.root={root} is not a folder; it must be one, or a path to make one at")
        good, bad = self._look(root)
        if not bad:
            return good
        if not self.origins:
            raise UserError(self._not_found(root, bad, []))
        self._refuse_other_data(root, good, bad)
        try:
            # The lock lies inside root: whoever may write the files may write it, too, as on a volume at /data.
            with held(root / ".lock", f"prepare {root}"):
                good, bad = self._look(root)
                self._refuse_other_data(root, good, bad)
                return good | self._fetch(root, bad)
        except OSError as error:
            raise UserError(f"{self._lacks(root, bad)}, and cannot be written: {_mend(error)}") from error

    def _file(self, role: str) -> IdxFile:
        file: IdxFile = getattr(self, role)
        return file

    def _look(self, root: Path) -> tuple[dict[str, GoodFile], dict[str, dict[Path, str]]]:
        """The good files by role; for each other role, the files in its place and what is wrong with them."""
        folders = [*([root / self.folder] if self.folder else sorted(root.glob("*/raw"))), root]
        good: dict[str, GoodFile] = {}
        bad: dict[str, dict[Path, str]] = {}
        for role in ROLES:
            faults: dict[Path, str] = {}
            for path in _candidates(folders, self._file(role).name):
                try:
                    good[role] = GoodFile(path, _verified(path, self._file(role)))
                    break
                except UserError as error:
                    faults[path] = str(error)
            if role not in good:
                bad[role] = faults
            else:
                for path, fault in faults.items():
                    log.warning("%s is corrupt: %s; using %s instead", path, fault, good[role].path)
        return good, bad

    def _refuse_other_data(
        self, root: Path, good: Mapping[str, GoodFile], bad: Mapping[str, Mapping[Path, str]]
    ) -> None:
        """UserError if `root` holds something that a fetch would write over, or mix with what is fetched."""
        altered = {path: fault for faults in bad.values() for path, fault in faults.items()}
        name = self.of or "this data set"
        if altered:
            (path, fault), *others = altered.items()
            rest = f" (nor are {', '.join(other.name for other, _ in others)})" if others else ""
            message = (
                f"{path} is not the file of {name}: {fault}{rest}. Nothing was changed. If it is a damaged copy, "
                f"delete it, and the same command gets it anew; {_declare(root)}"
            )
            raise UserError(_one_line(message))
        if not good:
            refuse_other_files(root, name)

    def _fetch(self, root: Path, bad: dict[str, dict[Path, str]]) -> dict[str, GoodFile]:
        """Get and store a good file for every role in `bad`."""
        files: dict[str, GoodFile] = {}
        failures = []
        for origin in self.origins:
            wanted = {role: self._file(role) for role in bad if role not in files}
            if not wanted:
                break
            try:
                for role, content in origin(wanted):
                    files[role] = self._store(root / self.folder / self._file(role).name, role, content)
            except UnavailableError as error:
                log.info("no data from here, going on to the next source: %s", error)
                failures.append(str(error))
        if lacking := {role: faults for role, faults in bad.items() if role not in files}:
            raise UserError(self._not_found(root, lacking, failures))
        return files

    def _store(self, path: Path, role: str, content: bytes) -> GoodFile:
        try:
            md5 = self._file(role).check(content)
        except UserError as error:
            raise UnavailableError(f"{path.name} came, but {error}") from error
        if os.path.lexists(path):  # since we looked; or a folder, or a link to nowhere
            raise UserError(f"{path} is in the way of a file that was fetched: move it away")
        write_content(path, content)
        return GoodFile(path, md5)

    def _lacks(self, root: Path, bad: Mapping[str, Mapping[Path, str]]) -> str:
        """The missing files by name, the altered ones by path with what is wrong with them."""
        lacking = []
        for role, faults in bad.items():
            corrupt = "; ".join(f"{path} is corrupt: {fault}" for path, fault in faults.items())
            lacking.append(f"{self._file(role).name} ({corrupt or 'missing'})")
        return f"{root} lacks {', '.join(lacking)}"

    def _not_found(self, root: Path, bad: Mapping[str, Mapping[Path, str]], failures: list[str]) -> str:
        tried = f", and no source delivers: {'; '.join(failures)}" if failures else ""
        names = ", ".join(self._file(role).name for role in ROLES)
        message = (
            f"{self._lacks(root, bad)}{tried}. To bring the files by hand, put {names} (plain or .gz) into"
            f" {root / self.folder}, or set data.root to a folder that holds them"
        )
        return _one_line(message)


def refuse_other_files(root: Path, whole: str) -> None:
    """UserError if `root`, which holds nothing of the data set called `whole`, holds something else: nothing is fetched
    into it then."""
    if other := _something_in(root):
        raise UserError(
            f"data.root={root} holds other files ({other}) and nothing of {whole}, so {whole} is not fetched into "
            f"it: set data.root to a new folder, or to one that holds {whole}; {_declare(root)}"
        )


def _one_line(message: str) -> str:
    """`message` on one line, whatever pip or a server had to say in it."""
    return " ".join(message.split())


def _declare(root: Path) -> str:
    """How to say that data are one's own."""
    return f"if it is your own data, say so: data=folder data.root={root}"


def _something_in(root: Path) -> str:
    """The first file below `root`, relative to it, or an empty string; hidden files, such as our lock, do not count."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if visible := sorted(name for name in files if not name.startswith(".")):
            return os.path.relpath(os.path.join(folder, visible[0]), root)
    return ""


def _verified(path: Path, file: IdxFile) -> str:
    """The MD5 of a good file's uncompressed content; UserError, saying what is wrong, for any other.

    A file that has not changed since it was found good is not read again, so that a sweep of a thousand jobs
    in one process does not verify the same 55 MB a thousand times.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"it cannot be read: {error.strerror}") from error
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    # File times are coarse: two changes within one tick look like one. So only a file at rest is remembered.
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < _REST_NS:
        return file.check(read_content(path))
    return _verified_in_state(path, file, state)


@lru_cache(maxsize=64)
def _verified_in_state(path: Path, file: IdxFile, state: tuple[int, ...]) -> str:
    return file.check(read_content(path))


def _candidates(folders: list[Path], name: str) -> list[Path]:
    """The existing files that may be `name`; plain ones first, because they need no decompression."""
    paths = [folder / f"{name}{ending}" for ending in ("", ".gz") for folder in folders]
    return [path for path in paths if os.path.isfile(path)]


def _mend(error: OSError) -> str:
    """What the operating system said, and what would help."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "make room" if is_full else "give permission to write"
    file = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{file}; {advice}, or set data.root to another folder"
