"""The store: one JSON file a cell, found by its key."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from src.errors import UserError
from src.evaluation.cell import Cell
from src.files import get_or_make, write_text
from src.stored import DamagedError

log = logging.getLogger(__name__)


class CellStore:
    """Cells under ``folder``, one ``<key>.json`` each. Safe for many processes: files appear whole, and a lock lets one
    process compute a cell while the others that want it wait.

    Args:
        folder: usually ``outputs/cells``; made when the first cell is stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._known: dict[str, Cell] = {}

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def get(self, key: str) -> Cell | None:
        """The stored cell, or None if there is none. A file that is damaged is named in a warning and counts as
        none, so that it is computed again."""
        if key not in self._known:
            path = self.path(key)
            try:
                cell = Cell.read(path)
                if cell.key != key:
                    raise DamagedError(f"it holds the cell {cell.key}")
            except FileNotFoundError:
                return None
            except DamagedError as error:
                log.warning("%s is damaged (%s) and will be computed again", path, error)
                return None
            self._known[key] = cell
        return self._known[key]

    def put(self, cell: Cell) -> Path:
        """Store a cell atomically; returns its file.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.path(cell.key)
        write_text(path, json.dumps(cell.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
        self._known[cell.key] = cell
        return path

    def get_or_make(self, key: str, make: Callable[[], Cell]) -> Cell:
        """The stored cell, or what ``make`` makes, which is stored. Of several processes that want one cell, one
        computes it while the others wait.

        Raises:
            UserError: the cell could not be stored, because its folder cannot be written or its file is a folder.
        """
        if self.path(key).is_dir():
            raise UserError(f"{self.path(key)} is a folder, where a cell belongs; move it away")

        def make_stored() -> Cell:
            cell = make()
            self.put(cell)
            return cell

        return get_or_make(self.path(key), lambda: self.get(key), make_stored)

    def keys(self) -> list[str]:
        """Keys of all files in the store, damaged ones included."""
        return sorted(path.stem for path in self.folder.glob("*.json"))
