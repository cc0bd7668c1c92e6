"""What there is to play with: every attack, defense and threat of the configuration that works here."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from src.defenses import Identity
from src.errors import UserError, in_a_line
from src.evaluation import CellSpec
from src.evaluation.components import TestSet
from src.evaluation.evaluator import trainer_on
from src.evaluation.model_checks import check_model
from src.evaluation.spec import CERTIFICATE
from src.playground.demonstration import Demonstration, OutOfTimeError, demonstrate
from src.reporting.analysis.labels import column_label
from src.training_record import TrainingRecord
from src.workflows.building import plain
from src.workflows.cells import cell_spec, components_for
from src.workflows.component_cache import ComponentCache
from src.workflows.composing import parsed
from src.workflows.error_messages import one_line
from src.workflows.schema import PlaySettings
from src.workflows.settings import checked
from src.workflows.weights import shared_noises

log = logging.getLogger(__name__)

#: The groups of the configuration whose options are offered.
ATTACK, DEFENSE, THREAT = "attack", "defense", "threat"

#: At what budget an attack is tried out.
TRIED_AT = 0.1


@dataclass(frozen=True)
class Choice:
    """What a visitor asks for: names that the playground offers, and a budget."""

    attack: str
    eps: float  #: L∞ budget in pixel units, 0 to 1
    defense: str  #: a label such as "vqvae 0.5"
    threat: str


@dataclass
class Playground:
    """Shows what any attack does to any image, and what any defense makes of it.

    Args:
        config: that of a single cell, ``conf/play.yaml``; its choices are the first ones.
        components: what is loaded and kept.
        attacks, threats: the configuration of each, by name.
        defenses: the configuration and the noise of each, by label.
        left_out: what is not offered, and why, a sentence each.
    """

    config: DictConfig
    components: ComponentCache
    attacks: Mapping[str, DictConfig]
    defenses: Mapping[str, tuple[DictConfig, float | None]]
    threats: Mapping[str, DictConfig]
    first: Choice
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = self.components.data(self.config.data)
        self.test: TestSet = self.components.images(self.components.data_spec(data, "test", None))
        self.device: torch.device = trainer_on(self.config.trainer.accelerator, []).strategy.root_device

    def show(self, image: Tensor, label: int | None, choice: Choice) -> Demonstration:
        """Attack an image and purify it.

        Args:
            image: (C, H, W), float, in [0, 1].
            label: its class; None: what the undefended classifier takes it for.

        Raises:
            UserError: it took too long, or something that was there at the start is gone.
        """
        return demonstrate(
            self.spec(choice),
            image,
            label,
            components=self.components,
            device=self.device,
            patience=self.config.patience,
        )

    def spec(self, choice: Choice) -> CellSpec:
        """The cell that a choice would be an image of."""
        defense, noise = self.defenses[choice.defense]
        parts = {ATTACK: self.attacks[choice.attack], DEFENSE: defense, THREAT: self.threats[choice.threat]}
        return cell_spec(with_parts(self.config, parts, eps=choice.eps, noise=noise), self.components)


def playground_from_config(config: DictConfig) -> Playground:
    """Look for everything that can be played with, and try each once.

    Args:
        config: ``conf/play.yaml`` with the command line's changes, as Hydra's command line has composed it. What
            changes the chosen attack, defense or threat does not reach the others.

    Raises:
        UserError: the classifier is not there, or a value or a choice of the command line is no good.
    """
    config = checked(config, PlaySettings)
    components = components_for(config)
    spec = cell_spec(config, components)
    test, noises = components.images(spec.data), _noises(config)
    try:
        check_model(components.classifier(spec.classifier), Identity(), test.images, test.num_classes)
    except ValueError as error:
        raise UserError(f"this classifier cannot be played with: {one_line(error)}") from error
    search, chosen = _Search(config, components, test), HydraConfig.get().runtime.choices
    attacks, defenses, threats = search.attacks(), search.defenses(noises), search.nodes(THREAT)
    noise = config.noise if config.defense.uses_noise else None
    first = Choice(
        attack=search.first(ATTACK, chosen[ATTACK], attacks),
        eps=float(config.eps),
        defense=search.first(DEFENSE, column_label(chosen[DEFENSE], noise), defenses),
        threat=search.first(THREAT, chosen[THREAT], threats),
    )
    left_out = [f"{name}: {reason}" for name, reason in search.left_out.items()]
    return Playground(config, components, attacks, defenses, threats, first, left_out)


def with_parts(config: DictConfig, parts: Mapping[str, DictConfig], *, eps: float, noise: float | None) -> DictConfig:
    """A copy of a configuration with other components and values; interpolations find their values in the copy."""
    variant = copy.deepcopy(config)
    for group, node in parts.items():
        variant[group] = copy.deepcopy(node)
    variant.eps = eps
    if noise is not None:
        variant.noise = noise
    return variant


def _noises(config: DictConfig) -> list[float]:
    """The noises to offer: those asked for, or those of the networks that are trained or in ``paths.weights``; and that
    of the chosen defense."""
    configured_noises = plain(config.noises)
    trained_noises = _trained_noises(Path(config.paths.checkpoints) / config.data.name, config.seed)
    noises = configured_noises or sorted(trained_noises | shared_noises(config))
    if config.defense.uses_noise or not noises:
        noises = sorted({*noises, config.noise})
    return noises


def _trained_noises(checkpoints: Path, seed: int) -> set[float]:
    noises = set()
    for path in checkpoints.glob("*.json"):
        try:
            record = TrainingRecord.load(path)
        except (ValueError, OSError) as error:
            log.warning("%s is passed over: %s", path, error)
            continue
        if record.noise is not None and record.seed == seed:
            noises.add(record.noise)
    return noises


class _Search:
    """Goes through the options of the groups, and notes why one is left out."""

    def __init__(self, config: DictConfig, components: ComponentCache, test: TestSet) -> None:
        self.config, self.components, self.test = config, components, test
        self.left_out: dict[str, str] = {}

    def nodes(self, group: str) -> dict[str, DictConfig]:
        """The options of a group, the chosen one as the command line has it."""
        command_line = HydraConfig.get()
        chosen, config_name = command_line.runtime.choices[group], command_line.job.config_name
        of_hydra = list(command_line.overrides.hydra)  # such as hydra.searchpath
        loader = GlobalHydra.instance().config_loader()
        options = loader.get_group_options(group, config_name=config_name, overrides=of_hydra)
        others = [name for name in options if name != chosen]
        nodes = {chosen: self.config[group]}
        if others:
            overrides = parsed(command_line.overrides.task)
            kept = [str(each.input_line) for each in overrides if each.key_or_group.partition(".")[0] != group]
            # Side by side in one configuration: composing one for each would take a tenth of a second every time
            additions = [f"+{group}@offered.number{i}={name}" for i, name in enumerate(others)]
            offered = hydra.compose(config_name, [*of_hydra, *kept, *additions]).offered
            nodes |= {name: offered[f"number{i}"] for i, name in enumerate(others)}
        return {name: nodes[name] for name in sorted(nodes)}

    def attacks(self) -> dict[str, DictConfig]:
        """The attacks that start: each is given up as soon as it asks the classifier anything."""
        attacks = {}
        for name, node in self.nodes(ATTACK).items():
            if node.get("family") == CERTIFICATE:  # no attack
                continue
            with self._or_left_out(ATTACK, name):
                spec = self._spec({ATTACK: node}, TRIED_AT).without_defense()
                with suppress(OutOfTimeError):
                    demonstrate(spec, self.test.images[0], components=self.components, patience=0)
                attacks[name] = node
        return attacks

    def defenses(self, noises: Sequence[float]) -> dict[str, tuple[DictConfig, float | None]]:
        """The defenses, each with every noise it has, that can purify an image."""
        defenses = {}
        for name, node in self.nodes(DEFENSE).items():
            for noise in noises if node.uses_noise else [None]:
                label = column_label(name, noise)
                with self._or_left_out(DEFENSE, label):
                    spec = self._spec({DEFENSE: node}, 0, noise)
                    classifier = self.components.classifier(spec.classifier)
                    purifier = self.components.build(spec.defense.component)
                    check_model(classifier, purifier, self.test.images, self.test.num_classes)
                    demonstrate(spec, self.test.images[0], components=self.components)
                    defenses[label] = (node, noise)
        return defenses

    def first(self, group: str, name: str, options: Mapping[str, Any]) -> str:
        """``name``, which the command line asks for, if it is offered."""
        if name not in options:
            raise UserError(self.left_out[f"{group} {name}"])
        return name

    def _spec(self, parts: Mapping[str, DictConfig], eps: float, noise: float | None = None) -> CellSpec:
        return cell_spec(with_parts(self.config, parts, eps=eps, noise=noise), self.components)

    @contextmanager
    def _or_left_out(self, group: str, name: str) -> Iterator[None]:
        """Go on without the option ``name``, whatever keeps it from working."""
        try:
            yield
        except (UserError, HydraException, OmegaConfBaseException) as error:
            self.left_out[f"{group} {name}"] = one_line(error)
        except Exception as error:
            self.left_out[f"{group} {name}"] = in_a_line(error)
