"""A progress bar for downloads and decoding, shown only to people."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress_bar(description: str, total: int | None, unit: str = "bytes") -> Iterator[Callable[[int], object]]:
    """A bar on stderr, gone when the block ends; nothing at all where stderr is not a terminal (logs, pipes,
    CI).

    Args:
        description: what is on its way.
        total: its size, or None where that is not known: the bar then only shows that something moves.
        unit: of the size: "bytes", or what is counted, such as "pictures".

    Yields:
        A function to call with the number that has just arrived.
    """
    counted = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    amounts = (counted, TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amounts)
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda size: progress.advance(task, size)
