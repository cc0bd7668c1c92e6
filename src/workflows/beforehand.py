"""What is checked before Hydra makes the folder of a run.

These are callbacks of Hydra's, named in ``conf/``. Hydra turns what a callback raises into a warning and goes on, all
but SystemExit: so that is what they end with.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from src.errors import UserError
from src.files import make_folder
from src.workflows.cli_help import options


class MakeFolder(Callback):
    """Ends the command if ``folder`` is none and cannot be made."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with _refusing():
            if config.hydra.job.chdir:
                raise UserError(
                    "hydra.job.chdir=true would scatter outputs over job folders; set paths.outputs=… instead"
                )
            make_folder(self.folder)

    on_multirun_start = on_run_start


class MustChoose(Callback):
    """Ends the command if the user has not said which option of ``group`` is meant.

    Hydra's own ``group: ???`` would leave the group out of what a multirun over it is composed of, and with it every
    value in it that the command line sets for all its jobs.
    """

    def __init__(self, group: str) -> None:
        self.group = group

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        names = [override.lstrip("+").partition("=")[0] for override in config.hydra.overrides.task]
        swept = config.hydra.sweeper.get("params") or {}
        if self.group not in (*names, *swept):
            with _refusing():
                raise UserError(f"say which {self.group}: {self.group}=… with one of {options(self.group)}")

    on_multirun_start = on_run_start


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
