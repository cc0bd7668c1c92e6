"""``paths.weights``: checkpoints that a command needs and that are not there come from a folder that others packed."""

import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from src.errors import UserError
from src.files import write_bytes
from src.models.shared_weights import SharedNetwork, fetched, shared_networks

log = logging.getLogger(__name__)


def supply(config: DictConfig) -> None:
    """Bring the missing checkpoints of a command's components from ``paths.weights``.

    A component is a mapping with a ``checkpoint`` and the ``remedy`` that trains it. Its checkpoint is brought if it
    lies in ``paths.checkpoints``, in the folder of a data set; then it has a name to look for. What is there already,
    whatever it is, stays as it is. If ``paths.weights`` does not have a checkpoint, its remedy says so: only who
    builds the component knows whether it is needed.

    Args:
        config: of a command; changed in place.

    Raises:
        UserError: ``paths.weights`` cannot be read, or what it has is damaged or another network.
    """
    source, folder = config.paths.weights, Path(config.paths.checkpoints)
    for part in _with_checkpoint(config, _unused(config)):
        path = Path(str(part.checkpoint))
        if path.parent.parent != folder or os.path.lexists(path):
            continue
        network = _named(path, source)
        if network is None:
            note = f" (paths.weights={source} has no {path.parent.name}/{path.stem})"
            part.remedy = part.remedy.removesuffix(note) + note  # once, however often a configuration is checked
        else:
            _refuse_other_noise(network, part, source)
            _bring(network, source, path, part.remedy)


def shared_noises(config: DictConfig) -> set[float]:
    """The training noises of the networks that ``paths.weights`` has for the data and the seed of ``config``; none, and
    a warning, if it cannot be read."""
    if not config.paths.get("weights"):
        return set()
    try:
        networks = shared_networks(config.paths.weights)
    except UserError as error:
        log.warning("%s", error)
        return set()
    matches = [network for network in networks if network.data == config.data.name and network.seed == config.seed]
    return {network.noise for network in matches if network.noise is not None}


def _unused(config: DictConfig) -> set[str]:
    """What stands in a command's configuration and is not built by it."""
    unused = {"hydra"}
    if "denoiser" in config:  # certify: the model is there to name the denoiser
        unused |= {"model"} if config.denoise else {"model", "denoiser"}
    if "part" in config:  # export
        unused |= {"purifier": {"classifier"}, "classifier": {"defense"}}.get(config.part, set())
    return unused


def _with_checkpoint(node: DictConfig | ListConfig, unused: Collection[str] = ()) -> Iterator[DictConfig]:
    """The components within ``node`` that are made of a checkpoint, but for those under the names ``unused``.
    Interpolations are passed over: what they stand for has a place of its own."""
    if isinstance(node, DictConfig) and "checkpoint" in node and "remedy" in node:
        yield node
    names: list[Any] = [*range(len(node))] if isinstance(node, ListConfig) else [*node.keys()]
    for name in names:
        if name in unused or OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if OmegaConf.is_config(node[name]):
            yield from _with_checkpoint(node[name])


def _named(path: Path, source: str) -> SharedNetwork | None:
    """The network of ``source`` that has the name of a checkpoint."""
    name = (path.parent.name, path.stem)
    return next((network for network in shared_networks(source) if (network.data, network.name) == name), None)


def _refuse_other_noise(network: SharedNetwork, part: DictConfig, source: str) -> None:
    noise = part.get("noise")
    if network.noise is not None and noise is not None and network.noise != noise:
        raise UserError(
            f"{network.file} of paths.weights={source} was trained with noise {network.noise:g}, not {noise}; it was "
            f"not kept: train it with: {part.remedy}"
        )


def _bring(network: SharedNetwork, source: str, path: Path, remedy: str) -> None:
    content = fetched(network, source, remedy)
    if os.path.lexists(path):  # a training was quicker
        return
    write_bytes(path, content)
    log.info("%s: from paths.weights=%s, verified (%.1f MB)", path, source, len(content) / 1e6)
