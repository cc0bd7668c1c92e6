"""A folder of images through a purifier."""

import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning import LightningModule
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from src.data.picture_files import ENDINGS, Contents, contents, without_links
from src.data.progress import progress_bar
from src.errors import UserError
from src.files import write_atomically
from src.images import check_purified
from src.randomness import reseed
from src.single_image import as_batch
from src.workflows.building import build
from src.workflows.schema import PurifySettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)


def purify_from_config(config: DictConfig) -> None:
    """Purify what ``conf/purify.yaml`` and the command line say.

    Raises:
        UserError: there are no images, the output would lie over something, the purifier is not to be had, or some
            images could not be purified: these are named one by one, and the others written.
    """
    if missing := [name for name in ("input", "output") if OmegaConf.is_missing(config, name)]:
        raise UserError(f"say which folder is the {' and which the '.join(missing)}: python -m src.purify in/ out/")
    config = checked(config, PurifySettings)
    source, target = (Path(config[name]).expanduser() for name in ("input", "output"))
    files, others = planned(source, target, config.overwrite)
    purifier = build(config.defense.purifier)
    reseed(config.seed)  # for a random purifier
    failed = purify_files(purifier, files)
    for path, reason in failed.items():
        log.error("%s: %s", path, reason)
    aside = f"; files of other endings left out: {others}" if others else ""
    if len(failed) < len(files):
        purified = f"{len(files) - len(failed)} images through {config.defense.name} -> {target}"
        log.info("%s%s", purified, "" if failed else aside)
    if failed:
        raise UserError(f"{len(failed)} of {len(files)} images were not purified{aside}")


class Plan(NamedTuple):
    """What is purified."""

    files: dict[Path, Path]  #: each image, with the PNG file that it becomes
    others: int  #: files of other endings


def planned(source: Path, target: Path, overwrite: bool) -> Plan:
    """Which image becomes which file.

    Links to folders are followed, and hidden files and folders passed over, as by ``data=folder``.

    Args:
        source: a folder of images, in folders of any depth.
        target: where the others go; not within ``source``.
        overwrite: whether files in ``target`` may be replaced.

    Raises:
        UserError: there is no image, a folder cannot be read, or a file would be written over another.
    """
    if not source.is_dir():
        raise UserError(f"input={source} is not a folder")
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"output={target} is not a folder")
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"output={target} and input={source} lie within one another: nothing is written over the input")
    inside = contents(source)
    if not inside.pictures:
        raise UserError(f"input={source} holds no images ({', '.join(sorted(ENDINGS))})")
    files = {path: (target / path.relative_to(source)).with_suffix(".png") for path in inside.pictures}
    _check_apart(source, inside, files)
    sources: dict[Path, Path] = {}
    for path, written in files.items():
        if written in sources:
            raise UserError(f"{sources[written]} and {path} would both become {written}: rename one of them")
        if not overwrite and os.path.lexists(written):
            raise UserError(f"{written} is there already; overwrite=true replaces it, another output leaves it alone")
        sources[written] = path
    return Plan(files, inside.others)


def _check_apart(source: Path, inside: Contents, files: Mapping[Path, Path]) -> None:
    """UserError if a file would be written over an image or into a folder of the input, by whatever links."""
    images = {without_links(path) for path in inside.pictures}
    folders = {folder: without_links(folder) for folder in {written.parent for written in files.values()}}
    linked = {folder for folder, real in folders.items() if not inside.folders.isdisjoint((real, *real.parents))}
    for written in files.values():
        real = folders[written.parent] / written.name
        if written.parent in linked or real in images:
            raise UserError(f"{written} is {real}, which belongs to input={source}: nothing is written over the input")


def purify_files(purifier: nn.Module, files: Mapping[Path, Path]) -> dict[Path, str]:
    """Write what ``purifier`` makes of each image; returns why some could not be purified, a line each.

    Args:
        purifier: images (1, C, H, W) in [0, 1] → images of the same shape.
        files: the images, each with the PNG file that it becomes.

    Raises:
        UserError: a file cannot be written.
    """
    channels, failed = _channels(purifier), {}
    with progress_bar("purifying", len(files), unit="images") as advance:
        for path, written in files.items():
            try:
                purified = _purified(purifier, path, channels)
            except Exception as error:  # Pillow's decoders and other people's modules may raise anything
                reason = str(error).replace(repr(str(path)), "it")
                failed[path] = " ".join(reason.split())[:200] or type(error).__name__
            else:
                write_atomically(written, partial(purified.save, format="PNG"))
            advance(1)
    return failed


def _channels(purifier: nn.Module) -> int | None:
    """The channels of the images that a trained purifier was made for; None: it takes any."""
    trained = [module for module in purifier.modules() if isinstance(module, LightningModule)]
    return next((int(module.hparams["in_channels"]) for module in trained if "in_channels" in module.hparams), None)


@torch.no_grad()
def _purified(purifier: nn.Module, path: Path, channels: int | None) -> Image.Image:
    with Image.open(path) as file:
        x = as_batch(file)
    if channels is not None and x.shape[1] != channels:
        kinds = {1: "grey", 3: "coloured"}
        raise ValueError(f"it is {kinds[x.shape[1]]}, and this purifier was trained on {kinds[channels]} images")
    x_hat = purifier(x)
    check_purified(x_hat, x)
    if not x_hat.isfinite().all():
        raise ValueError("the purifier made values of it that are not finite")
    return _image(x_hat[0].clamp(0, 1))


def _image(values: Tensor) -> Image.Image:
    """(C, H, W) in [0, 1] with 8 bits a value."""
    pixels = (values * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
