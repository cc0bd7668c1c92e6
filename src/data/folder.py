"""Anybody's images: class folders of pictures, an .npz file, or four IDX files; found by looking."""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from src.data.class_folders import Decoding, list_pictures
from src.data.conversion import converted
from src.data.files import STANDARD
from src.data.npz import read_npz
from src.data.sources import GoodFile, IdxSource
from src.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderSource:
    """A folder of images, as four verified IDX files: `source(root)` is all there is to call.

    `root` is one of these, and nothing is written into it:

    - `train/<class>/*` and `test/<class>/*`, pictures; or `<class>/*`, of which a seeded share become test images; see
      `list_pictures`
    - a folder with one .npz file, or that file: see `read_npz`
    - four IDX files under MNIST's names, plain or .gz, in it or in a folder `*/raw`: they are used where they lie

    Pictures and arrays are decoded once, into IDX files below `cache`, and again when a file of theirs changes. The
    data set's fingerprint is of what was decoded, not of where it came from.

    Attributes:
        cache: where decoded images are kept.
        size, channels, skip, test_share, test_seed: of pictures; see `Decoding`. A single size stands for a square.
    """

    cache: str
    size: int | Sequence[int] | None = None
    channels: int | None = None
    skip: bool = False
    test_share: float = 0.2
    test_seed: int = 0

    def __call__(self, root: Path) -> dict[str, GoodFile]:
        """Say where the four files are, after decoding `root` if that has not been done.

        Raises:
            UserError: there is no such folder, it holds no data set, or the data set is not fit for use: says why.
        """
        decoding = self._decoding()
        if not os.path.exists(root):
            raise UserError(f"data.root={root} does not exist; it must be a folder of images, or an .npz file")
        has_idx = os.path.isdir(root) and _has_idx(root)
        archive = None if has_idx else _archive(root)
        if (has_idx or archive) and (self.size is not None or self.channels is not None):
            raise UserError(f"data.source.size and data.source.channels are for pictures; {root} holds arrays")
        if has_idx:
            return IdxSource()(root)
        state = _digest(_state_of([archive] if archive else _pictures(root), root))
        settings = f"{decoding!r} mixed" if archive is None else ""  # mixed: the order; what lacks it is made again
        folder = Path(self.cache).expanduser() / f"{root.resolve().stem}-{_digest(f'{root.resolve()} {settings}')[:12]}"
        files, notes = converted(folder, state, lambda: read_npz(archive) if archive else decoding(root))
        for note in notes:
            log.warning("%s: %s", root, note)
        return files

    def is_mixed(self, root: Path) -> bool:
        """Whether images of `root` are put into an order that mixes their classes: pictures are; arrays keep theirs."""
        return root.is_dir() and not _has_idx(root) and _archive(root) is None

    def _decoding(self) -> Decoding:
        size = [self.size, self.size] if isinstance(self.size, int) else self.size
        sizes = size is None or (len(size) == 2 and all(isinstance(side, int) and side >= 1 for side in size))
        _require(sizes, "size", self.size, "a side such as 32, or [height,width], or null")
        _require(self.channels in (None, 1, 3), "channels", self.channels, "1, 3 or null")
        _require(isinstance(self.skip, bool), "skip", self.skip, "true or false")
        share = isinstance(self.test_share, float) and 0 < self.test_share < 1
        _require(share, "test_share", self.test_share, "between 0 and 1")
        seed = isinstance(self.test_seed, int) and 0 <= self.test_seed < 2**32
        _require(seed, "test_seed", self.test_seed, "from 0 to 2**32 - 1")
        return Decoding(tuple(size) if size else None, self.channels, self.skip, self.test_share, self.test_seed)  # type: ignore[arg-type]


def _require(holds: bool, name: str, value: object, right: str) -> None:
    if not holds:
        raise UserError(f"data.source.{name}={value} is not {right}")


def _has_idx(root: Path) -> bool:
    names = [f"{file.name}{ending}" for file in STANDARD.values() for ending in ("", ".gz")]
    return any((folder / name).is_file() for folder in (root, *root.glob("*/raw")) for name in names)


def _archive(root: Path) -> Path | None:
    """The .npz file that `root` is or holds."""
    if root.is_file():
        if root.suffix != ".npz":
            raise UserError(f"data.root={root} is neither a folder nor an .npz file")
        return root
    archives = sorted(root.glob("*.npz"))
    if len(archives) > 1:
        raise UserError(f"data.root={root} holds several .npz files: name one, such as data.root={archives[0]}")
    return archives[0] if archives else None


def _pictures(root: Path) -> list[Path]:
    listing = list_pictures(root)
    return [path for files in (listing.train, listing.test or {}) for name in files for path in files[name]]


def _state_of(paths: Sequence[Path], root: Path) -> str:
    """What changes when a file is added, removed, renamed, replaced or written to."""
    lines = []
    for path in paths:
        stat = path.stat() if path.exists() else path.lstat()  # a link to nothing is named when it is decoded
        # Copies may be given the time of another file (rsync -t, cp -p), but not its inode nor the time of its change.
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        lines.append(" ".join(map(str, (os.path.relpath(path, root), *state))))
    return "\n".join(lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
