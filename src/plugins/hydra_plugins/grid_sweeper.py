"""The sweeper behind ``python -m src.sweep -m``.

Hydra looks for sweepers in the namespace package ``hydra_plugins`` and nowhere else; ``src.sweep`` puts the folder
above this one on the path. Command line and configuration are those of Hydra's basic sweeper, which this one differs
from in four ways: every point is checked before the first is computed, points that come to the same cell or to a
stored one are not launched, what jobs have in common is composed once, and the cells are collected into a report
whatever happened to the jobs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


class GridSweeper(BasicSweeper):
    """Expands the cartesian product of the command line and ``hydra.sweeper.params`` into a grid of cells."""

    def sweep(self, arguments: list[str]) -> Any:
        from src.workflows import sweeping
        from src.workflows.composing import SweepComposer
        from src.workflows.quiet import quiet_libraries

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        loader = SweepComposer(self.hydra_context.config_loader)
        self.hydra_context.config_loader = cast(ConfigLoader, loader)  # the launcher asks it, too
        quiet_libraries()
        folder = Path(self.config.hydra.sweep.dir)
        jobs = sweeping.plan_jobs(self._points(arguments), self._compose, self.config)
        pending = sweeping.begin(jobs, self.config, folder)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        try:
            return self._launch([job.overrides for job in pending])
        finally:
            sweeping.collect(self.config, folder)

    def _points(self, arguments: list[str]) -> list[list[str]]:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(self._parse_config() + arguments)
        return self.split_arguments(overrides, None)[0]

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def _launch(self, points: list[tuple[str, ...]]) -> Any:
        """Run the jobs. One that failed has said so itself, and its cell is missing from the collection."""
        assert self.launcher is not None
        return [self.launcher.launch([list(point) for point in points], initial_job_idx=0)] if points else []
