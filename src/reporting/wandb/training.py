"""Weights & Biases: a run for every training."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from src.reporting.wandb.artifacts import Weights, log_weights
from src.reporting.wandb.names import STEP
from src.reporting.wandb.session import RunPlan, environment_kept, harmless, start
from src.reporting.wandb.settings import WandbSettings, resolve_mode
from src.training_record import TrainingRecord

if TYPE_CHECKING:  # see wandb_session
    from wandb import Run


class TrainingLogger(WandbLogger):
    """Lightning's logger for a run that is open already, which is told what the training came to."""

    def __init__(self, run: "Run", settings: WandbSettings) -> None:
        super().__init__(experiment=run, project=settings.project, save_dir=settings.folder)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)

    @rank_zero_only
    def log_trained(self, checkpoint: Path, record: TrainingRecord) -> None:
        """Log the weights as an artifact, their fingerprint as config and the time they took as summary."""
        run = self.experiment
        with harmless(str(checkpoint)):
            run.config.update({"weights": record.weights})
            run.summary.update({"training_seconds": record.seconds})
        log_weights(run, Weights(checkpoint, record))


@contextmanager
def training_run(
    name: str, data: str, config: Mapping[str, Any], settings: WandbSettings
) -> Iterator[TrainingLogger | None]:
    """A logger whose run is open meanwhile, and is finished in any case: as failed if an exception comes through.

    Unlike a cell a training that is repeated is another one, with a run of its own.

    Args:
        name: of the run; ``WANDB_NAME`` comes first, and ``WANDB_RUN_ID`` is heeded.
        data: name of the data set; all trainings on it make a group.
        config: what was asked for, by flat names.
        settings: where to.

    Yields:
        None if W&B is switched off or does not start: that costs a line of warning, not the training.
    """
    plan = RunPlan(
        content={},
        name=os.environ.get("WANDB_NAME") or name,
        job_type="train",
        group=f"{data}-training",
        config=dict(config),
        watched=True,
    )
    with environment_kept(settings):
        run, exit_code = None, 1
        with harmless(name):
            if resolve_mode(settings.mode) != "disabled":
                run = start(os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8], plan, settings)
        try:
            yield TrainingLogger(run, settings) if run else None
            exit_code = 0
        finally:
            if run:
                with harmless(name):
                    run.finish(exit_code=exit_code)
