"""Whoever only reads stored numbers does not wait for PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import reporting_factories as make

from src.evaluation import CellStore, Request
from src.evaluation.certificates import CertificateFile
from src.evaluation.grid import Grid
from tests.conftest import REPO

#: Writes and prints the report of a stored sweep in an interpreter that finds no PyTorch.
REPORT_WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Refusing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "torchmetrics", "torchvision"}:
            raise ModuleNotFoundError(f"a report asks for {name}")

sys.meta_path.insert(0, Refusing())

from rich.console import Console
from src.evaluation import CellStore, Request
from src.reporting.wandb import cells as wandb_cells
from src.reporting.wandb import grid as wandb_grid
from src.reporting.analysis.certified import load_certified
from src.reporting.report import write_report
from src.reporting.terminal import print_certified, print_grid

outputs = Path(sys.argv[1])
request, store = Request.load(outputs / "sweeps" / "one"), CellStore(outputs / "cells")
grid = request.grid(store)
certified = load_certified(outputs / "certified")
write_report(grid, [], outputs / "report", True, request.suspicions(store), certified)
print_grid(grid, Console())
print_certified(certified, Console())
"""


def store(grid: Grid, outputs: Path) -> None:
    """Leave what a sweep over these cells leaves, and a certificate on their data."""
    cells = CellStore(outputs / "cells")
    for row in grid:
        if row.cell:
            cells.put(row.cell)
    rows = tuple((row.coordinates, row.key) for row in grid)
    Request(rows, bare=("none",), learned=("vqvae",)).save(outputs / "sweeps" / "one")
    made = make.certified(0.5, 0.8)
    for image in made.images:
        CertificateFile(outputs / "certified", made.certification).add(image)


def test_a_report_is_made_from_stored_cells_and_certificates_without_pytorch(tmp_path: Path) -> None:
    columns = {("none", None): (0.98, 0.05), ("vqvae", 0.5): (0.96, 0.41)}
    grid = make.make_grid(("fgsm",), (0.0, 0.3), columns, data="mnist")
    store(grid, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", REPORT_WITHOUT_TORCH, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "vqvae 0.5 brings that to 41.0 %" in " ".join(done.stdout.split())
    assert "Certified accuracy" in done.stdout
    assert (tmp_path / "report" / "figures" / "accuracy-fgsm.png").exists()
    assert "41.0" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
