"""The purification evaluation: purify → classify → count, run by ``Trainer.test`` over attacked images."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.defended import DefendedClassifier
from src.encoded_images import EXAMPLES
from src.evaluation.cell import NO_CLASS
from src.images import check_purified


def predicted(logits: Tensor) -> Tensor:
    """The class with the highest of the logits (N, K), (N,); :data:`NO_CLASS` where one of them is NaN, which torch's
    argmax would take for the highest."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), NO_CLASS)


class PurificationEvaluation(LightningModule):
    """How often ``classifier`` is right on attacked images that went through ``defense``.

    Run it with ``Trainer().test(module, loader)``. The loader yields batches (x, x_adv, y): clean and attacked images
    (N, C, H, W) in [0, 1], and labels (N,). Afterwards ``predictions`` (N,) and ``examples`` hold what was seen, and
    the trainer's ``callback_metrics`` the means, under ``test/…``.

    Args:
        classifier: x → logits (N, K); frozen here.
        defense: x → x̂ of the same shape; frozen here.
        num_classes: K.
    """

    def __init__(self, classifier: nn.Module, defense: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.defended = DefendedClassifier(classifier, defense)
        self.num_classes = num_classes
        self.accuracy, self.perturbation_l2, self.perturbation_linf = (MeanMetric() for _ in range(3))
        self.reconstruction_mse = MeanMetric(nan_strategy="ignore")
        self.on_test_start()

    @property
    def predictions(self) -> Tensor:
        """Predicted classes of all images so far, (N,), int64; see :func:`predicted`."""
        return torch.cat(self._predictions)

    def on_test_start(self) -> None:
        """Forget what was seen before."""
        self.stages = {"purify": 0.0, "classify": 0.0}
        self._predictions: list[Tensor] = []
        self.examples: dict[str, Tensor] = {}
        self.ran_on = self.device

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        x, x_adv, y = batch
        if len(y) and not (y.min() >= 0 and y.max() < self.num_classes):
            raise ValueError(f"labels must be 0 to {self.num_classes - 1}; got {y.min()} to {y.max()}")
        self._measure(x, x_adv, y, *self.purify_and_classify(x_adv))

    def purify_and_classify(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Purified images (N, C, H, W) and logits (N, K) of attacked images (N, C, H, W). Defense and classifier may
        write into what they are given: the tensors of the caller and those returned are others.

        Raises:
            ValueError: the defense changed the shape, or the classifier did not return (N, K).
        """
        with self._stage("purify"):
            x_hat = self.defended.defense(x_adv.clone())
        check_purified(x_hat, x_adv)
        with self._stage("classify"):
            logits = self.defended.classifier(x_hat.clone())
        if logits.shape != (len(x_adv), self.num_classes):
            raise ValueError(
                f"the classifier returned {tuple(logits.shape)}, not logits ({len(x_adv)}, {self.num_classes})"
            )
        return x_hat, logits

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to a stage; waits for the GPU, whose calls return before their work is done."""
        begin = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.stages[name] += time.perf_counter() - begin

    def _measure(self, x: Tensor, x_adv: Tensor, y: Tensor, x_hat: Tensor, logits: Tensor) -> None:
        predictions = predicted(logits)
        if not self._predictions:
            tensors = {
                "original": x,
                "attacked": x_adv,
                "purified": x_hat,
                "labels": y,
                "predictions": predictions,
                "confidences": logits.softmax(1).amax(1).nan_to_num(0),
            }
            # Copies: a defense may hand out the same memory again and again
            self.examples = {name: tensor[:EXAMPLES].detach().clone().cpu() for name, tensor in tensors.items()}
        self._predictions.append(predictions.cpu())
        difference = (x_adv - x).flatten(1)
        self.accuracy((predictions == y).float())
        self.perturbation_l2(difference.norm(dim=1))
        self.perturbation_linf(difference.abs().amax(1))
        mse = (x_hat - x).square().flatten(1).mean(1)
        self.reconstruction_mse(mse.where(mse.isfinite(), torch.nan))  # the mean is over the others
        metrics: dict[str, Any] = {
            "test/accuracy": self.accuracy,
            "test/perturbation_l2": self.perturbation_l2,
            "test/perturbation_linf": self.perturbation_linf,
            "test/reconstruction_mse": self.reconstruction_mse,
        }
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(x))
