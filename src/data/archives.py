"""Data sets that come as archives of a form of their own: verified, then decoded once into four IDX files."""

import http.client
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.conversion import converted
from src.data.files import md5_of
from src.data.idx import write_content
from src.data.labelled import LabelledSet
from src.data.origins import download
from src.data.sources import GoodFile, refuse_other_files
from src.errors import UserError, in_a_line
from src.files import locked
from src.nested import leaves


@dataclass(frozen=True)
class ArchiveSource(ABC):
    """The archives of a data set, as four verified IDX files: `source(root)` is all there is to call.

    An archive is looked for in `root` and in torchvision's `<root>/<dataset>/raw`, and fetched into `root` if it is in
    neither. The archives are decoded once, below `cache`, in canonical order. One of another MD5 is not opened.

    Attributes:
        cache: where decoded images are kept.
        of: the data set that this is.
        dataset: the class of `torchvision.datasets` whose addresses are asked.
        archives: the MD5 of each archive, in hex, by its file name.
        urls: addresses to ask instead, by file name.
        timeout: as of `src.data.origins.download`.
    """

    cache: str
    of: str
    dataset: str
    archives: Mapping[str, str]
    urls: Mapping[str, Sequence[str]] | None = None
    timeout: float = 5.0

    @abstractmethod
    def decode(self, contents: Mapping[str, bytes]) -> LabelledSet:
        """The images and labels that stand in the archives, given as bytes by file name. It may fail in any way."""

    def __call__(self, root: Path) -> dict[str, GoodFile]:
        """Say where the four files are, after fetching and decoding the archives if that has not been done.

        Raises:
            UserError: `root` is no folder or holds something else, an archive is not to be had or not the canonical
            one, or there is no room.
        """
        if os.path.lexists(root) and not os.path.isdir(root):
            raise UserError(f"data.root={root} is not a folder; it must be one, or a path to make one at")
        if any(self._path(root, name) is None for name in self.archives):
            self._fetch(root)
        paths = {name: self._path(root, name) or root / name for name in self.archives}
        md5s = list(self.archives.values())
        digest = md5s[0] if len(md5s) == 1 else md5_of(" ".join(md5s).encode())
        folder = Path(self.cache).expanduser() / f"{self.of}-{digest[:12]}"
        files, _ = converted(folder, " ".join(self._state(paths)), lambda: self._read(paths))
        return files

    def _path(self, root: Path, name: str) -> Path | None:
        places = (root / name, root / self.dataset / "raw" / name)
        return next((path for path in places if os.path.lexists(path)), None)

    def _state(self, paths: Mapping[str, Path]) -> Iterator[str]:
        """What tells these files from others."""
        for name, path in paths.items():
            try:
                stat = path.stat()
            except OSError as error:  # a link to nothing, or in a loop
                raise UserError(f"cannot read {path}: {error.strerror or error}") from error
            yield f"{self.archives[name]} {path.resolve()} {stat.st_size} {stat.st_mtime_ns}"

    def _fetch(self, root: Path) -> None:
        if all(self._path(root, name) is None for name in self.archives):
            refuse_other_files(root, self.of)
        try:
            for name in self.archives:
                with locked(root / name):  # several data sets may be in one archive
                    if self._path(root, name) is None:
                        write_content(root / name, self._download(root, name))
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{root} cannot be written: {reason}; set data.root to another folder") from error

    def _download(self, root: Path, name: str) -> bytes:
        failures = []
        for url in self._addresses(name):
            try:
                return download(url, self.archives[name], self.timeout)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or in_a_line(error)}")
        raise UserError(
            f"{root} lacks {name}, and no source delivers: {'; '.join(failures) or 'no address is known'}. "
            f"To bring it by hand, put it (MD5 {self.archives[name]}) into {root}, or set data.root to the folder that "
            "holds it"
        )

    def _addresses(self, name: str) -> Sequence[str]:
        if self.urls is not None:
            return self.urls.get(name, ())
        try:
            import torchvision.datasets  # takes a second, which no run that finds its files should pay
        except ImportError as error:
            raise UserError(
                f"the address of {name} is asked of the package torchvision: pip install torchvision; or put the file "
                f"(MD5 {self.archives[name]}) into data.root"
            ) from error
        known = getattr(torchvision.datasets, self.dataset, None)
        addresses = leaves([getattr(known, attribute, None) for attribute in ("url", "resources", "split_list")])
        return [leaf for _, leaf in addresses if isinstance(leaf, str) and leaf.endswith(f"/{name}")]

    def _read(self, paths: Mapping[str, Path]) -> LabelledSet:
        contents = {name: self._verified(name, path) for name, path in paths.items()}
        try:
            return self.decode(contents)
        # What is damaged can fail in any way at all.
        except Exception as error:
            named = " and ".join(str(path) for path in paths.values())
            raise UserError(f"{named} cannot be read as {self.of}: {in_a_line(error)}") from error

    def _verified(self, name: str, path: Path) -> bytes:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        if (md5 := md5_of(content)) != self.archives[name]:
            raise UserError(
                f"{path} is not {self.of}'s archive: its MD5 is {md5} where {self.archives[name]} is right; it was not "
                "opened. If it is a damaged copy, delete it, and the same command gets it anew"
            )
        return content
