"""Whoever only reads stored numbers, or mistypes a name, does not wait for PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import reporting_factories as make

from src.evaluation import CellStore, SweepManifest
from src.evaluation.certificates import CertificateFile
from src.evaluation.grid import Grid
from tests.conftest import REPO

pytestmark = pytest.mark.slow

#: The command in an interpreter that finds no PyTorch, and not the slow part of SciPy.
WITHOUT_TORCH = """
import runpy
import sys
from importlib.abc import MetaPathFinder

class Refusing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "torchmetrics", "torchvision"} or name == "scipy.stats":
            raise ModuleNotFoundError(f"this command asks for {name}")

sys.meta_path.insert(0, Refusing())
from src.reporting.wandb import cells, grid
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""


def store(grid: Grid, outputs: Path) -> None:
    """Leave what a sweep over these cells leaves, and a certificate on their data."""
    cells, made, rows = CellStore(outputs / "cells"), make.certified(0.5, 0.8), []
    for row in grid:
        cell = make.cell(row.coordinates, row.cell.accuracy, data=made.certification.identity["data"])
        cells.put(cell)
        rows.append((row.coordinates, cell.key))
    SweepManifest(tuple(rows), compare_published=True, bare=("none",), learned=("vqvae",)).save(
        outputs / "sweeps" / "one"
    )
    for image in made.images:
        CertificateFile(outputs / "certified", made.certification).add(image)


def without_torch(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_mistyped_name_in_any_job_of_a_sweep_is_told_without_pytorch(tmp_path: Path) -> None:
    done = without_torch("src.sweep", "-m", "attack=fgsm,fgsn", f"paths.outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no attack=fgsn; did you mean fgsm?")
    assert not list(tmp_path.iterdir())


def test_a_report_is_made_from_stored_cells_and_certificates_without_pytorch(tmp_path: Path) -> None:
    columns = {("none", None): (0.98, 0.05), ("vqvae", 0.5): (0.96, 0.41)}
    grid = make.make_grid(("fgsm",), (0.0, 0.3), columns, data="mnist")
    store(grid, tmp_path)
    done = without_torch("src.report", f"paths.outputs={tmp_path}", "logger=none")
    assert done.returncode == 0, done.stderr
    assert "vqvae 0.5 brings that to 41.0 %" in " ".join(done.stdout.split())
    assert "Certified accuracy" in done.stdout
    assert (tmp_path / "report" / "figures" / "accuracy-fgsm.png").exists()
    assert "41.0" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
