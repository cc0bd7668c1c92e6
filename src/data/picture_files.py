"""Which files of a folder are pictures: the rules that ``data=folder`` and ``src.purify`` have in common."""

import os
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError

#: File name endings of pictures.
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})


class Contents(NamedTuple):
    """What lies in a folder."""

    pictures: list[Path]
    others: int  #: files of other endings
    folders: set[Path]  #: all that was looked into, without links in their paths


def contents(folder: Path) -> Contents:
    """What lies in ``folder`` and in folders of any depth, but for what is hidden. Links to folders are followed, but
    not to one that they lie in.

    Raises:
        UserError: a folder cannot be read.
    """
    files, folders = [], set()
    waiting = [(folder, frozenset[Path]())]
    while waiting:
        inner, above = waiting.pop()
        real = without_links(inner)
        if real in above:
            continue
        folders.add(real)
        try:
            visible = [path for path in inner.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise UserError(f"cannot read {inner}: {error.strerror}") from error
        waiting += [(path, above | {real}) for path in visible if path.is_dir()]
        # A link to nothing counts, so that it is named and not left out
        files += [path for path in visible if path.is_file() or not path.exists()]
    pictures = sorted(path for path in files if is_picture(path))
    return Contents(pictures, len(files) - len(pictures), folders)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, by its name."""
    return not path.name.startswith(".") and path.suffix.lower() in ENDINGS


def without_links(path: Path) -> Path:
    """``path`` without links; unlike ``resolve`` it bears a link that leads to itself."""
    return Path(os.path.realpath(path))
