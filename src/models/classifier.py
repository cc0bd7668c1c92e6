"""The classifier under protection."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.traceable import TraceableModule


class Classifier(TraceableModule):
    """The report's network: conv3×3(32) – conv3×3(64) – max-pool – 128 – logits, with dropout; no normalization.

    Trained by cross-entropy with Adam; the learning rate is cut to a tenth when the validation loss stalls.

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, ≥ 6.
        num_classes: K.
        widths: channels of the two convolutions.
        hidden: width of the dense layer.
        dropout: probabilities after the max-pool and after the dense layer.
        lr: Adam's initial learning rate.
        patience: epochs without improvement of val/loss before the cut.
    """

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int = 10,
        widths: tuple[int, int] = (32, 64),
        hidden: int = 128,
        dropout: tuple[float, float] = (0.25, 0.5),
        lr: float = 2e-4,
        patience: int = 2,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.patience = lr, patience
        pooled = (image_size - 4) // 2
        self.network = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 3),
            nn.MaxPool2d(2),  # before the ReLU: the same function, as both are monotonous, on a quarter of the values
            nn.ReLU(),
            nn.Dropout(dropout[0]),
            nn.Flatten(),
            nn.Linear(widths[1] * pooled**2, hidden),
            nn.ReLU(),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images ``x`` (N, C, H, W) in [0, 1]."""
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._loss(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._loss(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Step the scheduler here, not where Lightning would, after the epoch's checkpoint is written: a run resumed
        from that checkpoint would have missed a step."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.lr_schedulers().step(self.trainer.callback_metrics["val/loss"])  # type: ignore[union-attr]

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._loss(batch, "test")

    def _loss(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        accuracy = (logits.argmax(1) == y).float().mean()
        step = stage == "train"
        self.log(f"{stage}/loss", loss, on_step=step, on_epoch=not step, sync_dist=not step, batch_size=len(x))
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(x))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience)
        never = 2**31  # the module steps it itself, see on_validation_epoch_end
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss", "frequency": never},
        }
