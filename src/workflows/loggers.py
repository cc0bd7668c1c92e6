"""Where training runs and cells are logged."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from src.errors import UserError
from src.reporting.wandb.settings import WandbSettings
from src.training_record import TrainingRecord

INSTALL = "pip install --editable '.[tensorboard]' --constraint constraints.txt"


@dataclass(frozen=True)
class Training:
    """What a logger may want to know of a training before it starts."""

    name: str  #: for people: ``vqvae noise 0.5 seed 0``
    stem: str  #: for files: that of the checkpoint, ``vqvae-noise0.5``
    data: str
    config: dict[str, Any]  #: what was asked for, by flat names


@contextmanager
def opened(made: Any, training: Training) -> Iterator[list[Logger]]:
    """The loggers of a training, told of its configuration, and kept open meanwhile.

    Args:
        made: what a ``training`` of ``conf/logger`` came to: a Lightning logger; None; or, where it says
            ``_partial_: true``, a function of :class:`Training` to a logger or to a context that gives one or None.
        training: what they are for.
    """
    context = made(training) if isinstance(made, partial) else made
    with context if isinstance(context, AbstractContextManager) else nullcontext(context) as logger:
        if logger is not None:
            logger.log_hyperparams(training.config)
        yield [] if logger is None else [logger]


def wandb_logger(training: Training, settings: WandbSettings) -> AbstractContextManager[Logger | None]:
    """A Lightning logger that writes below ``settings.folder``/wandb and is offline unless a key is configured."""
    from src.reporting.wandb.training import training_run

    return training_run(training.name, training.data, training.config, settings)


def csv_logger(training: Training, folder: str) -> Logger:
    """Lightning's: ``metrics.csv`` and ``hparams.yaml`` in ``<folder>/<stem>/version_<N>``."""
    return CSVLogger(folder, name=training.stem)


def tensorboard_logger(training: Training, folder: str) -> Logger:
    """Lightning's, with images and hyper-parameters: event files in ``<folder>/<stem>/version_<N>``.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        return ImagesOnTensorBoard(folder, name=training.stem, default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise UserError(f"logger=tensorboard needs the package tensorboard: {INSTALL}") from error


class ImagesOnTensorBoard(TensorBoardLogger):
    """Takes images as Lightning's logger for W&B does, and notes at the end what the hyper-parameters led to."""

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Images side by side: arrays (H, W) or (H, W, C) in [0, 1]."""
        rows = [torch.as_tensor(image) for image in images]
        batch = torch.stack([row if row.ndim == 3 else row.unsqueeze(-1) for row in rows])  # (N, H, W, C)
        self.experiment.add_images(key, batch, step, dataformats="NHWC")

    @rank_zero_only
    def log_trained(self, checkpoint: Path, record: TrainingRecord) -> None:
        """The last epoch's metrics beside the hyper-parameters, which TensorBoard compares runs by."""
        last = record.epochs[-1]
        metrics = {f"final/{name}": value for name, value in last.items() if name.startswith("val/")}
        self.log_hyperparams(dict(self.hparams), metrics, step=int(last["step"]))
        self.finalize("success")
