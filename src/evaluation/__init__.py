"""One cell of the accuracy grid: evaluated once, stored, found again."""

from src.evaluation.cell import Cell, CellSpec, Coordinates, Protocol, TestSet
from src.evaluation.evaluate import Evaluator
from src.evaluation.grid import Grid, GridRow, Request
from src.evaluation.module import PurificationEvaluation
from src.evaluation.statistics import wilson_interval
from src.evaluation.store import CellStore

__all__ = [
    "Cell",
    "CellSpec",
    "CellStore",
    "Coordinates",
    "Evaluator",
    "Grid",
    "GridRow",
    "Protocol",
    "PurificationEvaluation",
    "Request",
    "TestSet",
    "wilson_interval",
]
