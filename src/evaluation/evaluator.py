"""Compute a cell, and the cells it is compared with, unless they are stored."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from src.attacks.verdict import PROBED, is_random
from src.data.batches import BatchIndices
from src.encoded_images import encode_images
from src.environment import environment_of
from src.errors import UserError, in_code_of_the_users
from src.evaluation.attacking import AttackedModel, AttackedSet, AttackedSets, attack_images
from src.evaluation.cell import Cell
from src.evaluation.components import Components, TestSet
from src.evaluation.diagnosis import diagnose
from src.evaluation.model_checks import check_model, frozen
from src.evaluation.module import PurificationEvaluation
from src.evaluation.proofs import Proofs, UnprovableError, nothing_proved
from src.evaluation.propagations import Propagations
from src.evaluation.spec import CERTIFICATE, MAJORITY, CellSpec
from src.evaluation.store import CellStore
from src.evaluation.verdicts import judged
from src.evaluation.worst_case import WorstCase, worst_case
from src.randomness import random_streams_kept, reseed

log = logging.getLogger(__name__)

#: Larger batches are slower on a CPU, where activations leave the cache; a GPU is idle with small ones.
BATCH_SIZE = {"cpu": 100, "cuda": 2000}

#: Images that a random model answers at once where it answers several times, whatever the batch size: it may draw other
#: numbers for a batch of another size. That of a CPU, so that there the first answer is that of ``verdict=single``.
ANSWERED = BATCH_SIZE["cpu"]

#: Between the seeds of two answers of a random model: a prime, far from any multiple of another seed.
STRIDE = 1_000_003

#: Means that the evaluation logs and a cell keeps.
MEANS = ("perturbation_l2", "perturbation_linf", "reconstruction_mse")


@dataclass
class Evaluator:
    """Computes cells. One for each process; what its cells share lives here.

    Args:
        components: loads and builds what specs name.
        cells: where cells are found and stored.
        attacked: where attacked sets are found and stored.
        accelerator: Lightning's name of the device: "auto", "cpu", "gpu".
        batch_size: images a batch; None chooses by device. Changes results by no more than float rounding; where a
            defense or an attack draws random numbers, by another draw.
        callbacks: Lightning callbacks for every test run, such as a progress bar.
    """

    components: Components
    cells: CellStore
    attacked: AttackedSets
    accelerator: str = "auto"
    batch_size: int | None = None
    callbacks: Sequence[Callback] = ()
    _diagnoses: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by the key of the attacker's view
    _trainers: dict[str, Trainer] = field(default_factory=dict)  #: by accelerator

    def __call__(self, spec: CellSpec) -> Cell:
        """The cell of ``spec``, from the store or computed and stored.

        A cell quotes others: the same defense without attack, the same attack without defense, and under some
        protocols the classifier alone. They are cells of their own, and are computed first where they are missing;
        so are the members of a worst case. Of several processes that want one cell, one computes it while the others
        wait.

        Raises:
            UserError: something the user can mend: a missing checkpoint, a folder that cannot be written.
        """
        return self.cells.get_or_make(spec.key, lambda: self._compute(spec))

    def rehearse(self, spec: CellSpec) -> None:
        """Check ``spec``'s classifier and defense (:func:`src.evaluation.model_checks.check_model`), and take one image
        through its attack, or those of its members, so that what cannot work is said at once.

        Raises:
            UserError: something failed, or there is no such device.
        """
        self._trainer(self.accelerator)
        if spec.members:
            for member in spec.members.values():
                self.rehearse(member)
            return
        try:
            self._try_out(spec)
        except Exception as error:
            place = in_code_of_the_users(error)
            where = f" ({place})" if place else ""
            reason = " ".join(str(error).split())
            raise UserError(f"{spec.coordinates} fails on the first images: {reason}{where}") from error

    def _try_out(self, spec: CellSpec) -> None:
        test, classifier, defense = self._loaded(spec)
        x, y = test.images[:1], test.labels[:1]
        with random_streams_kept(), torch.no_grad(), frozen(classifier=classifier, defense=defense):
            check_model(classifier, defense, test.images, test.num_classes)
            module = PurificationEvaluation(classifier, defense, test.num_classes)
            if spec.is_proof:
                self._prove(spec, classifier, defense, TestSet(x, y, test.num_classes))
            elif spec.eps:
                model = AttackedModel.of(spec, self.components, classifier, defense)
                x, _ = attack_images(spec, model, x, y, batch_size=1)
            module.purify_and_classify(x)

    def _trainer(self, accelerator: str) -> Trainer:
        """One for all cells: making one takes as long as a small cell."""
        if accelerator not in self._trainers:
            self._trainers[accelerator] = trainer_on(accelerator, list(self.callbacks))
        return self._trainers[accelerator]

    def _loaded(self, spec: CellSpec) -> tuple[TestSet, nn.Module, nn.Module]:
        """The images, the classifier and the defense of a spec."""
        parts = self.components
        return parts.images(spec.data), parts.classifier(spec.classifier), parts.build(spec.defense.component)

    def _quoted(self, spec: CellSpec, other: CellSpec) -> Cell | None:
        """The cell ``other``; None if it is the one that quotes it."""
        return None if other.key == spec.key else self(other)

    def _member(self, spec: CellSpec) -> Cell:
        """A member of a worst case. It is logged if it had to be computed: a suite takes long, and logs nothing else
        until its end."""
        is_stored = self.cells.get(spec.key) is not None
        cell = self(spec)
        if not is_stored:
            log.info("  %s: %.2f%% of %d", spec.coordinates, 100 * cell.accuracy, cell.n)
        return cell

    def _compute(self, spec: CellSpec) -> Cell:
        """Evaluate ``spec`` and put its numbers beside those of the cells it quotes."""
        clean = self._quoted(spec, spec.without_attack())
        undefended = None if spec.is_proof else self._quoted(spec, spec.without_defense())
        origin = self._quoted(spec, spec.without_attack().without_defense())
        members = {name: self._member(member) for name, member in spec.members.items()}
        worst = worst_case(members) if members else None
        test, classifier, defense = self._loaded(spec)
        with frozen(classifier=classifier, defense=defense), random_streams_kept(), full_precision():
            run = self._run(spec, test, classifier, defense, worst)
            bare = _undefended(run.module, classifier, undefended, spec)
        right = run.right if worst is None else torch.from_numpy(worst.right)
        if spec.protocol.clean_errors_count and origin is not None:
            right = right & torch.from_numpy(origin.right)
        accuracy = int(right.sum()) / len(right)
        return Cell(
            key=spec.key,
            coordinates=spec.coordinates,
            n=len(test.labels),
            outcomes="".join("1" if correct else "0" for correct in right.tolist()),
            predictions=(run.predictions if worst is None else worst.predictions).tolist(),
            clean_accuracy=accuracy if clean is None else clean.accuracy,
            undefended_accuracy=0.0 if spec.is_proof else accuracy if undefended is None else undefended.accuracy,
            stages=run.stages,
            identity=spec.identity,
            examples=_examples(run.module, bare),
            environment=environment_of(run.module.ran_on),
            per_class=_per_class(right, test),
            attacker=run.attacker,
            members=worst.members if worst else {},
            propagations=_propagations(run.propagations, members.values()),
            **run.means,  # type: ignore[arg-type]  # names of MEANS, none of them of a field that is no number
        )

    def _run(
        self, spec: CellSpec, test: TestSet, classifier: nn.Module, defense: nn.Module, worst: WorstCase | None
    ) -> "_Run":
        """Attack or prove, look at what the attacker saw, then measure by ``Trainer.test``, which leaves the networks
        on the CPU."""
        trainer = self._trainer("cpu" if spec.is_proof else self.accelerator)
        device = trainer.strategy.root_device
        x, y = test.images.to(device), test.labels.to(device)
        batch_size = self.batch_size or BATCH_SIZE.get(device.type, BATCH_SIZE["cpu"])
        module = PurificationEvaluation(classifier, defense, test.num_classes)
        module.to(device).to(memory_format=torch.channels_last)
        proof = self._prove(spec, classifier, defense, test) if spec.is_proof else None
        attacked, attacker = AttackedSet(x, None), {}
        if proof is not None:
            attacked = AttackedSet(proof.witnesses, None, proof.seconds)
            attacker = {"family": CERTIFICATE} | proof.statistics
        elif spec.eps:
            attacked = self._attacked(spec, classifier, defense, x, y, batch_size, worst)
            attacker = self._attacker(spec, classifier, defense, x, y)
        several = worst is None and not spec.verdict.is_single  # members of a worst case have had their verdicts
        loader = _loader(x, attacked.images, y, ANSWERED if several else batch_size)
        others, voting = self._other_answers(spec, module, trainer, loader) if several else ([], {})
        reseed(spec.seed + STRIDE)  # an attacker who draws from the seed's own stream must not know this noise
        trainer.test(module, loader, verbose=False)
        predictions = judged(torch.stack([module.predictions, *others]), test.labels, spec.verdict.name)
        means = {name: trainer.callback_metrics[f"test/{name}"].item() for name in MEANS}
        if not math.isfinite(means["reconstruction_mse"]):
            raise UserError(f"{spec.coordinates}: the defense returned pixels that are not finite in every image")
        stages = {name: seconds + voting.get(name, 0.0) for name, seconds in module.stages.items()}
        stages = {"attack": attacked.seconds} | stages
        right = predictions == test.labels
        if proof is not None:
            proof.check(predictions, test.labels)
            right = proof.proved
        return _Run(module, predictions, right, means, stages, attacker, attacked.propagations)

    def _other_answers(
        self, spec: CellSpec, module: PurificationEvaluation, trainer: Trainer, loader: DataLoader[tuple[Tensor, ...]]
    ) -> tuple[list[Tensor], Mapping[str, float]]:
        """The classes (N,) of all answers but the first, and the seconds in each stage that a defense which votes takes
        for them; an attacker who asks again pays himself. Each answer has a random stream of its own, so that none
        depends on how many there are. A model that is not random is not asked again."""
        images = loader.dataset[:PROBED][1]
        if not is_random(module.defended.to(images.device), images):
            return [], {}
        answers, seconds = [], Counter[str]()
        for number in range(2, spec.verdict.samples + 1):
            reseed(spec.seed + number * STRIDE)
            trainer.test(module, loader, verbose=False)
            answers.append(module.predictions)
            seconds.update(module.stages)
        return answers, seconds if spec.verdict.name == MAJORITY else {}

    def _prove(self, spec: CellSpec, classifier: nn.Module, defense: nn.Module, test: TestSet) -> Proofs:
        """Which images are proved; none of a defense that the program has no proof for."""
        try:
            return self.components.build(spec.attack.component)(
                classifier, defense, test, spec.eps, track=self.attacked.track
            )
        except UnprovableError as error:
            log.warning("%s: %s", spec.coordinates, error)
            return nothing_proved(test, spec.eps, str(error))

    def _attacked(
        self,
        spec: CellSpec,
        classifier: nn.Module,
        defense: nn.Module,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        worst: WorstCase | None,
    ) -> AttackedSet:
        """The attacked set of a cell. For a worst case each image comes from the attack that was chosen for it: usually
        stored, else made again."""
        if worst is None:
            model = AttackedModel.of(spec, self.components, classifier, defense)
            return self.attacked.get_or_make(spec, model, x, y, batch_size)
        images, seconds = x.clone(), 0.0
        for number, member in enumerate(spec.members.values()):
            if (worst.chosen == number).any():
                attacked = self._attacked(member, classifier, defense, x, y, batch_size, None)
                mask = torch.from_numpy(worst.chosen == number).to(x.device)
                images[mask], seconds = attacked.images[mask], seconds + attacked.seconds
        return AttackedSet(images, None, seconds)

    def _attacker(
        self, spec: CellSpec, classifier: nn.Module, defense: nn.Module, x: Tensor, y: Tensor
    ) -> dict[str, Any]:
        """What :class:`src.evaluation.cell.Attacker` lists. A model is diagnosed once for all attacks and eps."""
        if spec.view_key not in self._diagnoses:
            model = AttackedModel.of(spec, self.components, classifier, defense)
            self._diagnoses[spec.view_key] = diagnose(model.view, model.known_defense, x, y)
        description = {"family": spec.attack.family, "knows_defense": spec.threat.knows_defense}
        return description | self._diagnoses[spec.view_key]


@dataclass(frozen=True)
class _Run:
    """What an evaluation saw."""

    module: PurificationEvaluation
    predictions: Tensor  #: the class that counts for each image, (N,), int64
    right: Tensor  #: whether it is the image's own, or of a proof, whether that is proved; (N,), bool
    means: dict[str, float]  #: by :data:`MEANS`
    stages: dict[str, float]  #: seconds
    attacker: dict[str, Any]
    propagations: Propagations | None  #: that the attack cost; None for a worst case, and where it is not known


def _propagations(own: Propagations | None, members: Iterable[Cell]) -> dict[str, int]:
    """What a cell's attack cost, or all attacks of a worst case together; empty where that is not known."""
    parts = [asdict(own)] if own else [member.propagations for member in members]
    if not parts or not all(parts):
        return {}
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _per_class(right: Tensor, test: TestSet) -> list[list[int]]:
    """(images counted as correct, images) of each class; ``right`` (N,), bool."""
    images = torch.bincount(test.labels, minlength=test.num_classes)
    correct = torch.bincount(test.labels[right], minlength=test.num_classes)
    return torch.stack([correct, images], dim=1).tolist()


def trainer_on(accelerator: str, callbacks: list[Callback]) -> Trainer:
    """A trainer that neither logs nor writes nor talks.

    Raises:
        UserError: there is no such device.
    """
    try:
        return Trainer(
            accelerator=accelerator,
            devices=1,
            inference_mode=False,  # tensors made under it could not be attacked later
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


def _loader(x: Tensor, x_adv: Tensor, y: Tensor, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(x, x_adv, y), sampler=BatchIndices(len(y), batch_size), batch_size=None)


def _examples(module: PurificationEvaluation, undefended: list[int]) -> dict[str, Any]:
    """The first images as JSON: what they were, became and were taken for, with and without the defense."""
    tensors = module.examples
    predictions = tensors["predictions"].tolist()
    images = {name: encode_images(tensors[name]) for name in ("original", "attacked", "purified")}
    return images | {
        "labels": tensors["labels"].tolist(),
        "predictions": predictions,
        "confidences": [round(confidence, 4) for confidence in tensors["confidences"].tolist()],
        "undefended_predictions": undefended[: len(predictions)],
    }


def _undefended(
    module: PurificationEvaluation, classifier: nn.Module, undefended: Cell | None, spec: CellSpec
) -> list[int]:
    """What the first images are taken for without the defense."""
    if undefended is not None:
        return undefended.predictions
    if spec.is_proof:
        with torch.no_grad():
            return classifier(module.examples["attacked"].clone()).argmax(1).tolist()
    return module.predictions.tolist()
