"""Silence what libraries say that helps nobody."""

import logging
import warnings

from lightning.pytorch.utilities import rank_zero_only


def quiet_libraries() -> None:
    """Lightning's banners and advertisements, and warnings about its own internals. Warnings that a user could act
    on stay. Of several processes that train together only the first says how it goes."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec.*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=r".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=r"Grad strides do not match bucket view strides")
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        logging.getLogger("src").setLevel(logging.ERROR)
