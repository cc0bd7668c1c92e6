"""From a sweep job's configuration to the spec of its cell, and to what computes it."""

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, RichProgressBar
from omegaconf import DictConfig
from rich.progress import track
from torch import nn

from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation import AttackSpec, CellSpec, CellStore, DefenseSpec, Protocol, ThreatSpec
from src.evaluation.attacking import AttackedSets, untracked
from src.evaluation.evaluator import Evaluator
from src.evaluation.spec import CERTIFICATE, Component, Verdict
from src.precision import Precision, chosen
from src.signatures import accepts
from src.workflows.building import plain
from src.workflows.component_cache import IDENTITY, ComponentCache
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)

#: The verdict under which a defense draws the same random numbers each time.
FROZEN = "frozen"

#: Keys of an attack's YAML that describe it; the others are what it is called with.
DESCRIPTION = {"name", "family", "stronger", "members", "survivors"}

#: Families of attacks by what one of them usually costs.
CHEAP_FIRST = ("one-step", "noise", "transfer", "iterative", "gradient-free")


def cell_spec(config: DictConfig, components: ComponentCache) -> CellSpec:
    """What a job of ``conf/sweep.yaml`` asks for, checked; computes nothing.

    Raises:
        UserError: a value out of range, a checkpoint that is missing, damaged or of other data.
    """
    return spec_of(checked(config, SweepSettings), components)


def spec_of(config: DictConfig, components: ComponentCache) -> CellSpec:
    """As :func:`cell_spec`, of a configuration whose values are checked.

    Raises:
        UserError: a checkpoint is missing, damaged or of other data.
    """
    data, split = components.data(config.data), config.split
    spec = CellSpec(
        data=components.data_spec(data, split, config.limit),
        classifier=components.classifier_identity(plain(config.classifier), data, split),
        attack=attack_spec(config, data, components),
        eps=float(config.eps),
        threat=_threat_spec(plain(config.threat), data, split, components),
        defense=defense_spec(config, data, components),
        protocol=Protocol(**plain(config.protocol)),
        seed=config.seed,
    )
    return spec if config.verdict == "single" else _under_verdict(spec, config, components)


def _under_verdict(spec: CellSpec, config: DictConfig, components: ComponentCache) -> CellSpec:
    """``spec`` under another verdict than single; as it is if its defense gives one answer, for then all verdicts are
    one. Frozen randomness is a part of the defense.

    Raises:
        UserError: the classifier is random: what a verdict says would be said of it as well.
    """
    if components.has_random_classifier(spec):
        raise UserError(
            f"verdict={config.verdict} is for random defenses, and this classifier answers at random itself: use "
            "verdict=single, or a classifier that gives the same answer every time"
        )
    if not components.is_random(spec.defense, spec.data):
        return spec
    if config.verdict != FROZEN:
        return replace(spec, verdict=Verdict(config.verdict, config.verdict_samples))
    component = {"_target_": "src.defended.FrozenRandomness", "purifier": spec.defense.component, "seed": spec.seed}
    return replace(spec, defense=replace(spec.defense, name=f"{spec.defense.name} ({FROZEN})", component=component))


def attack_spec(config: DictConfig, data: ImageDataModule, components: ComponentCache) -> AttackSpec:
    """The attack of a job of ``conf/sweep.yaml``.

    Raises:
        UserError: an argument that it does not have, or it cannot be used under this threat.
    """
    if config.attack.get("survivors") and not config.threat.knows_defense:
        raise UserError(
            "attack.survivors=true needs threat=adaptive: who does not know the defense cannot ask it what still stands"
        )
    precision = chosen(config.attack_precision, config.trainer.accelerator)
    return _attack_spec(plain(config.attack), data, config.split, components, precision)


def _attack_spec(
    attack: dict[str, Any], data: ImageDataModule, split: str, components: ComponentCache, precision: Precision
) -> AttackSpec:
    """The attack of a ``conf/attack`` file, or several, of which the worst case is to be taken. One whose gradients can
    be computed in another ``precision`` than float32 is told so."""
    if "members" in attack:
        _refuse_proofs(attack["members"])
        members = {
            name: _attack_spec(member, data, split, components, precision)
            for name, member in attack["members"].items()
            if member
        }
        suite = AttackSpec(attack["name"], members=members)
        return _on_survivors(suite) if attack.get("survivors") else suite
    arguments = {name: value for name, value in attack.items() if name not in DESCRIPTION}
    component = components.identified(arguments, data, split)
    if not attack.get("family"):
        _say_that_it_has_no_family(attack["name"])
    if precision != "float32" and accepts(components.build(component), "precision"):
        component = {"precision": precision} | component
    return AttackSpec(
        name=attack["name"],
        component=component,
        family=attack.get("family", ""),
        stronger=_stronger(attack, component),
        early_stop=accepts(components.build(component), "early_stop"),
    )


@cache
def _say_that_it_has_no_family(name: str) -> None:
    """Once for each attack."""
    log.warning("attack=%s has no family in its YAML, so checks that compare kinds of attacks leave it out", name)


def _refuse_proofs(members: dict[str, Any]) -> None:
    """UserError if one of them is a proof: it makes no images of which the worst case could be taken."""
    for name, member in members.items():
        if member and member.get("family") == CERTIFICATE:
            asked = f"attack={member.get('name', name)}"
            raise UserError(f"attack.members.{name} is a proof and no attack: leave it out, and run it as {asked}")


def _on_survivors(suite: AttackSpec) -> AttackSpec:
    """The attacks of ``suite`` as one, each on what those before it left; the cheap ones first, and last those of a
    family of the user's own, whose cost nobody knows."""
    place = {family: number for number, family in enumerate(CHEAP_FIRST)}
    cheap_first = sorted(suite.members.items(), key=lambda item: place.get(item[1].family, len(place)))
    attacks = {name: member.component for name, member in cheap_first}
    component = {"_target_": "src.attacks.survivors", "_partial_": True, "attacks": attacks}
    stronger = [f"attacks.{name}.{argument}" for name, member in cheap_first for argument in member.stronger]
    return AttackSpec(suite.name, component, family="iterative", stronger=tuple(stronger), early_stop=True)


def _threat_spec(threat: dict[str, Any], data: ImageDataModule, split: str, components: ComponentCache) -> ThreatSpec:
    """The threat of a ``conf/threat`` file."""
    component = components.identified(threat["view"], data, split)
    components.build(component)
    return ThreatSpec(
        name=threat["name"],
        component=component,
        knows_defense=threat["knows_defense"],
        bare=components.identified(threat["bare"]["view"], data, split) if "bare" in threat else None,
        stronger=_stronger(threat, threat["view"]),
    )


def unsearched_thresholds(spec: CellSpec, build: Callable[[Component | None], Any]) -> str:
    """A line on the thresholds of a defense that the attacker knows, and that his search for pixels which can cross one
    leaves out; empty if there are none.

    Args:
        build: makes the defense of its component; asked only where there is such a search.
    """
    attacks = [attack.component or {} for attack in (spec.attack, *spec.attack.members.values())]
    searches = [*attacks, *(member for attack in attacks for member in attack.get("attacks", {}).values())]
    searched = [set(map(float, search["thresholds"])) for search in searches if search.get("thresholds")]
    if not (searched and spec.eps and spec.threat.knows_defense and spec.defense.component):
        return ""
    modules = build(spec.defense.component).modules()
    known = {float(value) for module in modules for value in _thresholds_of(module)}
    if known <= set.intersection(*searched):
        return ""
    values = ",".join(f"{value:g}" for value in sorted(known))
    name = "attack.members.threshold" if len(attacks) > 1 or "attacks" in attacks[0] else "attack"
    return (
        f"{spec.defense.name} quantizes at {values}; the threshold search is stronger with {name}.thresholds=[{values}]"
    )


def _thresholds_of(module: nn.Module) -> Iterable[float]:
    """At which values a module quantizes pixels, as far as it says so."""
    values = getattr(module, "thresholds", None) or [getattr(module, "threshold", None)]
    return [value for value in values if isinstance(value, int | float)]


def _stronger(description: dict[str, Any], component: Component) -> tuple[str, ...]:
    """The arguments that a YAML file names under ``stronger``, which must be whole numbers."""
    names = description.get("stronger") or []
    for name in names:
        if not isinstance(component.get(name), int):
            raise UserError(f"{description['name']}: {name}={component.get(name)} is not a whole number")
    return tuple(names)


def defense_spec(config: DictConfig, data: ImageDataModule, components: ComponentCache) -> DefenseSpec:
    """The defense of a ``conf/defense`` file. With ``bpda`` its gradient is the identity's.

    Raises:
        UserError: it needs noise and there is none; or as :meth:`ComponentCache.identified`.
    """
    defense = config.defense
    if defense.get("needs_noise") and not config.noise > 0:
        raise UserError(f"defense={defense.name} needs noise above 0, such as noise=0.25")
    purifier = plain(defense.purifier)
    if purifier == IDENTITY:
        component = None
    elif defense.get("bpda"):
        component = {"_target_": "src.straight_through.StraightThrough", "purifier": purifier}
    else:
        component = purifier
    return DefenseSpec(
        name=defense.name,
        component=components.identified(component, data, config.split),
        noise=float(config.noise) if defense.uses_noise else None,
        learned=bool(defense.get("learned", False)),
        claim=str(defense.get("claim", "")),
    )


def components_for(config: DictConfig) -> ComponentCache:
    """What this process keeps for jobs of this configuration."""
    return _process(Path(config.paths.outputs), config.trainer.accelerator, config.batch_size)[0]


def evaluator_for(config: DictConfig) -> Evaluator:
    """The evaluator of this process for jobs of this configuration."""
    return _process(Path(config.paths.outputs), config.trainer.accelerator, config.batch_size)[1]


@lru_cache(maxsize=1)
def _process(outputs: Path, accelerator: str, batch_size: int | None) -> tuple[ComponentCache, Evaluator]:
    is_terminal = sys.stdout.isatty()
    bar: list[Callback] = [RichProgressBar(leave=False)] if is_terminal else []
    components = ComponentCache()
    return components, Evaluator(
        components=components,
        cells=CellStore(outputs / "cells"),
        attacked=AttackedSets(
            outputs / "adversarial", outputs / "gradients", partial(track, transient=True) if is_terminal else untracked
        ),
        accelerator=accelerator,
        batch_size=batch_size,
        callbacks=bar,
    )
