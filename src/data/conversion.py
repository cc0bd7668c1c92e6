"""Data sets of other forms, converted once into four IDX files with a record of what they were made of."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.data.files import ROLES, STANDARD, md5_of
from src.data.idx import encode_idx, write_content
from src.data.labelled import LabelledSet, shown_size
from src.data.sources import GoodFile
from src.errors import UserError
from src.files import locked

log = logging.getLogger(__name__)

#: Beside the converted files: what they were made of, and what their content is.
RECORD = "made-of.json"


def converted(folder: Path, state: str, decode: Callable[[], LabelledSet]) -> tuple[dict[str, GoodFile], list[str]]:
    """The four files of a data set by role, and its notes. They are decoded unless ``folder`` has those of data in this
    ``state``, by one process while others wait.

    Raises:
        UserError: the folder cannot be written; and as ``decode``.
    """
    with locked(folder / RECORD):
        record = _stored(folder, state) or _convert(decode(), folder, state)
    files = {role: GoodFile(folder / STANDARD[role].name, record["md5"][role]) for role in ROLES}
    return files, record["notes"]


def _stored(folder: Path, state: str) -> dict[str, Any] | None:
    """MD5s and notes of the record, if all files are as it says and were made from data in this ``state``."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["state"] != state:
            return None
        for role in ROLES:
            content = (folder / STANDARD[role].name).read_bytes()
            if md5_of(content) != record["md5"][role]:
                return None
        return {"md5": dict(record["md5"]), "notes": list(record["notes"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _convert(images: LabelledSet, folder: Path, state: str) -> dict[str, Any]:
    """Write the four files, and last the record, which is returned."""
    tensors = {
        "train_images": images.train.images,
        "train_labels": images.train.labels,
        "test_images": images.test.images,
        "test_labels": images.test.labels,
    }
    md5 = {}
    try:
        for role in ROLES:
            content = encode_idx(tensors[role])
            md5[role] = md5_of(content)
            write_content(folder / STANDARD[role].name, content)
        record = {"state": state, "md5": md5, "notes": list(images.notes), "classes": list(images.classes)}
        write_content(folder / RECORD, json.dumps(record, ensure_ascii=False).encode())
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {folder}: {reason}; make room or set paths.data elsewhere") from error
    names = f" ({', '.join(images.classes[:10])}{', …' if len(images.classes) > 10 else ''})" if images.classes else ""
    log.info(
        "decoded %d training and %d test images, %s, of %d classes%s, into %s",
        len(images.train.labels),
        len(images.test.labels),
        shown_size(images.train.images.shape[1:]),
        int(images.train.labels.max()) + 1,
        names,
        folder,
    )
    return record
