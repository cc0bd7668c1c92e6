"""What a process loads and builds for the cells it works on: data, networks, attacks, purifiers."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from src.attacks.verdict import is_random
from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation import CellSpec, DataSpec, DefenseSpec
from src.evaluation.components import TestSet
from src.evaluation.spec import Component, content_key, numbers_as_floats
from src.models import Classifier
from src.models.checkpoint import Provenance, load_module, read_checkpoint
from src.nested import rebuilt
from src.randomness import seeded
from src.workflows.building import build, check_arguments, plain
from src.workflows.classifiers import OwnClassifier, build_own, checkpoint_of, is_factory
from src.workflows.configured import data_from_config, fingerprinted
from src.workflows.own_code import has_own_code, with_state, without_marks
from src.workflows.trained_on import trained_on

log = logging.getLogger(__name__)

#: Parameters of all purifiers that are kept, 200 MB of them: the columns of a grid take turns, and to read a small
#: network takes longer than to run it. Of larger ones only the one used last is kept.
KEPT_PARAMETERS = 50_000_000

#: What a component says of the purifier that does nothing.
IDENTITY = {"_target_": "src.defenses.Identity"}


@dataclass
class ComponentCache:
    """Loads and builds what specs name (:class:`src.evaluation.components.Components`), and keeps it. Specs are plain
    data; where a data set or a checkpoint of theirs lies is remembered here, since the configuration was read."""

    _data: dict[str, ImageDataModule] = field(default_factory=dict)
    _test_sets: dict[str, TestSet] = field(default_factory=dict)  #: by split, the most images that were asked for
    _provenances: dict[tuple[Path, int], Provenance] = field(default_factory=dict)
    #: by fingerprint and ``_target_``, what a component said of its checkpoint: path and remedy
    _checkpoints: dict[tuple[str, str | None], dict[str, str]] = field(default_factory=dict)
    _own_classifiers: dict[tuple[str, str], OwnClassifier] = field(default_factory=dict)
    _functions: dict[str, Any] = field(default_factory=dict)  #: attacks and threats, by their component
    _random: dict[str, bool] = field(default_factory=dict)  #: whether a purifier or classifier is, by its identity
    _last_classifier: tuple[str, nn.Module] | None = None
    _purifiers: dict[str, nn.Module] = field(default_factory=dict)  #: by their component, the one used last at the end

    def data(self, config: DictConfig) -> ImageDataModule:
        """The data module of a ``data`` group, its files prepared."""
        key = repr(plain(config))
        if key not in self._data:
            module = data_from_config(config)
            module.prepare_data()
            self._data[key] = module
        return self._data[key]

    def data_spec(self, data: ImageDataModule, split: str, limit: int | None) -> DataSpec:
        """The first ``limit`` images of a split that no training has seen, or all.

        Raises:
            UserError: as :meth:`src.data.ImageDataModule.held_out`.
        """
        data.check_limit(split, limit)
        identity = {"split": split, "split_seed": data.split_seed, "val_size": data.val_size}
        spec = DataSpec(data.name, data.fingerprint, limit or 0, {} if split == "test" else identity)
        test_set = self._test_sets.get(_key_of(spec))
        if test_set is None or limit is None or len(test_set.labels) < limit:
            test_set = TestSet(*data.held_out(split, limit), data.num_classes)
            self._test_sets[_key_of(spec)] = test_set
        return replace(spec, n=limit or len(test_set.labels))

    def images(self, data: DataSpec) -> TestSet:
        held_out = self._test_sets[_key_of(data)]
        return TestSet(held_out.images[: data.n], held_out.labels[: data.n], held_out.num_classes)

    def classifier_identity(self, asked: Any, data: ImageDataModule, split: str) -> Any:
        """What ``classifier=`` asks for, to be judged on images of ``split``: the fingerprint of its weights, or the
        identity of a user's own.

        Raises:
            UserError: it is missing, damaged, of other data, or was trained on these images.
        """
        if is_factory(asked):
            key = (asked, data.fingerprint)
            if key not in self._own_classifiers:
                self._own_classifiers[key] = build_own(asked, data.image_shape, data.num_classes)
                if split != "test":
                    log.warning(
                        "nothing is known of what classifier=%s was trained on; images of split=%s may be among it",
                        asked,
                        split,
                    )
            return self._own_classifiers[key].identity
        path, remedy = checkpoint_of(asked, data.name)
        weights = trained_on(data, split, self.provenance(path, remedy), path, remedy).weights
        self._checkpoints[(weights, None)] = {"checkpoint": str(path), "remedy": remedy}
        return weights

    def classifier(self, identity: Any) -> nn.Module:
        if isinstance(identity, dict):
            return next(own.module for own in self._own_classifiers.values() if own.identity == identity)
        if self._last_classifier is None or self._last_classifier[0] != identity:
            source = self._located(identity, None)
            module = load_module(Classifier, Path(source["checkpoint"]), source["remedy"])[0]
            self._last_classifier = (identity, module)
        return self._last_classifier[1]

    def identified(self, component: Any, data: ImageDataModule, split: str) -> Any:
        """A component's configuration with the fingerprints of its checkpoints, which have to be of ``data``, of the
        noise that is asked for, and trained on none of the images of ``split``; with the marks of a user's own.

        Raises:
            UserError: they are not; or as :func:`src.workflows.building.check_arguments`.
        """

        def weights_of(part: Mapping[str, Any]) -> str:
            path, remedy = Path(part["checkpoint"]), part.get("remedy", "python -m src.train")
            provenance = trained_on(data, split, self.provenance(path, remedy), path, remedy)
            if provenance.noise is not None and "noise" in part and provenance.noise != part["noise"]:
                raise UserError(f"{path} was trained with noise {provenance.noise:g}, not {part['noise']}: {remedy}")
            source = {name: part[name] for name in ("checkpoint", "remedy") if name in part}
            self._checkpoints[(provenance.weights, part.get("_target_"))] = source
            return provenance.weights

        check_arguments(component)
        identity = fingerprinted(component, weights_of)
        if not has_own_code(identity):
            return identity
        try:
            built = self.build(identity)
        except Exception:  # a user's own code can raise anything: whoever evaluates it says why
            return identity
        return with_state(identity, built)

    def build(self, component: Component | None) -> Any:
        own = has_own_code(component)
        component = IDENTITY if component is None else without_marks(component) if own else component
        key = content_key(numbers_as_floats(component))
        if key in self._functions:
            return self._functions[key]
        built = self._purifiers.pop(key) if key in self._purifiers else self._made(component, own)
        if not isinstance(built, nn.Module):
            self._functions[key] = built
            return built
        self._purifiers[key] = built
        while len(self._purifiers) > 1 and sum(map(_parameters, self._purifiers.values())) > KEPT_PARAMETERS:
            del self._purifiers[next(iter(self._purifiers))]
        return built

    def _made(self, component: Component, own: bool) -> Any:
        """What a component builds. A user's own draws the same weights in every process, and so has one identity."""
        with seeded(0) if own else nullcontext():
            return build(rebuilt(component, self._with_path))

    def is_random(self, defense: DefenseSpec, data: DataSpec) -> bool:
        """Whether a defense answers the first images of ``data`` differently when it is asked again; of one that does
        not one line says so, once. One that fails on them counts as random: whoever evaluates it says why."""
        key = content_key(numbers_as_floats({"component": defense.component}))
        if defense.component is not None and key not in self._random:
            try:
                self._random[key] = is_random(self.build(defense.component), self.images(data).images)
            except Exception:  # a user's own code can raise anything
                return True
            if not self._random[key]:
                noise = "" if defense.noise is None else f" {defense.noise:g}"
                log.info("%s%s is not random: all verdicts on it are one, and computed once", defense.name, noise)
        return self._random.get(key, False)

    def has_random_classifier(self, spec: CellSpec) -> bool:
        """Whether a user's own classifier answers the first images differently when it is asked again; ours never do.
        One that fails on them counts as steady: whoever evaluates it says why."""
        if not isinstance(spec.classifier, dict):
            return False
        key = content_key(numbers_as_floats(spec.classifier))
        if key not in self._random:
            try:
                self._random[key] = is_random(self.classifier(spec.classifier), self.images(spec.data).images)
            except Exception:  # a user's own code can raise anything
                return False
        return self._random[key]

    def provenance(self, path: Path, remedy: str) -> Provenance:
        """What a checkpoint says of itself, verified once for each version of the file."""
        try:
            key = (path, path.stat().st_mtime_ns)
        except OSError:
            key = (path, 0)
        if key not in self._provenances:
            self._provenances[key] = read_checkpoint(path, remedy)[1]
        return self._provenances[key]

    def _with_path(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part of a component with the path of its checkpoint, if it has one, in place of the fingerprint."""
        return part | self._located(part["checkpoint"], part.get("_target_")) if "checkpoint" in part else part

    def _located(self, weights: str, target: str | None) -> dict[str, str]:
        """Path and remedy of the checkpoint with these weights.

        Raises:
            UserError: other weights lie there by now.
        """
        source = self._checkpoints[(weights, target)]
        path = Path(source["checkpoint"])
        if self.provenance(path, source.get("remedy", "python -m src.train")).weights != weights:
            raise UserError(f"{path} was replaced by another training since this command began; run it again")
        return source


def _parameters(module: nn.Module) -> int:
    """How many numbers a module learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def _key_of(data: DataSpec) -> str:
    """Of all images of a split."""
    return content_key(numbers_as_floats(replace(data, n=0).identity))
