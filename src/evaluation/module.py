"""The purification evaluation: attack → purify → classify → count, run by ``Trainer.test``."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from src.defended import DefendedClassifier, gray_box
from src.evaluation.adversary import Attack
from src.evaluation.cell import NO_CLASS
from src.images import EXAMPLES, check_purified

STAGES = ("attack", "purify", "classify")


def predicted(logits: Tensor) -> Tensor:
    """The class with the highest of the logits (N, K), (N,); :data:`NO_CLASS` where one of them is NaN, which torch's
    argmax would take for the highest."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), NO_CLASS)


class PurificationEvaluation(LightningModule):
    """How often ``classifier`` is right on attacked images that went through ``defense``.

    Run it with ``Trainer(inference_mode=False).test(module, loader)``: attacks need gradients. The loader yields
    (x, y) batches, x (N, C, H, W) in [0, 1], y (N,). Afterwards ``predictions`` (N,) and ``examples`` hold
    what was seen, and the trainer's ``callback_metrics`` the means, under ``test/…``.

    Args:
        classifier: x → logits (N, K); frozen here.
        defense: x → x̂ of the same shape; frozen here.
        attack: (model, x, y) → x_adv, its budget bound, e.g. ``partial(ifgsm, eps=0.3)``; None: no attack.
        num_classes: K.
        threat: which model the attack differentiates through, given (classifier, defense).
    """

    def __init__(
        self,
        classifier: nn.Module,
        defense: nn.Module,
        attack: Attack | None,
        num_classes: int,
        threat: Callable[[nn.Module, nn.Module], nn.Module] = gray_box,
    ) -> None:
        super().__init__()
        self.defended = DefendedClassifier(classifier, defense)
        self.attack, self.threat = attack, threat
        self.num_classes = num_classes
        self.accuracy, self.perturbation_l2, self.perturbation_linf = (MeanMetric() for _ in range(3))
        self.reconstruction_mse = MeanMetric(nan_strategy="ignore")
        self.stages = dict.fromkeys(STAGES, 0.0)
        self._predictions: list[Tensor] = []
        self.examples: dict[str, Tensor] = {}
        self.ran_on = torch.device("cpu")

    @property
    def predictions(self) -> Tensor:
        """Predicted classes of all images so far, (N,), int64; see :func:`predicted`."""
        return torch.cat(self._predictions)

    def on_test_start(self) -> None:
        self.stages = dict.fromkeys(STAGES, 0.0)
        self._predictions, self.examples, self.ran_on = [], {}, self.device

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self._measure(x, y, *self.attack_purify_classify(x, y))

    def attack_purify_classify(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One batch through the three stages. Attack and defense may write into what they are given: the tensors of the
        caller and those returned are others.

        Args:
            x: images (N, C, H, W) in [0, 1].
            y: labels (N,).

        Returns:
            attacked images and purified images, both (N, C, H, W), and logits (N, K).

        Raises:
            ValueError: the defense changed the shape, the classifier did not return (N, K), or a label is out of range.
        """
        if len(y) and not (y.min() >= 0 and y.max() < self.num_classes):
            raise ValueError(f"labels must be 0 to {self.num_classes - 1}; got {y.min()} to {y.max()}")
        with self._stage("attack"):
            x_adv = x if self.attack is None else self.attack(self.attacked, x.clone(), y.clone())
        with self._stage("purify"):
            x_hat = self.defended.defense(x_adv.clone())
        check_purified(x_hat, x)
        with self._stage("classify"):
            logits = self.defended.classifier(x_hat.clone())
        if logits.shape != (len(x), self.num_classes):
            raise ValueError(
                f"the classifier returned {tuple(logits.shape)}, not logits ({len(x)}, {self.num_classes})"
            )
        return x_adv, x_hat, logits

    @cached_property
    def attacked(self) -> nn.Module:
        """What the attack differentiates through."""
        return self.threat(self.defended.classifier, self.defended.defense)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Adds the seconds spent inside to a stage; waits for the GPU, whose calls return before their work is done."""
        begin = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.stages[name] += time.perf_counter() - begin

    def _measure(self, x: Tensor, y: Tensor, x_adv: Tensor, x_hat: Tensor, logits: Tensor) -> None:
        predictions = predicted(logits)
        if not self._predictions:
            shown = {
                "original": x,
                "attacked": x_adv,
                "purified": x_hat,
                "labels": y,
                "predictions": predictions,
                "confidences": logits.softmax(1).amax(1).nan_to_num(0),
            }
            # Copies: a defense may hand out the same memory again and again
            self.examples = {name: tensor[:EXAMPLES].detach().clone().cpu() for name, tensor in shown.items()}
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
