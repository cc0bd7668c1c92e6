"""Compute a cell, and the cells it is compared with, unless they are stored."""

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning
import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from src import __version__
from src.data.batches import BatchIndices
from src.errors import UserError
from src.evaluation.adversary import AdversarialStore, CleanSet
from src.evaluation.cell import Cell, CellSpec, TestSet
from src.evaluation.module import PurificationEvaluation
from src.evaluation.store import CellStore
from src.images import encode_images
from src.models.checkpoint import weights_fingerprint

#: Larger batches are slower on a CPU, where activations leave the cache; a GPU is idle with small ones.
BATCH_SIZE = {"cpu": 100, "cuda": 2000}

#: Means that the evaluation logs and a cell keeps.
MEANS = ("perturbation_l2", "perturbation_linf", "reconstruction_mse")


@dataclass
class Evaluator:
    """Computes cells. One for each process; what its cells share lives here.

    Args:
        cells: where cells are found and stored.
        adversarial: where attacked sets are found and stored.
        accelerator: Lightning's name of the device: "auto", "cpu", "gpu".
        batch_size: images a batch; None chooses by device. Changes results by no more than float rounding.
        callbacks: Lightning callbacks for every test run, such as a progress bar.
    """

    cells: CellStore
    adversarial: AdversarialStore
    accelerator: str = "auto"
    batch_size: int | None = None
    callbacks: Sequence[Callback] = ()

    def __call__(self, spec: CellSpec) -> Cell:
        """The cell of ``spec``, from the store or computed and stored.

        A cell quotes others: the same defense without attack, the same attack without defense, and under some
        protocols the classifier alone. They are cells of their own, and are computed first where they are missing.
        Of several processes that want one cell, one computes it while the others wait.

        Raises:
            UserError: something the user can mend: a missing checkpoint, a folder that cannot be written.
        """
        stored = self.cells.get(spec.key)
        if stored is not None:
            return stored
        clean = self._other(spec, spec.without_attack())
        undefended = self._other(spec, spec.without_defense())
        origin = self._other(spec, spec.without_attack().without_defense())
        with self.cells.lock(spec.key):
            stored = self.cells.get(spec.key)
            if stored is None:
                stored = self._compute(spec, clean, undefended, origin)
                self.cells.put(stored)
            return stored

    def rehearse(self, spec: CellSpec) -> None:
        """Take one image through ``spec``'s attack, defense and classifier, so that what cannot work is said at once.

        Raises:
            UserError: something failed, or there is no such device.
        """
        _trainer(self.accelerator, [])
        test, attack = spec.load_data(), partial(spec.attack, eps=spec.coordinates.eps)
        module = PurificationEvaluation(
            spec.load_classifier(),
            spec.load_defense(),
            attack if spec.coordinates.eps else None,
            test.num_classes,
            spec.threat,
        )
        try:
            with torch.random.fork_rng(), torch.no_grad():
                module.eval().attack_purify_classify(test.images[:1], test.labels[:1])
        except Exception as error:
            raise UserError(f"{spec.coordinates} fails on the first image: {' '.join(str(error).split())}") from error

    def _other(self, spec: CellSpec, other: CellSpec) -> Cell | None:
        return None if other.key == spec.key else self(other)

    def _compute(self, spec: CellSpec, clean: Cell | None, undefended: Cell | None, origin: Cell | None) -> Cell:
        """Evaluate ``spec`` and put its numbers beside those of the cells it quotes; None stands for itself."""
        test = spec.load_data()
        classifier = spec.load_classifier()
        before = weights_fingerprint(classifier.state_dict())
        module, metrics = self._test(spec, test, classifier)
        if weights_fingerprint(classifier.state_dict()) != before:
            raise RuntimeError("the evaluation changed the weights of the frozen classifier")
        right = module.predictions == test.labels
        if spec.protocol.clean_errors_count and origin is not None:
            right &= torch.tensor([outcome == "1" for outcome in origin.outcomes])
        outcomes = "".join("1" if each else "0" for each in right.tolist())
        accuracy = outcomes.count("1") / len(outcomes)
        return Cell(
            key=spec.key,
            coordinates=spec.coordinates,
            n=len(test.labels),
            outcomes=outcomes,
            predictions=module.predictions.tolist(),
            clean_accuracy=accuracy if clean is None else clean.accuracy,
            undefended_accuracy=accuracy if undefended is None else undefended.accuracy,
            stages=module.stages,
            identity=dict(spec.identity),
            examples=_examples(module, undefended),
            environment=_environment(module.ran_on),
            **{name: metrics[f"test/{name}"].item() for name in MEANS},
        )

    def _test(
        self, spec: CellSpec, test: TestSet, classifier: torch.nn.Module
    ) -> tuple[PurificationEvaluation, dict[str, Tensor]]:
        """Run ``Trainer.test``; returns the module with what it saw, and the means that it logged."""
        where = spec.coordinates
        trainer = _trainer(self.accelerator, list(self.callbacks))
        device = trainer.strategy.root_device
        x, y = test.images.to(device), test.labels.to(device)
        sharing = self.adversarial.share(spec, CleanSet(x, y)) if where.eps else nullcontext(None)
        with sharing as shared, torch.random.fork_rng(), _full_precision():
            module = PurificationEvaluation(classifier, spec.load_defense(), shared, test.num_classes, spec.threat).to(
                memory_format=torch.channels_last
            )
            torch.manual_seed(where.seed)
            trainer.test(module, _loader(x, y, self.batch_size or BATCH_SIZE[device.type]), verbose=False)
        return module, dict(trainer.callback_metrics)


def _trainer(accelerator: str, callbacks: list[Callback]) -> Trainer:
    """A trainer that keeps gradients possible and neither logs nor writes nor talks.

    Raises:
        UserError: there is no such device.
    """
    try:
        return Trainer(
            accelerator=accelerator,
            devices=1,
            inference_mode=False,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=bool(callbacks),
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"accelerator {accelerator}: {' '.join(str(error).split())}") from error


def _full_precision() -> AbstractContextManager[None]:
    """Convolutions in float32 on GPUs too, which would round their inputs to TensorFloat-32: a gradient's sign is a
    matter of its last digits."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


def _loader(x: Tensor, y: Tensor, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(x, y), sampler=BatchIndices(len(y), batch_size), batch_size=None)


def _examples(module: PurificationEvaluation, undefended: Cell | None) -> dict[str, Any]:
    """The first images as JSON: what they were, became and were taken for, with and without the defense."""
    seen = module.examples
    predictions = seen["predictions"].tolist()
    images = {name: encode_images(seen[name]) for name in ("original", "attacked", "purified")}
    return images | {
        "labels": seen["labels"].tolist(),
        "predictions": predictions,
        "undefended_predictions": predictions if undefended is None else undefended.predictions[: len(predictions)],
    }


def _environment(device: torch.device) -> dict[str, str]:
    """Versions and hardware a number was computed with."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "defense-vqvae": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "device": name,
    }
