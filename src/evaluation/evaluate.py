"""Compute a cell, and the cells it is compared with, unless they are stored."""

import logging
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lightning
import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from src import __version__
from src.data.batches import BatchIndices
from src.defended import DefendedClassifier
from src.defenses import Identity
from src.errors import UserError
from src.evaluation.adversary import AdversarialStore, Attack, CleanSet, Recording, Replay
from src.evaluation.cell import Cell, CellSpec, TestSet
from src.evaluation.diagnosis import diagnose
from src.evaluation.model_checks import PROBED, check_model, frozen
from src.evaluation.module import PurificationEvaluation
from src.evaluation.store import CellStore
from src.evaluation.suite import WorstCase, worst_case
from src.images import encode_images

log = logging.getLogger(__name__)

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
    _diagnoses: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by the key of the attacker's view

    def __call__(self, spec: CellSpec) -> Cell:
        """The cell of ``spec``, from the store or computed and stored.

        A cell quotes others: the same defense without attack, the same attack without defense, and under some
        protocols the classifier alone. They are cells of their own, and are computed first where they are missing;
        so are the members of a worst case. Of several processes that want one cell, one computes it while the others
        wait.

        Raises:
            UserError: something the user can mend: a missing checkpoint, a folder that cannot be written.
        """
        stored = self.cells.get(spec.key)
        if stored is not None:
            return stored
        clean = self._other(spec, spec.without_attack())
        undefended = self._other(spec, spec.without_defense())
        origin = self._other(spec, spec.without_attack().without_defense())
        members = {name: self._member(member) for name, member in spec.members.items()}
        with self.cells.lock(spec.key):
            stored = self.cells.get(spec.key)
            if stored is None:
                worst = worst_case(members) if members else None
                stored = self._compute(spec, clean, undefended, origin, worst)
                self.cells.put(stored)
            return stored

    def rehearse(self, spec: CellSpec) -> None:
        """Check ``spec``'s classifier and defense (:func:`src.evaluation.model_checks.check_model`), and take one image
        through its attack, or those of its members, so that what cannot work is said at once.

        Raises:
            UserError: something failed, or there is no such device.
        """
        trainer_on(self.accelerator, [])
        if spec.members:
            for member in spec.members.values():
                self.rehearse(member)
            return
        test, where = spec.load_data(), spec.coordinates
        attack = Recording(partial(spec.attack, eps=where.eps), where.eps, where.seed) if where.eps else None
        classifier, defense = spec.load_classifier(), spec.load_defense()
        module = PurificationEvaluation(classifier, defense, attack, test.num_classes, spec.threat).eval()
        try:
            with torch.random.fork_rng(), torch.no_grad(), frozen(classifier=classifier, defense=defense):
                check_model(classifier, defense, test.images[:PROBED], test.num_classes)
                module.attack_purify_classify(test.images[:1], test.labels[:1])
        except Exception as error:
            raise UserError(f"{where} fails on the first images: {' '.join(str(error).split())}") from error

    def _member(self, spec: CellSpec) -> Cell:
        """A member of a worst case, told of if it had to be computed: a suite takes long, and has no line of its own
        until its end."""
        known = self.cells.get(spec.key) is not None
        cell = self(spec)
        if not known:
            log.info("  %s: %.2f%% of %d", spec.coordinates, 100 * cell.accuracy, cell.n)
        return cell

    def _other(self, spec: CellSpec, other: CellSpec) -> Cell | None:
        return None if other.key == spec.key else self(other)

    def _compute(
        self,
        spec: CellSpec,
        clean: Cell | None,
        undefended: Cell | None,
        origin: Cell | None,
        worst: WorstCase | None,
    ) -> Cell:
        """Evaluate ``spec`` and put its numbers beside those of the cells it quotes; None stands for itself."""
        test, classifier, defense = spec.load_data(), spec.load_classifier(), spec.load_defense()
        with frozen(classifier=classifier, defense=defense):
            module, metrics, attacker = self._test(spec, test, classifier, defense, worst)
        means = {name: metrics[f"test/{name}"].item() for name in MEANS}
        if not math.isfinite(means["reconstruction_mse"]):
            raise UserError(f"{spec.coordinates}: the defense returned pixels that are not finite in every image")
        outcomes = worst.outcomes if worst else _outcomes(spec, module.predictions == test.labels, origin)
        accuracy = outcomes.count("1") / len(outcomes)
        return Cell(
            key=spec.key,
            coordinates=spec.coordinates,
            n=len(test.labels),
            outcomes=outcomes,
            predictions=worst.predictions if worst else module.predictions.tolist(),
            clean_accuracy=accuracy if clean is None else clean.accuracy,
            undefended_accuracy=accuracy if undefended is None else undefended.accuracy,
            stages=module.stages,
            identity=dict(spec.identity),
            examples=_examples(module, undefended),
            environment=_environment(module.ran_on),
            per_class=_per_class(outcomes, test),
            attacker=attacker,
            members=worst.members if worst else {},
            **means,
        )

    def _test(
        self, spec: CellSpec, test: TestSet, classifier: nn.Module, defense: nn.Module, worst: WorstCase | None
    ) -> tuple[PurificationEvaluation, dict[str, Tensor], dict[str, Any]]:
        """Run ``Trainer.test``; returns the module with what it saw, the means that it logged, and what there is to
        say of the attacker."""
        where = spec.coordinates
        trainer = trainer_on(self.accelerator, list(self.callbacks))
        device = trainer.strategy.root_device
        x, y = test.images.to(device), test.labels.to(device)
        batch_size = self.batch_size or BATCH_SIZE.get(device.type, BATCH_SIZE["cpu"])
        with self._attack(spec, classifier, CleanSet(x, y), batch_size, worst) as attack, _evaluating():
            module = PurificationEvaluation(classifier, defense, attack, test.num_classes, spec.threat)
            module.to(memory_format=torch.channels_last)
            torch.manual_seed(where.seed)
            trainer.test(module, _loader(x, y, batch_size), verbose=False)
            attacker: dict[str, Any] = {}
            if where.eps:
                attacker = {"family": spec.family, "knows_defense": spec.knows_defense}
                attacker |= self._diagnosis(spec, module.to(device), x, y)
        return module, dict(trainer.callback_metrics), attacker

    def _diagnosis(self, spec: CellSpec, module: PurificationEvaluation, x: Tensor, y: Tensor) -> dict[str, Any]:
        """What there is to say of the model that the attacker sees; looked at once for all attacks and eps."""
        if spec.view_key not in self._diagnoses:
            seen_defense = module.defended.defense if spec.knows_defense else Identity()
            self._diagnoses[spec.view_key] = diagnose(module.attacked, seen_defense, x, y)
        return self._diagnoses[spec.view_key]

    @contextmanager
    def _attack(
        self, spec: CellSpec, classifier: nn.Module, clean: CleanSet, batch_size: int, worst: WorstCase | None
    ) -> Iterator[Attack | None]:
        """The attack of a cell, to be called batch by batch: none, its own, or what its members made."""
        if not spec.coordinates.eps:
            yield None
        elif worst is None:
            with self.adversarial.share(spec, clean) as attack:
                yield attack
        else:
            yield Replay(self._worst_images(spec, classifier, clean, batch_size, worst))

    def _worst_images(
        self, spec: CellSpec, classifier: nn.Module, clean: CleanSet, batch_size: int, worst: WorstCase
    ) -> Tensor:
        """Each image as the attack that was chosen for it left it: usually stored, else made again."""
        images = clean.images.clone()
        for name, member in spec.members.items():
            mask = torch.tensor([chosen == name for chosen in worst.chosen], device=images.device)
            if not mask.any():
                continue
            with self.adversarial.share(member, clean) as attack, _evaluating():
                defended = DefendedClassifier(classifier, spec.load_defense())
                defended.to(images.device).to(memory_format=torch.channels_last)
                model = member.threat(defended.classifier, defended.defense)
                pairs = zip(clean.images.split(batch_size), clean.labels.split(batch_size), strict=True)
                attacked = torch.cat([attack(model, x, y) for x, y in pairs])
            images[mask] = attacked[mask]
        return images


def _outcomes(spec: CellSpec, right: Tensor, origin: Cell | None) -> str:
    """``right`` (N,) as a cell keeps it, counted as the protocol says; ``origin`` is the classifier's clean cell."""
    if spec.protocol.clean_errors_count and origin is not None:
        right = right & torch.tensor([outcome == "1" for outcome in origin.outcomes])
    return "".join("1" if each else "0" for each in right.tolist())


def _per_class(outcomes: str, test: TestSet) -> list[list[int]]:
    """(images counted as correct, images) of each class."""
    images = torch.bincount(test.labels, minlength=test.num_classes)
    right = torch.tensor([outcome == "1" for outcome in outcomes])
    correct = torch.bincount(test.labels[right], minlength=test.num_classes)
    return torch.stack([correct, images], dim=1).tolist()


@contextmanager
def _evaluating() -> Iterator[None]:
    """Full precision, and a random stream of its own."""
    with torch.random.fork_rng(), full_precision():
        yield


def trainer_on(accelerator: str, callbacks: list[Callback]) -> Trainer:
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


def full_precision() -> AbstractContextManager[None]:
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
        "confidences": [round(confidence, 4) for confidence in seen["confidences"].tolist()],
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
