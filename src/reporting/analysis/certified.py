"""Certified accuracy: which part of the test images no perturbation within an L2 radius can turn."""

import csv
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from src.errors import UserError
from src.evaluation.certificates import ABSTAIN, CertificateFile, Certification, CertifiedImage
from src.evaluation.grid import Grid
from src.evaluation.spec import number
from src.evaluation.statistics import certified_radius
from src.reporting.analysis.labels import spread
from src.reporting.analysis.rates import Rate

log = logging.getLogger(__name__)

#: Computed from the certificates that Jeong & Shin (arXiv:2006.04146) published with their code: LeNets trained under
#: the noise as Cohen et al. (arXiv:1902.02918) do, pixels in [0, 1], n = 100,000, alpha = 0.001; means of five
#: networks over all test images.
PUBLISHED = Path(__file__).with_name("published_certified.csv")
#: Samples and alpha of those.
PUBLISHED_N, PUBLISHED_ALPHA = 100_000, 0.001
#: The data set of those numbers.
PUBLISHED_DATA = "mnist"
#: What their rows and lines are called.
PUBLISHED_LABEL = "published, classifier trained under the noise"

#: Points of a curve that are drawn.
DRAWN = 300


@dataclass(frozen=True)
class CertifiedSet:
    """The certificates of one smoothed classifier."""

    certification: Certification
    images: tuple[CertifiedImage, ...]
    variant: str = ""  #: what tells it from another of the same σ and denoiser, such as ``n 1,000``; usually empty

    @property
    def sigma(self) -> float:
        return self.certification.sigma

    @property
    def label(self) -> str:
        """``σ 0.5 · vqvae 0.5``, and the variant."""
        return " · ".join(filter(None, [f"σ {number(self.sigma)}", self.certification.label, self.variant]))

    @cached_property
    def _radii(self) -> np.ndarray:
        """Certified radii of the correctly classified images, ascending."""
        return np.sort([image.radius for image in self.images if image.correct])

    def at(self, radius: float) -> Rate:
        """The certified accuracy at an L2 radius."""
        count = len(self._radii) - int(np.searchsorted(self._radii, radius, side="left"))
        return Rate.quoted(count / len(self.images), len(self.images))

    @property
    def average_radius(self) -> float:
        """ACR of Zhai et al. (arXiv:2001.02378): the mean of radius · correct."""
        return float(self._radii.sum()) / len(self.images)

    @property
    def average_radius_error(self) -> float:
        """Half the width of the 95 % interval of :attr:`average_radius`, by Student's t; NaN for a single image."""
        radii = [image.radius if image.correct else 0.0 for image in self.images]
        if len(radii) < 2:
            return math.nan
        return float(np.std(radii, ddof=1) / math.sqrt(len(radii)) * stdtrit(len(radii) - 1, 0.975))

    @property
    def abstained(self) -> int:
        return sum(image.predicted == ABSTAIN for image in self.images)

    @property
    def largest(self) -> float:
        """The largest certified radius of a correctly classified image; 0 if there is none."""
        return float(self._radii[-1]) if len(self._radii) else 0.0

    @property
    def limit(self) -> float:
        """The largest radius that the number of samples allows: that of an image whose samples are all of one class."""
        certification = self.certification
        return certified_radius(certification.n, certification.n, certification.sigma, certification.alpha)

    def curve(self) -> list[tuple[float, Rate]]:
        """(radius, certified accuracy): the accuracy at a radius holds back to the radius before it."""
        radii = spread([0.0, *np.unique(self._radii).tolist()], DRAWN)
        return [(radius, self.at(radius)) for radius in radii]


@dataclass(frozen=True)
class PublishedCertified:
    """A published curve, in percent by radius."""

    sigma: float
    average_radius: float
    abstained: int
    images: int
    percents: dict[float, float] = field(hash=False)

    @property
    def limit(self) -> float:
        """The largest radius that the number of samples allows."""
        return certified_radius(PUBLISHED_N, PUBLISHED_N, self.sigma, PUBLISHED_ALPHA)

    @property
    def label(self) -> str:
        """``σ 0.5 · published``."""
        return f"σ {number(self.sigma)} · published"


@dataclass(frozen=True)
class Certificates:
    """The certificates of one data set."""

    data: str
    suffix: str  #: for file names; empty if it is the only data set
    sets: tuple[CertifiedSet, ...]
    published: tuple[PublishedCertified, ...]  #: those of the same σ


def load_certified(folder: Path) -> list[CertifiedSet]:
    """All certificates below ``folder``, usually ``outputs/certified``, by data, σ and denoiser. What is damaged is
    named in a warning and left out."""
    sets = []
    for description in sorted(folder.glob("*.json")):
        try:
            file = CertificateFile.load(description)
            rows = file.rows()
        except UserError as error:
            log.warning("left out of the report: %s", error)
            continue
        if rows:
            sets.append(CertifiedSet(file.certification, tuple(rows[index] for index in sorted(rows))))
    return sorted(sets, key=_order)


def _order(certified_set: CertifiedSet) -> tuple[Any, ...]:
    certification = certified_set.certification
    return (
        certification.data,
        certification.sigma,
        certification.denoiser is None,
        certification.noise or 0,
        certification.n,
        certification.seed,
        certification.key,
    )


def of_grid(sets: Iterable[CertifiedSet], grid: Grid) -> list[CertifiedSet]:
    """The sets of the grid's classifier on images of the grid: the same data set and split, however many images."""
    identities = [row.cell.identity for row in grid if row.cell]
    in_grid = [_subject_of(identity) for identity in identities if isinstance(identity.get("data"), Mapping)]
    return [certified_set for certified_set in sets if _subject_of(certified_set.certification.identity) in in_grid]


def _subject_of(identity: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The classifier of a cell or a certification, and its images, whatever it calls them and however many it takes."""
    images = {name: value for name, value in identity["data"].items() if name not in ("name", "n")}
    return identity["classifier"], images


@cache
def published_certified() -> tuple[PublishedCertified, ...]:
    """The published curves."""
    with PUBLISHED.open(encoding="utf-8", newline="") as lines:
        return tuple(_published(row) for row in csv.DictReader(lines))


def _published(row: dict[str, str]) -> PublishedCertified:
    sigma, acr, abstained, images = (row.pop(name) for name in ("sigma", "acr", "abstained", "images"))
    percents = {float(radius): float(value) for radius, value in row.items()}
    return PublishedCertified(float(sigma), float(acr), int(abstained), int(images), percents)
