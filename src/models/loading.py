"""Trained networks by the path of their checkpoint, for components that are made of one."""

from functools import lru_cache
from pathlib import Path

from torch import nn

from src.models.checkpoint import load_module
from src.models.classifier import Classifier


def load_classifier(checkpoint: str | Path, remedy: str = "python -m src.train model=classifier") -> nn.Module:
    """The frozen classifier of a checkpoint of ``python -m src.train model=classifier``, in ``eval()``.

    Asked again for the same file, it returns the same module.

    Args:
        checkpoint: the file.
        remedy: the command that makes it, for error messages.

    Raises:
        UserError: the file is missing, damaged or of another network.
    """
    path = Path(checkpoint)
    return _load(path, path.stat().st_mtime_ns if path.is_file() else 0, remedy)


@lru_cache(maxsize=2)  # a sweep asks for each cell anew
def _load(path: Path, modified: int, remedy: str) -> nn.Module:
    return load_module(Classifier, path, remedy)[0]
