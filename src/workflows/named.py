"""Attacks and purifiers of ``conf`` for Python: by their names, with the values that the command line knows.

Data and checkpoints are those of MNIST below ``outputs`` in the current folder, unless ``data=…``, ``data.root=…`` or
``paths.outputs=…`` say otherwise.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from torch import Tensor, nn

from src.attacks import within_budget
from src.attacks.budget import check_budget
from src.attacks.verdict import is_random
from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation.spec import CERTIFICATE
from src.nested import leaves
from src.workflows.building import plain
from src.workflows.cells import attack_spec, defense_spec
from src.workflows.command import CONFIG_PATH, message_for_user, register_resolvers
from src.workflows.component_cache import ComponentCache
from src.workflows.configured import data_from_config
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

#: (model, x, y, *, eps) -> x_adv
Attack = Callable[..., Tensor]

#: What a command line may set of an attack, of a purifier, and of both.
OF_ATTACKS = ("attack", "attack_precision", "iterative")
OF_PURIFIERS = ("defense", "noise", "inference_noise", "clip_output", "purify_precision")
OF_BOTH = ("data", "paths", "seed")

#: One thread at a time: Hydra and OmegaConf have one state in a process.
_hydra = Lock()


def attack_by_name(name: str, *overrides: str) -> Attack:
    """An attack of ``conf/attack``. Of several, such as ``worst``, each is tried on what those before it left.

    Args:
        name: as after ``attack=`` on the command line.
        overrides: other values, such as ``attack.steps=200`` or ``~attack.members.transfer``.

    Returns:
        A function of a model (N, C, H, W) → logits (N, K), a batch of images in [0, 1], their classes (N,) and ``eps``,
        which returns images within ``eps``. Random numbers are drawn from PyTorch's own stream. Fooled images are left
        alone by attacks that can, unless the model answers at random. A suite then raises ValueError, as it does not
        know what still stands. Give a single attack :func:`src.defended.adaptive` with 20 ``eot_samples`` in place of
        such a model.

    Raises:
        UserError: there is no such attack or value, it is a proof, or it needs a checkpoint that is not there.

    Examples:
        >>> import torch
        >>> from src.workflows.named import attack_by_name
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]], [[[0.9, 0.1]]]]), torch.tensor([0, 0])
        >>> attack = attack_by_name("worst_gradient", "attack.members.pgd.steps=5")
        >>> brighter(attack(brighter, x, y, eps=0.125)).argmax(1)
        tensor([1, 0])
    """
    with _hydra_of_ours(), _one_line():
        config = _configuration(f"attack={name}", overrides, OF_ATTACKS)
        if config.attack.get("family") == CERTIFICATE:
            raise UserError(f"attack={name} is a proof and no attack: python -m src.sweep -m attack={name}")
        if "members" in config.attack:
            OmegaConf.update(config, "attack.survivors", True, force_add=True)
        components = ComponentCache()
        spec = attack_spec(config, _data(config, config.attack, components), components)
        return partial(_attacked, components.build(spec.component), spec.early_stop)


def _attacked(attack: Attack, can_stop: bool, model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    check_budget(x, y, eps)
    if can_stop:
        attack = partial(attack, early_stop=not is_random(model, x))
    return within_budget(partial(attack, eps=eps), model, x, y, eps)


def purifier_by_name(name: str, *overrides: str) -> nn.Module:
    """The purifier of a defense of ``conf/defense``, ready to stand before a classifier.

    Args:
        name: as after ``defense=`` on the command line.
        overrides: other values, such as ``noise=0.25`` or ``defense.purifier.k=8``.

    Returns:
        A module from images (N, C, H, W) in [0, 1] to images of that shape, on the CPU, in evaluation mode.

    Raises:
        UserError: there is no such defense or value, or its checkpoint is missing, damaged or of other data.

    Examples:
        >>> import torch
        >>> from src.workflows.named import purifier_by_name
        >>> purifier_by_name("binarize")(torch.tensor([[[[0.2, 0.8]]]]))
        tensor([[[[0., 1.]]]])
    """
    with _hydra_of_ours(), _one_line():
        config = _configuration(f"defense={name}", overrides, OF_PURIFIERS)
        components = ComponentCache()
        spec = defense_spec(config, _data(config, config.defense, components), components)
        purifier: nn.Module = components.build(spec.component)
        return purifier.eval()


def _configuration(choice: str, overrides: tuple[str, ...], settable: tuple[str, ...]) -> DictConfig:
    """That of a cell for an attacker who knows the defense, its values checked."""
    for override in overrides:
        if re.split(r"[.=@]", override.lstrip("+~"))[0] not in (*settable, *OF_BOTH):
            raise UserError(f"{override} has no effect here; what has some begins with {', '.join(settable + OF_BOTH)}")
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose("sweep", ["threat=adaptive", choice, *overrides], return_hydra_config=True)
    return checked(config, SweepSettings)


def _data(config: DictConfig, part: DictConfig, components: ComponentCache) -> ImageDataModule:
    """The data set of ``config``, fetched only if ``part`` has a checkpoint, which has to be of these data."""
    has_checkpoint = any(path.endswith("checkpoint") for path, _ in leaves(plain(part)))
    return components.data(config.data) if has_checkpoint else data_from_config(config.data)


@contextmanager
def _hydra_of_ours() -> Iterator[None]:
    """Leaves the caller's Hydra as it is, of which there may be one that runs, and OmegaConf's resolvers."""
    with _hydra:
        running, resolvers = GlobalHydra.instance().hydra, dict(BaseContainer._resolvers)
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = running
            BaseContainer._resolvers = resolvers


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors that the user can mend as a UserError of one line, as the commands say them."""
    try:
        yield
    except Exception as error:
        if message := message_for_user(error):
            raise UserError(message) from error
        raise
