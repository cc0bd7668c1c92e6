"""What takes seconds and comes out the same in every process: made once for all test processes."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from src.reporting.page import page


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of one run see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, which ``make(path)`` writes if no other test process has done so. What stands there is whole."""
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path


def share_the_charts_library(folder: Path) -> None:
    """Let pages take the packed charts library from ``folder``. Bundling it takes two seconds of each process that
    writes a page; the first page of all writes it down."""
    bundle = page._charts_library

    @cache
    def read() -> str:
        path = made_once(folder / "charts-library", lambda path: path.write_text(bundle()) and None)
        return path.read_text()

    page._charts_library = read
