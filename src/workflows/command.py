"""What every command does the same way: where the configuration lies, and what an error looks like."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import UserError

#: Absolute, because a relative path means something else from a console script than from ``python -m``.
CONFIG_PATH = str(Path(__file__).resolve().parents[2] / "conf")

#: Where Hydra finds our sweeper.
PLUGINS = str(Path(__file__).resolve().parents[1] / "plugins")

INTERRUPTED = 130  # what shells report after Ctrl-C


def register_resolvers() -> None:
    """Make the interpolations that our YAML files use known to OmegaConf. Safe to call again."""
    OmegaConf.register_new_resolver("plain", plain_number, replace=True)
    OmegaConf.register_new_resolver("replicate", replicate_suffix, replace=True)


def plain_number(value: object) -> str:
    """The shortest way to write a number, so that 0.50, 5e-1 and 0.5 name one file; other text stays as it is."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def replicate_suffix(seed: object) -> str:
    """Seed 0 is the reference and has plain file names; other seeds lie beside it."""
    return "" if str(seed) in ("0", "None") else f"-seed{seed}"


def run(command: Callable[[], object]) -> None:
    """Run a ``@hydra.main`` function; the user's mistakes become one line on stderr and exit code 1.

    With HYDRA_FULL_ERROR=1 set by the user, everything is a traceback, as Hydra's users know it.
    """
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors in its own way before we see them
    register_resolvers()
    if PLUGINS not in sys.path:
        sys.path.append(PLUGINS)
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(f"error: {one_line(error)}")


def one_line(error: Exception) -> str:
    """An error's message on one line. Hydra's lists of options come after a colon, not one a line."""
    cause = error.__cause__
    text = str(error)
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        text = f"{text}: {cause.msg or cause}"
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("full_key:", "object_type=", "Config search path"))]
    if "Config search path:" in lines:  # followed by places where Hydra looked
        text = text[: text.index("Config search path:")]
        kept = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(kept)
