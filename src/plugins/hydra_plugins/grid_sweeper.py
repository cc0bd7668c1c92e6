"""The sweeper behind ``python -m src.sweep -m``.

Hydra looks for sweepers in the namespace package ``hydra_plugins`` and nowhere else; ``src.sweep`` puts the folder
above this one on the path. Command line and configuration are those of Hydra's basic sweeper, which this one differs
from in five ways: every point is checked before the first is computed, points that come to the same cell or to a
stored one are not launched, what jobs have in common is composed once, those that others wait for are launched first,
and the cells are collected into a report whatever happened to the jobs.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger("src.sweep")  # a name whose lines conf/base.yaml shows between jobs


class GridSweeper(BasicSweeper):
    """Expands the cartesian product of the command line and ``hydra.sweeper.params`` into a grid of cells."""

    def sweep(self, arguments: list[str]) -> Any:
        from src.workflows.composing import SweepComposer, choice_and_values
        from src.workflows.schema import SweepSettings
        from src.workflows.settings import checked

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        HydraConfig.instance().set_config(self.config)  # which folders it searches, for who plans the jobs
        loader = SweepComposer(self.hydra_context.config_loader)
        self.hydra_context.config_loader = cast(ConfigLoader, loader)  # the launcher asks it, too
        folder = Path(self.config.hydra.sweep.dir)  # has the time in it, which jobs are composed with
        batch_size, points = self._batch_size(), self._points(arguments)
        for choice in dict.fromkeys(choice_and_values(point, self.config)[0] for point in points):
            self._compose(choice)  # so that whoever mistyped a name need not wait for PyTorch
        checked(self._compose(points[0]), SweepSettings)  # nor for Lightning: most mistakes are in each point

        from src.workflows import planning, reporting
        from src.workflows.quiet import quiet_libraries

        quiet_libraries()
        jobs = planning.plan_jobs(points, self._compose, self.config)
        pending = planning.begin(jobs, self.config, folder, arguments)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        try:
            return self._launch([list(job.overrides) for job in pending], batch_size)
        finally:
            reporting.collect(self.config, folder)

    def _points(self, arguments: list[str]) -> list[list[str]]:
        """The points of the command line and of ``hydra.sweeper.params``. The command line wins where it names a
        parameter, be it as ``eps=``, ``++eps=`` or ``~eps``."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(arguments)
        names = {override.key_or_group for override in overrides}
        defaults = parser.parse_overrides(self._parse_config())
        unnamed = [override for override in defaults if override.key_or_group not in names]
        return self.split_arguments(unnamed + overrides, None)[0]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def _batch_size(self) -> int | None:
        """How many jobs the launcher gets at a time; None for all.

        Submitit's local executor starts at once whatever it gets: unless told otherwise, that is what the cores carry.
        """
        from src.errors import UserError

        assert self.config is not None
        launcher, batch_size = self.config.hydra.launcher, self.max_batch_size
        if batch_size is None and launcher._target_.endswith(".LocalLauncher"):
            return max(1, (os.cpu_count() or 1) // (launcher.cpus_per_task or 1))
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise UserError(f"hydra.sweeper.max_batch_size={batch_size} is not a positive whole number or null")
        return batch_size

    def _launch(self, points: list[list[str]], batch_size: int | None) -> Any:
        """Run the jobs, batch after batch. One that failed has said so itself, and its cell is missing from the
        collection; a launcher that failed, because a worker process died, takes no later batch with it."""
        assert self.launcher is not None
        returns, begin = [], 0
        for batch in self.split_overrides_to_chunks(points, batch_size) if points else []:
            try:
                returns.append(self.launcher.launch(batch, initial_job_idx=begin))
            except Exception as error:
                log.error("launcher: %s: %s", type(error).__name__, " ".join(str(error).split()))
            begin += len(batch)
        return returns
