"""Made-up cells, grids and training records with plausible numbers and digit-like images."""

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from src.encoded_images import encode_images
from src.evaluation import Cell, Coordinates
from src.evaluation.certificates import Certification, CertifiedImage
from src.evaluation.grid import Grid, GridRow
from src.evaluation.smoothing import ABSTAIN
from src.evaluation.spec import content_key
from src.evaluation.statistics import certified_radius
from src.reporting.analysis.certified import CertifiedSet
from src.training_record import TrainingRecord

#: (defense, noise) and (accuracy at eps 0, accuracy at eps 0.3 under fgsm), fractions.
COLUMNS: dict[tuple[str, float | None], tuple[float, float]] = {
    ("none", None): (0.984, 0.012),
    ("kmeans", None): (0.983, 0.021),
    ("binarize", None): (0.982, 0.821),
    ("vqvae", 0.0): (0.983, 0.269),
    ("vqvae", 0.25): (0.979, 0.355),
    ("vqvae", 0.5): (0.964, 0.417),
    ("vqvae", 0.75): (0.919, 0.385),
}
ATTACKS = ("fgsm", "ifgsm", "mifgsm")
BUDGETS = (0.0, 0.1, 0.2, 0.3)


def coordinates(attack: str = "fgsm", eps: float = 0.3, **others: Any) -> Coordinates:
    """Coordinates of an undefended cell on MNIST unless told otherwise."""
    usual = {"data": "mnist", "threat": "gray_box", "defense": "none", "noise": None, "protocol": "default"}
    return Coordinates(attack=attack, eps=eps, **(usual | {"seed": 0} | others))


def cell(
    where: Coordinates,
    accuracy: float = 0.5,
    n: int = 10_000,
    clean: float = 0.98,
    undefended: float = 0.01,
    examples: dict[str, Any] | None = None,
    **identity: Any,
) -> Cell:
    """A cell of which the first ``accuracy * n`` images count as correct."""
    correct = round(accuracy * n)
    at_zero = {"attack": None, "threat": None} if where.eps == 0 else {"attack": where.attack, "threat": where.threat}
    facts = {
        "data": where.data,
        "classifier": f"{where.seed:x}" + "c" * 63,
        "eps": where.eps,
        "defense": where.defense,
        "noise": where.noise,
    }
    facts |= at_zero | {"protocol": where.protocol, "seed": where.seed, "n": n} | identity
    return Cell(
        key=content_key(facts),
        coordinates=where,
        n=n,
        outcomes="1" * correct + "0" * (n - correct),
        predictions=[0] * n,
        clean_accuracy=clean,
        undefended_accuracy=undefended,
        perturbation_l2=1.0,
        perturbation_linf=where.eps,
        reconstruction_mse=0.01,
        propagations={"forward": 10 * n, "backward": 10 * n} if where.eps else {},
        stages={"attack": 3.0, "purify": 0.0006 * n, "classify": 1.0},
        identity=facts,
        examples=examples or {},
        environment={"torch": "2.14.1", "device": "cpu"},
        per_class=[[len(range(k, correct, 10)), len(range(k, n, 10))] for k in range(10)],
    )


def row(made: Cell) -> GridRow:
    at = made.coordinates
    bare, learned = at.defense == "none", at.noise is not None
    return GridRow(at, made.key, made, bare, learned, informed=at.threat == "adaptive")


def without(grid: Grid, **where: Any) -> Grid:
    """The grid with the cells at these coordinates missing."""
    gone = {id(found) for found in grid.where(**where)}
    return Grid(tuple(replace(each, cell=None) if id(each) in gone else each for each in grid))


def make_grid(
    attacks: Sequence[str] = ATTACKS,
    budgets: Sequence[float] = BUDGETS,
    columns: dict[tuple[str, float | None], tuple[float, float]] | None = None,
    n: int = 10_000,
    images: bool = False,
    **others: Any,
) -> Grid:
    """A grid whose accuracies fall with eps from each column's first number to its second; later attacks are
    stronger by 0.3 points each. ``others``: coordinates shared by all rows."""
    columns = COLUMNS if columns is None else columns
    rows = []
    for i, attack in enumerate(attacks):
        for eps in budgets:
            for j, ((defense, noise), (clean, worst)) in enumerate(columns.items()):
                where = coordinates(attack, eps, defense=defense, noise=noise, **others)
                share = (eps / max(max(budgets), 1e-9)) ** (3 if defense != "none" else 1.4)
                accuracy = clean + (max(worst - 0.003 * i, 0) - clean) * share
                shown = draw_examples(eps, noise or 0.0, min(j, 6)) if images else None
                rows.append(row(cell(where, accuracy, n, clean=clean, examples=shown)))
    return Grid(tuple(rows))


#: How far the accuracies of a seed lie above those of seed 0 in :func:`make_replicates`, as fractions.
SHIFTS = {0: 0.0, 1: 0.012, 2: -0.004}


def make_replicates(seeds: Sequence[int] = (0, 1, 2), **others: Any) -> Grid:
    """:func:`make_grid` once for each seed, a row's seeds one after the other as a sweep has them."""
    grids = []
    for seed in seeds:
        columns = {
            column: (clean + SHIFTS[seed] / 4, max(worst + SHIFTS[seed] * (1 + j), 0))
            for j, (column, (clean, worst)) in enumerate(COLUMNS.items())
        }
        grids.append(make_grid(columns=columns, seed=seed, **others))
    return Grid(tuple(each for rows in zip(*grids, strict=True) for each in rows))


def draw_digits(count: int = 10, side: int = 28, seed: int = 0) -> np.ndarray:
    """Images (N, 1, H, W) of soft strokes on black, float32 in [0, 1]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    images = np.zeros((count, side, side), np.float32)
    for image in images:
        points = np.cumsum(generator.normal(0, 0.13, (7, 2)), axis=0)
        points = 0.5 + (points - points.mean(0)) * 0.9
        for (a, b), (c, d) in itertools.pairwise(points):
            for t in np.linspace(0, 1, 12):
                distance = (x - a - (c - a) * t) ** 2 + (y - b - (d - b) * t) ** 2
                np.maximum(image, np.exp(-distance / 0.0025), out=image)
    return np.clip(images * 1.3, 0, 1)[:, None]


_DIGITS = draw_digits()


@cache
def draw_examples(eps: float, noise: float, column: int) -> dict[str, Any]:
    """What a cell keeps of its first images: attacked is noisier with eps, purified blurrier with noise."""
    generator = np.random.default_rng(int(1000 * eps))
    attacked = np.clip(_DIGITS + eps * np.sign(generator.normal(size=_DIGITS.shape)), 0, 1)
    blur = attacked.copy()
    for _ in range(min(column, 4)):
        blur = (blur + np.roll(blur, 1, 2) + np.roll(blur, 1, 3)) / 3
    labels = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    wrong = round(10 * eps / 0.3 * (0.9 - 0.4 * noise)) if eps else 0
    predictions = [(y + 3) % 10 if i % 10 < wrong else y for i, y in enumerate(labels)]
    images = {"original": _DIGITS, "attacked": attacked, "purified": blur if column else attacked}
    encoded = {name: encode_images(torch.from_numpy(value)) for name, value in images.items()}
    return encoded | {
        "labels": labels,
        "predictions": predictions,
        "confidences": [0.9] * 10,
        "undefended_predictions": [3] * 10,
    }


def make_records(noises: Sequence[float] = (0.0, 0.25, 0.5, 0.75), images: bool = True) -> list[TrainingRecord]:
    """A classifier's training run and one of a VQ-VAE for each noise."""
    records = [make_record("classifier", None, images=False)]
    return records + [make_record("vqvae", noise, images=images) for noise in noises]


def make_record(model: str, noise: float | None, images: bool, seed: int = 0) -> TrainingRecord:
    generator = np.random.default_rng(seed)
    steps = np.arange(0, 2400, 10)
    start = 2.3 if noise is None else 0.2 + 0.2 * noise
    losses = start * np.exp(-steps / 300) + 0.1 * start + 0.02 * start * generator.random(len(steps))
    pictures = {}
    if images:
        noisy = np.clip(_DIGITS + (noise or 0) * generator.normal(size=_DIGITS.shape), 0, 1)
        drawn = {"original": _DIGITS, "noisy": noisy, "reconstruction": np.roll(_DIGITS, 1, 2) * 0.9}
        pictures = {name: encode_images(torch.from_numpy(value)) for name, value in drawn.items()}
    return TrainingRecord(
        model=model,
        data="mnist",
        noise=noise,
        seed=seed,
        weights=f"{model}{noise}",
        seconds=12.0,
        losses=[(int(step), float(loss)) for step, loss in zip(steps, losses, strict=True)],
        epochs=[{"epoch": i, "step": 400.0 * (i + 1), "val/loss": start * 0.12 + 0.1 / (i + 1)} for i in range(6)],
        examples=pictures,
    )


#: The data set of made-up certificates.
DATA = {"name": "mnist", "fingerprint": "f00d"}


def certification(sigma: float = 0.5, denoiser: str | None = "vqvae", **others: Any) -> Certification:
    """Of made-up networks, through a denoiser or without one."""
    usual: dict[str, Any] = {"data": "mnist", "n0": 100, "n": 100_000, "alpha": 0.001, "seed": 0} | others
    noise = sigma if denoiser else None
    identity = {
        "data": DATA | {"name": usual["data"]},
        "classifier": "0" + "c" * 63,  # as of cells of seed 0
        "denoiser": {"checkpoint": "d" * 64} if denoiser else None,
        "sigma": sigma,
    }
    return Certification(
        denoiser=denoiser, noise=noise, sigma=sigma, identity=identity | {"settings": [denoiser, usual]}, **usual
    )


def certified(*radii: float, wrong: int = 0, abstained: int = 0, **settings: Any) -> CertifiedSet:
    """Correct images with at least these radii, then wrong ones of 0.9, then abstentions. Radii follow from votes."""
    asked = certification(**settings)
    rows = [(1, radius) for radius in radii] + [(2, 0.9)] * wrong + [(ABSTAIN, 0.0)] * abstained

    def radius_of(count: int) -> float:
        return certified_radius(count, asked.n, asked.sigma, asked.alpha)

    def image(index: int, predicted: int, radius: float) -> CertifiedImage:
        count = bisect_left(range(asked.n), radius, key=radius_of) if radius else asked.n // 2
        return CertifiedImage(10 * index, 1, predicted, radius_of(count), count, asked.n, asked.n0, 1.0)

    return CertifiedSet(asked, tuple(image(i, *row) for i, row in enumerate(rows)))
