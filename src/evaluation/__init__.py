"""Cells: what they are asked of, how they are computed and stored, and the grid that they make.

What is named here describes and reads cells without PyTorch. :mod:`src.evaluation.evaluator` computes them.
"""

from src.evaluation.cell import Cell
from src.evaluation.grid import Grid, GridRow, SweepManifest
from src.evaluation.spec import (
    NO_DEFENSE,
    AttackSpec,
    CellSpec,
    Coordinates,
    DataSpec,
    DefenseSpec,
    Protocol,
    ThreatSpec,
)
from src.evaluation.store import CellStore

__all__ = [
    "NO_DEFENSE",
    "AttackSpec",
    "Cell",
    "CellSpec",
    "CellStore",
    "Coordinates",
    "DataSpec",
    "DefenseSpec",
    "Grid",
    "GridRow",
    "Protocol",
    "SweepManifest",
    "ThreatSpec",
]
