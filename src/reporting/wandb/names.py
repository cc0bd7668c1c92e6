"""Weights & Biases: under which names things are logged. It takes dots for nesting, and its queries know no blanks."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: What Lightning's logger counts training steps under.
STEP = "trainer/global_step"


def identifier(name: str) -> str:
    """``name`` with an underscore for whatever W&B takes in no metric's name."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def figure_key(name: str) -> str:
    """Under which name a figure is logged: ``figures/accuracy_ifgsm`` for ``accuracy-ifgsm.png``."""
    return f"figures/{identifier(Path(name).stem)}"


def images_of(figures: Iterable[Path]) -> dict[str, Any]:
    """PNG files as W&B images, by what they are logged as."""
    import wandb

    return {figure_key(figure.name): wandb.Image(str(figure)) for figure in figures if figure.is_file()}
