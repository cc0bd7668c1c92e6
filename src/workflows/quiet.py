"""Silence what libraries say that helps nobody."""

import logging
import warnings


def quiet_libraries() -> None:
    """Lightning's banners and advertisements, and warnings about its own internals. Warnings that a user could act
    on stay. To be called after Lightning is imported, which sets its own log levels."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec.*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*GPU available but not used.*")
