"""``sweeps/index.html``: a line for each sweep, with a link to its report."""

from datetime import datetime
from pathlib import Path
from typing import Any

from src.evaluation.grid import SweepManifest, sweeps_below
from src.evaluation.store import CellStore
from src.files import write_text
from src.reporting.templating import template

INDEX = "index.html"
#: Folder of a sweep's report within the sweep's folder.
KEPT = "report"


def write_index(sweeps: Path, store: CellStore) -> Path:
    """List the sweeps under ``sweeps``, newest first; returns the file.

    Raises:
        UserError: the folder cannot be written.
    """
    rows = [_row(folder, manifest, store) for folder, manifest in sweeps_below(sweeps)]
    write_text(sweeps / INDEX, template("sweeps.html").render(sweeps=rows))
    return sweeps / INDEX


def _row(folder: Path, manifest: SweepManifest, store: CellStore) -> dict[str, Any]:
    """What is said of a sweep. A missing cell is one whose file is not there: cells are not read for this."""
    stored = sum(store.path(key).exists() for _, key in manifest.rows)
    start = datetime.fromtimestamp(manifest.started).strftime("%Y-%m-%d %H:%M:%S") if manifest.started else folder.name
    has_report = (folder / KEPT / "index.html").exists()
    return {
        "begun": start,
        "command": manifest.command or "not recorded",
        "rows": len(manifest.rows),
        "missing": len(manifest.rows) - stored,
        "report": f"{folder.name}/{KEPT}/index.html" if has_report else None,
    }
