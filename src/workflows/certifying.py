"""From a certification's configuration to certificates of images."""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from src.defended import DefendedClassifier
from src.errors import UserError, in_a_line
from src.evaluation.certificates import SCHEMA, CertificateFile, Certification, CertifiedImage
from src.evaluation.components import TestSet
from src.evaluation.evaluator import BATCH_SIZE, full_precision, trainer_on
from src.evaluation.grid import latest_sweep
from src.evaluation.model_checks import PROBED, check_model
from src.evaluation.smoothing import certify, image_stream
from src.evaluation.spec import numbers_as_floats
from src.precision import Precision, computing_in
from src.reporting.analysis.certified import load_certified
from src.reporting.report import write_certified
from src.reporting.terminal import print_certified
from src.reporting.wandb.certified import log_certified
from src.workflows.building import build, plain
from src.workflows.cells import components_for
from src.workflows.component_cache import ComponentCache
from src.workflows.lineage import weights_behind
from src.workflows.reporting import refresh
from src.workflows.schema import CertifySettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)

#: Seconds between two lines where there is no terminal to draw a progress bar on.
EVERY = 30.0


@dataclass(frozen=True)
class Plan:
    """What is to be certified, and how to get at its parts."""

    certification: Certification
    held_out: TestSet
    indices: Sequence[int]  #: of those images
    load_base: Callable[[], DefendedClassifier]  #: the function that is smoothed: images (N, C, H, W) -> logits
    precision: Precision  #: that it computes in, which is part of what function it is


def plan_from_config(config: DictConfig, components: ComponentCache) -> Plan:
    """What ``conf/certify.yaml`` and the command line ask for, checked; computes nothing.

    Raises:
        UserError: a value out of range, a checkpoint that is missing, damaged, of other data or another noise.
    """
    denoise, precision = config.denoise, config.precision
    settings: dict[str, Any] = {"sigma": float(config.sigma), "alpha": float(config.alpha)}
    settings |= {name: config[name] for name in ("n0", "n", "seed")}
    data = components.data(config.data)
    images = components.data_spec(data, config.split, None)
    classifier = components.classifier_identity(plain(config.classifier), data, config.split)
    if denoise and config.model.noise is None:
        raise UserError(f"model={config.model.name} is no denoiser: it was not trained on noise; try model=vqvae")
    denoiser = components.identified(plain(config.denoiser) if denoise else None, data, config.split)
    identity: dict[str, Any] = {
        "schema": SCHEMA,
        "data": {"name": images.name, "fingerprint": images.fingerprint} | dict(images.split),
        "classifier": classifier,
        "denoiser": numbers_as_floats(denoiser),
        **settings,
    } | ({} if precision == "float32" else {"precision": precision})
    certification = Certification(
        data=images.label,
        denoiser=config.model.name if denoise else None,
        noise=float(config.noise) if denoise else None,
        identity=identity,
        **settings,
    )

    def load_base() -> DefendedClassifier:
        return DefendedClassifier(components.classifier(classifier), components.build(denoiser))

    return Plan(certification, components.images(images), _chosen(config, images.n), load_base, precision)


def certify_from_config(config: DictConfig) -> None:
    """Certify what the configuration asks for and is not stored, and tell of it."""
    config = checked(config, CertifySettings)
    plan = plan_from_config(config, components_for(config))
    _tell(_complete(plan, config), config)


def _complete(plan: Plan, config: DictConfig) -> CertificateFile:
    """Compute and store the certificates that are missing."""
    device = trainer_on(config.trainer.accelerator, []).strategy.root_device
    base = plan.load_base().to(device).to(memory_format=torch.channels_last)
    file = CertificateFile(Path(config.paths.outputs) / "certified", plan.certification)
    batch_size = config.batch_size or BATCH_SIZE.get(device.type, BATCH_SIZE["cpu"])
    compute = partial(_certified, plan, base, device, batch_size)
    _check_base(plan, base, device)
    about = f"{plan.certification.label}, σ {plan.certification.sigma:g}, n {plan.certification.n:,}"
    stored = len(_stored(file, plan.indices))
    log.info("%s: %d images, %d of them stored -> %s", about, len(plan.indices), stored, file.path)
    with _progress(file, plan.indices) as tell, full_precision(), computing_in(plan.precision, device):
        for _ in file.complete(plan.indices, compute):
            tell()
    return file


def _check_base(plan: Plan, base: DefendedClassifier, device: torch.device) -> None:
    """Refuse a classifier and a denoiser whose certificates would mean nothing.

    Raises:
        UserError: see :func:`src.evaluation.model_checks.check_model`.
    """
    images, classes = plan.held_out.images[:PROBED].to(device), plan.held_out.num_classes
    try:
        with full_precision(), computing_in(plan.precision, device):
            check_model(base.classifier, base.defense, images, classes)
    except Exception as error:
        raise UserError(f"{plan.certification.label} cannot be certified: {in_a_line(error)}") from error


def _tell(file: CertificateFile, config: DictConfig) -> None:
    """Bring the report up to date, print and log these certificates."""
    outputs, checkpoints = Path(config.paths.outputs), Path(config.paths.checkpoints)
    sets = load_certified(file.path.parent)
    key = file.certification.key
    current = next(certified for certified in sets if certified.certification.key == key)
    sweep, report = latest_sweep(outputs / "sweeps"), outputs / "report"
    refreshed = refresh(outputs, sweep, checkpoints) if sweep else None
    if refreshed and key in [certified.certification.key for certified in refreshed.certified]:
        page, paths = report / "index.html", refreshed.written.paths
    else:  # there is no sweep, or the newest is one of other data
        page, paths = report / "certified.md", write_certified(sets, report).paths
    print_certified([current], Console())
    log.info("report, beside others: %s", page)
    if config.logger.cells:
        figures = [path for path in paths if path.stem.startswith("certified") and path.suffix == ".png"]
        weights = weights_behind([current.certification.identity], checkpoints)
        log_certified(current, figures, build(config.logger.cells), weights)


def _certified(plan: Plan, base: nn.Module, device: torch.device, batch: int, index: int) -> CertifiedImage:
    """The certificate of one image."""
    certification, begin = plan.certification, time.perf_counter()
    certificate = certify(
        base,
        plan.held_out.images[index].to(device),
        certification.sigma,
        n0=certification.n0,
        n=certification.n,
        alpha=certification.alpha,
        batch=batch,
        generator=image_stream(certification.seed, index, device),
    )
    seconds, label = time.perf_counter() - begin, int(plan.held_out.labels[index])
    return CertifiedImage(
        index,
        label,
        certificate.predicted,
        certificate.radius,
        certificate.count,
        certificate.n,
        certification.n0,
        seconds,
    )


def _stored(file: CertificateFile, indices: Sequence[int]) -> list[CertifiedImage]:
    """Those of the images that are certified, by whichever process."""
    rows = file.rows()
    return [rows[index] for index in indices if index in rows]


@contextmanager
def _progress(file: CertificateFile, indices: Sequence[int]) -> Iterator[Callable[[], None]]:
    """A function to be called after every image: it moves a bar where stderr is a terminal, and logs a line every now
    and then where it is none."""
    sigma, total, is_terminal = file.certification.sigma, len(indices), sys.stderr.isatty()
    before, begin = len(_stored(file, indices)), time.monotonic()
    last = -math.inf
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not is_terminal)
    task = bar.add_task("certifying", total=total, completed=before)

    def tell() -> None:
        nonlocal last
        images, now = _stored(file, indices), time.monotonic()
        words = f"certified at radius 0: {_share(images, 0.0)}, at {sigma:g}: {_share(images, sigma)}"
        bar.update(task, completed=len(images), description=words)
        if not is_terminal and now - last >= EVERY:
            remaining = (now - begin) / (len(images) - before) * (total - len(images))
            log.info("[%d/%d, %s left] %s", len(images), total, duration(remaining), words)
            last = now

    with bar:
        yield tell


def _share(images: Sequence[CertifiedImage], radius: float) -> str:
    return f"{sum(image.holds_at(radius) for image in images) / len(images):.1%}"


def duration(seconds: float) -> str:
    """Seconds for the eye: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _chosen(config: DictConfig, size: int) -> range:
    """Which of a test set's images are asked for: ``images`` of them, every ``skip``-th, from the first on."""
    images, skip = config.images, config.skip
    step = skip or max(1, size // (images or size))
    indices = range(0, size, step)[:images]
    if images is not None and len(indices) < images:
        every = f" with skip={skip}" if skip else ""
        raise UserError(f"images={images} is out of range: there are {len(indices)}{every}, or null for all")
    return indices
