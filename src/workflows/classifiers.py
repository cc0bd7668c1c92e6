"""Which classifier a sweep protects: a checkpoint of ours, a pre-trained one by name, or anyone's by what makes it."""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.errors import UserError, in_a_line
from src.randomness import seeded
from src.workflows.building import build, plain
from src.workflows.own_code import code_of, marked, state_fingerprint


@dataclass(frozen=True)
class OwnClassifier:
    """A user's own classifier x → logits, frozen, in eval mode, on the CPU.

    A cell knows it by the name of its factory, the file that defines it and the fingerprint of its parameters and
    buffers, because two modules of equal weights may compute different things; a pre-trained one by its component.
    Other files that this one imports are not looked at.
    """

    name: str  #: such as ``package.module:factory``
    module: nn.Module
    weights: str | None  #: fingerprint; None without parameters and buffers
    code: str | None = None  #: hash of the file; None for a package's
    component: dict[str, Any] | None = None  #: of a pre-trained network, as :func:`src.workflows.own_code.marked`

    @property
    def identity(self) -> dict[str, Any]:
        """What stands for it in the identity of a cell."""
        more = {"code": self.code, "component": self.component}
        known = {name: value for name, value in more.items() if value is not None}
        return {"factory": self.name, "weights": self.weights} | known


def is_factory(asked: Any) -> bool:
    """Whether ``classifier=`` asks for ``package.module:factory`` or a pre-trained network by name, and not for a
    checkpoint."""
    return _is_python_name(asked) or _pretrained(asked) is not None


def _is_python_name(classifier: Any) -> bool:
    module, colon, attribute = classifier.partition(":") if isinstance(classifier, str) else ("", "", "")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def _pretrained(classifier: Any) -> Any:
    """The component of the pre-trained network of this name; None if there is none."""
    file = _pretrained_files().get(classifier) if isinstance(classifier, str) else None
    return OmegaConf.load(file) if file else None


def _pretrained_files() -> dict[str, Path]:
    """``conf/pretrained/<name>.yaml`` by name, of all folders that Hydra searches, the first of a name. It is no group
    of Hydra's: ``classifier=`` takes other things as well."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    folders = [Path(source.path) / "pretrained" for source in sources if source.schema == "file"]
    return {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}


def checkpoint_of(asked: Any, data: str) -> tuple[Path, str]:
    """The checkpoint that ``classifier=`` asks for, and the command that makes it.

    Args:
        asked: the mapping of ``conf/shared/classifier.yaml``, or a path alone.
        data: name of the data set.

    Raises:
        UserError: it is something else.
    """
    if isinstance(asked, dict) and isinstance(asked["checkpoint"], str):
        return Path(asked["checkpoint"]), asked["remedy"]
    asked = asked["checkpoint"] if isinstance(asked, dict) else asked
    if isinstance(asked, str) and (asked.endswith(".ckpt") or Path(asked).is_file()):
        return Path(asked), f"python -m src.train model=classifier data={data} model.checkpoint={asked}"
    raise UserError(
        f"classifier={asked} is neither package.module:factory nor a checkpoint (a file, .ckpt), nor one that is "
        f"pre-trained: {', '.join(_pretrained_files()) or 'none'}"
    )


def build_own(name: str, image_shape: Sequence[int], num_classes: int) -> OwnClassifier:
    """Build a user's own classifier, and take two images through it.

    Module and factory run under a fixed seed: weights that they draw are the same in every process, and so are cells.

    Args:
        name: ``package.module:factory``, importable; the factory is called without arguments and returns a module
            x (N, C, H, W) in [0, 1] → logits (N, K), or is such a module itself. Or the name of a pre-trained network.
        image_shape: (C, H, W).
        num_classes: K.

    Raises:
        UserError: it cannot be imported or called, or is no such module.
    """
    component = plain(_pretrained(name))
    with seeded(0):
        module = build(component) if component else _made(name)
        if not isinstance(module, nn.Module):
            raise UserError(f"classifier={name} gives {type(module).__name__}, not an nn.Module x -> logits")
        module = module.cpu().eval().requires_grad_(False)
        _try_out(name, module, image_shape, num_classes)
    weights = state_fingerprint(f"classifier={name}", module)
    if component:
        return OwnClassifier(name, module, weights, component=marked(component))
    return OwnClassifier(name, module, weights, code_of(name.replace(":", ".")))


def _made(name: str) -> Any:
    """What the factory of this name returns."""
    factory = _imported(name)
    try:
        return factory() if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:
        raise UserError(f"classifier={name} failed when called without arguments: {in_a_line(error)}") from error


def _imported(name: str) -> Any:
    """What stands in a module under this name."""
    path, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise UserError(
            f"classifier={name}: cannot import {path} from the current folder or PYTHONPATH: {in_a_line(error)}"
        ) from error
    try:
        return attrgetter(attribute)(module)
    except AttributeError as error:
        raise UserError(f"classifier={name}: {path} has no {attribute}") from error


def _try_out(name: str, module: nn.Module, image_shape: Sequence[int], num_classes: int) -> None:
    """Take two images with all shades of grey through the module: one would not tell a module that loses the batch."""
    shades = torch.linspace(0, 1, 2 * math.prod(image_shape)).view(2, *image_shape)
    images = shades.clone()
    try:
        with torch.no_grad():
            logits = module(images)
    except Exception as error:
        raise UserError(f"classifier={name} fails on images {tuple(images.shape)}: {in_a_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        output = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"classifier={name} turned images {tuple(images.shape)} into {output}, not into logits (2, {num_classes})"
        )
    if not torch.equal(images, shades):
        raise UserError(f"classifier={name} changes its input in place; let it work on a copy")
