"""From a sweep job's configuration to a cell."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, RichProgressBar
from omegaconf import DictConfig
from torch import Tensor, nn

from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation import CellSpec, CellStore, Coordinates, Evaluator, Protocol, TestSet
from src.evaluation.adversary import AdversarialStore
from src.evaluation.cell import NO_DEFENSE, NOTHING, SCHEMA
from src.models import Classifier
from src.models.checkpoint import Provenance, load_module, read_checkpoint
from src.workflows.classifiers import OwnClassifier, build_own, checkpoint_of, is_factory
from src.workflows.configured import build, data_from_config, fingerprinted, plain
from src.workflows.settings import SweepSettings, checked

log = logging.getLogger(__name__)

#: Keys of an attack's YAML that say something of it; the others are what it is called with.
SAID_OF_AN_ATTACK = {"name", "family", "stronger", "members", "only_logits"}


@dataclass
class Bench:
    """What a process keeps between the cells it works on: data, networks, stores. Everything is found again by what it
    was made from, so cells may come in any order."""

    outputs: Path
    accelerator: str
    batch_size: int | None
    show_progress: bool = False
    _data: dict[str, ImageDataModule] = field(default_factory=dict)
    _sets: dict[tuple[str, str, int | None], TestSet] = field(default_factory=dict)
    _provenances: dict[tuple[Path, int], Provenance] = field(default_factory=dict)
    _classifiers: dict[str, nn.Module] = field(default_factory=dict)
    _own_classifiers: dict[tuple[str, str], OwnClassifier] = field(default_factory=dict)
    _last_defense: tuple[str, nn.Module] | None = None

    @cached_property
    def evaluator(self) -> Evaluator:
        bar: list[Callback] = [RichProgressBar(leave=False)] if self.show_progress else []
        return Evaluator(
            cells=CellStore(self.outputs / "cells"),
            adversarial=AdversarialStore(self.outputs / "adversarial", self.outputs / "gradients"),
            accelerator=self.accelerator,
            batch_size=self.batch_size,
            callbacks=bar,
        )

    def data(self, config: DictConfig) -> ImageDataModule:
        """The data module of a ``data`` group, its files prepared."""
        key = repr(plain(config))
        if key not in self._data:
            module = data_from_config(config)
            module.prepare_data()
            self._data[key] = module
        return self._data[key]

    def held_out(self, data: ImageDataModule, split: str = "test", limit: int | None = None) -> TestSet:
        """The first ``limit`` images of a split that no training has seen, or all."""
        key = (data.fingerprint, repr(split_identity(data, split)), limit)
        if key not in self._sets:
            self._sets = {key: TestSet(*data.held_out(split, limit), data.num_classes)}
        return self._sets[key]

    def provenance(self, path: Path, remedy: str) -> Provenance:
        """What a checkpoint says of itself, verified once for each version of the file."""
        try:
            key = (path, path.stat().st_mtime_ns)
        except OSError:
            key = (path, 0)
        if key not in self._provenances:
            self._provenances[key] = read_checkpoint(path, remedy)[1]
        return self._provenances[key]

    def classifier(self, path: Path, provenance: Provenance, remedy: str) -> nn.Module:
        if provenance.weights not in self._classifiers:
            self._classifiers = {provenance.weights: load_module(Classifier, path, remedy)[0]}
        return self._classifiers[provenance.weights]

    def own_classifier(self, name: str, data: ImageDataModule) -> OwnClassifier:
        """A user's own classifier, built once for each data set."""
        key = (name, data.fingerprint)
        if key not in self._own_classifiers:
            self._own_classifiers[key] = build_own(name, data.image_shape, data.num_classes)
        return self._own_classifiers[key]

    def defense(self, identity: str, purifier: Any) -> nn.Module:
        """The purifier of this identity, built of plain types: a configuration might have changed since it was read."""
        if self._last_defense is None or self._last_defense[0] != identity:
            self._last_defense = (identity, build(purifier))
        return self._last_defense[1]


def cell_spec(config: DictConfig, bench: Bench) -> CellSpec:
    """What a job of ``conf/sweep.yaml`` asks for, checked; computes nothing.

    Raises:
        UserError: a value out of range, a checkpoint that is missing, damaged or of other data.
    """
    config = checked(config, SweepSettings)
    eps, noise = float(config.eps), float(config.noise)
    seed, split, limit = config.seed, config.split, config.limit
    data = bench.data(config.data)
    protocol = Protocol(**plain(config.protocol))
    classifier, load_classifier = classifier_of(plain(config.classifier), data, split, bench)
    threat, purifier = plain(config.threat), purifier_of(config.defense)
    uses_noise = bool(config.defense.uses_noise)
    defense_identity = identified(purifier, data, split, bench)
    identity: dict[str, Any] = {
        "schema": SCHEMA,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "n": len(bench.held_out(data, split, limit).labels),
        }
        | split_identity(data, split),
        "classifier": classifier,
        "attack": NOTHING,
        "eps": eps,
        "threat": threat["view"] if eps else NOTHING,
        "defense": defense_identity,
        "noise": noise if uses_noise else None,
        "protocol": {"name": protocol.name, "clean_errors_count": protocol.clean_errors_count},
        "seed": seed,
    }
    spec = CellSpec(
        coordinates=Coordinates(
            data=split_name(data, split),
            attack="",
            eps=eps,
            threat=threat["name"],
            defense=config.defense.name,
            noise=noise if uses_noise else None,
            protocol=protocol.name,
            seed=seed,
        ),
        identity=numbers_as_floats(identity),
        protocol=protocol,
        knows_defense=bool(config.threat.knows_defense),
        load_data=lambda: bench.held_out(data, split, limit),
        load_classifier=load_classifier,
        load_defense=lambda: bench.defense(repr(defense_identity), purifier),
        attack=nothing,
        threat=build(config.threat.view),
        efforts={"threat": _efforts(threat, threat["view"])},
        bare_threat=numbers_as_floats(threat["bare"]["view"]) if "bare" in threat else None,
        learned=plain(config.defense).get("learned", False),
    )
    return _attacked_by(plain(config.attack), spec, data, split, bench)


def _attacked_by(attack: dict[str, Any], spec: CellSpec, data: ImageDataModule, split: str, bench: Bench) -> CellSpec:
    """``spec`` with the attack of a ``conf/attack`` file, or with several, of which it is to be the worst case."""
    coordinates = replace(spec.coordinates, attack=attack["name"])
    if "members" in attack:
        members = {
            name: _attacked_by(each, spec, data, split, bench) for name, each in attack["members"].items() if each
        }
        identity: Any = {"members": {name: member.identity["attack"] for name, member in members.items()}}
        spec = replace(spec, coordinates=coordinates, members=members if coordinates.eps else {})
    else:
        arguments = {name: value for name, value in attack.items() if name not in SAID_OF_AN_ATTACK}
        identity = identified(arguments, data, split, bench)
        spec = replace(
            spec,
            coordinates=coordinates,
            attack=build(arguments),
            family=attack.get("family", ""),
            bare_threat=spec.bare_threat if attack.get("only_logits") else None,
            efforts=dict(spec.efforts) | {"attack": _efforts(attack, arguments)},
        )
    identity = numbers_as_floats(identity) if coordinates.eps else NOTHING
    return replace(spec, identity=dict(spec.identity) | {"attack": identity})


def _efforts(said: dict[str, Any], arguments: dict[str, Any]) -> dict[str, int]:
    """What a YAML file names under ``stronger``, with the values given."""
    names = said.get("stronger") or []
    for name in names:
        if not isinstance(arguments.get(name), int):
            raise UserError(f"{said['name']}: {name}={arguments.get(name)} is not a whole number")
    return {name: arguments[name] for name in names}


def purifier_of(defense: DictConfig) -> Any:
    """What a ``conf/defense`` file builds, as plain types; with ``bpda`` its gradient is the identity's."""
    purifier = plain(defense.purifier)
    if not defense.get("bpda") or purifier == NO_DEFENSE:  # whose gradient is the identity's
        return purifier
    return {"_target_": "src.straight_through.StraightThrough", "purifier": purifier}


def nothing(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """The attack of a cell that has none of its own."""
    raise AssertionError("a worst case is taken from its members")


def bench_for(config: DictConfig) -> Bench:
    """The bench of this process for jobs of this configuration."""
    return _bench(Path(config.paths.outputs), config.trainer.accelerator, config.batch_size)


@lru_cache(maxsize=1)
def _bench(outputs: Path, accelerator: str, batch_size: int | None) -> Bench:
    return Bench(outputs, accelerator, batch_size, show_progress=sys.stdout.isatty())


def classifier_of(asked: Any, data: ImageDataModule, split: str, bench: Bench) -> tuple[Any, Callable[[], nn.Module]]:
    """Identity and loader of the classifier that ``classifier=`` asks for, to be judged on images of ``split``."""
    if is_factory(asked):
        own = bench.own_classifier(asked, data)
        return own.identity, lambda: own.module
    path, remedy = checkpoint_of(asked, data.name)
    provenance = trained_on(data, split, bench.provenance(path, remedy), path, remedy)
    return provenance.weights, lambda: bench.classifier(path, provenance, remedy)


def trained_on(data: ImageDataModule, split: str, found: Provenance, path: Path, remedy: str) -> Provenance:
    """``found``, if it was trained on ``data``, and on none of the images of ``split``.

    Raises:
        UserError: it was not.
    """
    if found.data_fingerprint != data.fingerprint or found.image_shape != list(data.image_shape):
        raise UserError(
            f"{path} was trained on {found.data} {found.image_shape}, not on {data.name} {list(data.image_shape)}; "
            f"train it with: {remedy}"
        )
    # The validation images are the first val_size of an order that depends on split_seed alone.
    kept_out = found.split_seed == data.split_seed and found.val_size >= data.val_size
    if split == "val" and not kept_out:
        raise UserError(
            f"{path} was trained on some of these validation images: its training set {found.val_size} images aside by "
            f"split_seed {found.split_seed}; use data.split_seed={found.split_seed} data.val_size={found.val_size}, or "
            f"train it for this split: {remedy} data.split_seed={data.split_seed} data.val_size={data.val_size}"
        )
    return found


def split_identity(data: ImageDataModule, split: str) -> dict[str, Any]:
    """What tells images of ``split`` from the test images of the same data."""
    return {} if split == "test" else {"split": split, "split_seed": data.split_seed, "val_size": data.val_size}


def split_name(data: ImageDataModule, split: str) -> str:
    """``mnist``, or ``mnist-val``."""
    return data.name if split == "test" else f"{data.name}-{split}"


def identified(component: Any, data: ImageDataModule, split: str, bench: Bench) -> Any:
    """A component's configuration with the fingerprints of its checkpoints, which have to be of ``data``, of the noise
    that is asked for, and trained on none of the images of ``split``."""

    def weights_of(part: Mapping[str, Any]) -> str:
        path, remedy = Path(part["checkpoint"]), part.get("remedy", "python -m src.train")
        found = trained_on(data, split, bench.provenance(path, remedy), path, remedy)
        if found.noise is not None and "noise" in part and found.noise != part["noise"]:
            raise UserError(f"{path} was trained with noise {found.noise:g}, not {part['noise']}: {remedy}")
        return found.weights

    return fingerprinted(component, weights_of)


def numbers_as_floats(value: Any) -> Any:
    """0 and 0.0 are one number to a user and two to JSON, and so to a hash."""
    if isinstance(value, dict):
        return {name: numbers_as_floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [numbers_as_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
