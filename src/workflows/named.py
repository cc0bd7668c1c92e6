"""Attacks and purifiers of ``conf`` for Python: by their names, with the values that the command line knows."""

from collections.abc import Callable
from functools import partial

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from src.attacks.verdict import is_random
from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation.spec import CERTIFICATE
from src.nested import leaves
from src.workflows.building import plain
from src.workflows.cells import attack_spec, defense_spec
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.component_cache import ComponentCache
from src.workflows.configured import data_from_config
from src.workflows.error_messages import one_line
from src.workflows.schema import SweepSettings
from src.workflows.settings import checked

#: (model, x, y, *, eps) -> x_adv
Attack = Callable[..., Tensor]


def attack_by_name(name: str, *overrides: str) -> Attack:
    """An attack of ``conf/attack``. Of several, such as ``worst``, each is tried on what those before it left.

    Args:
        name: as after ``attack=`` on the command line.
        overrides: other values, such as ``attack.steps=200`` or ``~attack.members.transfer``.

    Returns:
        A function of a model (N, C, H, W) → logits (N, K), images in [0, 1], their classes (N,) and ``eps``, which
        returns images within ``eps``. An attack that can leave a fooled image alone does so, unless the model answers
        at random. A suite then raises ValueError: which images still stand is not known.

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
    config = _configuration(f"attack={name}", *overrides)
    if config.attack.get("family") == CERTIFICATE:
        raise UserError(f"attack={name} is a proof and no attack: python -m src.sweep -m attack={name}")
    if "members" in config.attack:
        config.attack.survivors = True
    components = ComponentCache()
    spec = attack_spec(config, _data(config, config.attack, components), components)
    attack: Attack = components.build(spec.component)
    return partial(_stopping_early, attack) if spec.early_stop else attack


def _stopping_early(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    return attack(model, x, y, eps=eps, early_stop=not is_random(model, x))


def purifier_by_name(name: str, *overrides: str) -> nn.Module:
    """The purifier of a defense of ``conf/defense``, ready to stand before a classifier.

    Args:
        name: as after ``defense=`` on the command line.
        overrides: other values, such as ``noise=0.25`` or ``defense.purifier.k=8``.

    Returns:
        A module from images (N, C, H, W) in [0, 1] to images of that shape, in evaluation mode.

    Raises:
        UserError: there is no such defense or value, or its checkpoint is missing, damaged or of other data.

    Examples:
        >>> import torch
        >>> from src.workflows.named import purifier_by_name
        >>> purifier_by_name("binarize")(torch.tensor([[[[0.2, 0.8]]]]))
        tensor([[[[0., 1.]]]])
    """
    config = _configuration(f"defense={name}", *overrides)
    components = ComponentCache()
    spec = defense_spec(config, _data(config, config.defense, components), components)
    purifier: nn.Module = components.build(spec.component)
    return purifier.eval()


def _data(config: DictConfig, part: DictConfig, components: ComponentCache) -> ImageDataModule:
    """The data set of ``config``, fetched only if ``part`` has a checkpoint, which has to be of these data."""
    has_checkpoint = any(path.endswith("checkpoint") for path, _ in leaves(plain(part)))
    return components.data(config.data) if has_checkpoint else data_from_config(config.data)


def _configuration(*overrides: str) -> DictConfig:
    """That of a cell for an attacker who knows the defense, its values checked."""
    register_resolvers()
    try:
        with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
            return checked(compose("sweep", ["threat=adaptive", *overrides]), SweepSettings)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
