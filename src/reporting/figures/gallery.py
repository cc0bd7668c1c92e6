"""Figures on disk: drawn when what they show has changed, removed when the grid no longer has them."""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import vl_convert
from PIL import Image
from pydantic import TypeAdapter

from src.files import write_atomically, write_text
from src.reporting.figures.charts import Chart
from src.reporting.figures.plan import Drawing
from src.stored import DamagedError, read

log = logging.getLogger(__name__)

#: Pixels of a PNG for each unit of a chart.
SCALE = 2
#: What was drawn from what, beside the figures: file name -> hash of the chart, hash of the file.
MANIFEST = ".drawn.json"


def render(drawings: Sequence[Drawing], folder: Path) -> dict[str, Path]:
    """Bring ``folder`` up to date; returns the files by name, in order.

    A file whose chart, renderer and bytes are as they were is left alone. Files that an earlier call drew and this
    one does not are removed; others in the folder are not ours and stay.

    Raises:
        UserError: the folder cannot be written.
    """
    old_entries, renderer = _manifest(folder), _renderer()
    entries: dict[str, dict[str, str]] = {}
    for drawing in drawings:
        figure, path = drawing.picture(), folder / drawing.name
        if figure is None:
            continue
        chart, old_entry = _digest(f"{renderer} {json.dumps(figure)}".encode()), old_entries.get(drawing.name)
        if old_entry and old_entry.get("chart") == chart and _file_digest(path) == old_entry.get("file"):
            entries[drawing.name] = old_entry
        else:
            save(figure, path)
            entries[drawing.name] = {"chart": chart, "file": _file_digest(path) or ""}
    for path in folder.glob("*.png"):
        if path.name in old_entries.keys() - entries.keys() and path.is_file():
            path.unlink(missing_ok=True)
    if entries or old_entries:
        write_text(folder / MANIFEST, json.dumps(entries, indent=1) + "\n")
    return {name: folder / name for name in entries}


def save(figure: Chart, path: Path) -> None:
    """Write a figure as PNG, atomically, with the same bytes every time.

    Raises:
        UserError: the folder cannot be written.
    """
    with Image.open(io.BytesIO(vl_convert.vegalite_to_png(figure, scale=SCALE, allowed_base_urls=[]))) as image:
        opaque = image.convert("RGB")  # and in half the bytes
    write_atomically(path, lambda temporary: opaque.save(temporary, "PNG"))


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    """What the last call drew; nothing if there was none or its record is damaged."""
    try:
        return read(TypeAdapter(dict[str, dict[str, str]]), folder / MANIFEST)
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        log.warning("%s is damaged (%s); all figures are drawn again", folder / MANIFEST, error)
        return {}


def _renderer() -> str:
    """What makes pixels of a chart: vl-convert and this file."""
    return f"{version('vl-convert-python')} {_digest(Path(__file__).read_bytes())}"


def _file_digest(path: Path) -> str | None:
    try:
        return _digest(path.read_bytes())
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
