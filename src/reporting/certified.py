"""Certified accuracy: which part of the test images no perturbation within an L2 radius can turn."""

import csv
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from src.errors import UserError
from src.evaluation.certificates import ABSTAIN, CertificateFile, Certification, CertifiedImage
from src.evaluation.grid import Grid
from src.evaluation.statistics import certified_radius
from src.reporting.labels import listed, number, percent, slug, spread
from src.reporting.rates import Rate
from src.reporting.tables import Entry, Table, rate_entry

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

#: Said above the table.
CERTIFIED_LEGEND = (
    "Certified accuracy in percent ± half the width of its 95 % Wilson interval: images that the smoothed classifier "
    "provably classifies correctly whatever moves them by up to that L2 radius, in pixel units. ACR: the average "
    "certified radius, 0 for an image that is classified wrongly, ± half the width of its 95 % interval by Student's "
    "t. —: further than the number of samples can certify."
)

#: Radii are a multiple of the first of these with which the table has at most ``COLUMNS`` of them.
STEPS = (0.25, 0.5, 1.0)
COLUMNS = 9

#: Points of a curve that are drawn.
DRAWN = 300


@dataclass(frozen=True)
class CertifiedSet:
    """The certificates of one smoothed classifier."""

    certification: Certification
    images: tuple[CertifiedImage, ...]
    variant: str = ""  #: what tells it from another of the same σ and denoiser, such as ``n 1,000``; usually empty

    @property
    def about(self) -> str:
        """``vqvae 0.5``, and the variant."""
        return " · ".join(filter(None, [self.certification.label, self.variant]))

    @property
    def label(self) -> str:
        """``σ 0.5 · vqvae 0.5``."""
        return f"σ {number(self.certification.sigma)} · {self.about}"

    @cached_property
    def _radii(self) -> np.ndarray:
        """Certified radii of the correctly classified images, ascending."""
        return np.sort([image.radius for image in self.images if image.correct])

    def at(self, radius: float) -> Rate:
        """The certified accuracy at an L2 radius."""
        holds = len(self._radii) - int(np.searchsorted(self._radii, radius, side="left"))
        return Rate.quoted(holds / len(self.images), len(self.images))

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
        return float(np.std(radii, ddof=1) / math.sqrt(len(radii)) * t.ppf(0.975, len(radii) - 1))

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
        asked = self.certification
        return certified_radius(asked.n, asked.n, asked.sigma, asked.alpha)

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


@dataclass(frozen=True)
class CertifiedPart:
    """The certificates of one data set, ready to be drawn."""

    data: str
    suffix: str  #: for file names; empty if it is the only data set
    sets: tuple[CertifiedSet, ...]
    published: tuple[PublishedCertified, ...]  #: those of the same σ
    sentences: tuple[str, ...]
    table: Table

    @property
    def title(self) -> str:
        return f"Certified accuracy · {self.data}"


def load_certified(folder: Path) -> list[CertifiedSet]:
    """All certificates below ``folder``, usually ``outputs/certified``, by data, σ and denoiser. What is damaged is
    named in a warning and left out."""
    found = []
    for description in sorted(folder.glob("*.json")):
        try:
            file = CertificateFile.load(description)
            rows = file.rows()
        except UserError as error:
            log.warning("left out of the report: %s", error)
            continue
        if rows:
            found.append(CertifiedSet(file.certification, tuple(rows[index] for index in sorted(rows))))
    return sorted(found, key=_order)


def _order(each: CertifiedSet) -> tuple[Any, ...]:
    asked = each.certification
    return (asked.data, asked.sigma, asked.denoiser is None, asked.noise or 0, asked.n, asked.seed, asked.key)


def of_grid(sets: Iterable[CertifiedSet], grid: Grid) -> list[CertifiedSet]:
    """Those that were computed on images of the grid: the same data set and split, as many of them or not."""
    identities = [row.cell.identity.get("data") for row in grid if row.cell]
    known = [_images_of(data) for data in identities if isinstance(data, dict)]
    return [each for each in sets if _images_of(each.certification.identity["data"]) in known]


def _images_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Which images an identity is about, whatever it calls them and however many it takes."""
    return {name: value for name, value in data.items() if name not in ("name", "n")}


def certified_parts(sets: Sequence[CertifiedSet]) -> list[CertifiedPart]:
    """A part for each data set."""
    names = list(dict.fromkeys(each.certification.data for each in sets))
    parts = []
    for data in names:
        mine = _told_apart([each for each in sets if each.certification.data == data])
        sigmas = {each.certification.sigma for each in mine}
        beside = tuple(each for each in published_certified() if data == PUBLISHED_DATA and each.sigma in sigmas)
        suffix = f"-{slug(data)}" if len(names) > 1 else ""
        parts.append(CertifiedPart(data, suffix, mine, beside, _sentences(mine), _table(mine, beside)))
    return parts


@cache
def published_certified() -> tuple[PublishedCertified, ...]:
    """The published curves."""
    with PUBLISHED.open(encoding="utf-8", newline="") as lines:
        return tuple(_published(row) for row in csv.DictReader(lines))


def _published(row: dict[str, str]) -> PublishedCertified:
    sigma, acr, abstained, images = (row.pop(name) for name in ("sigma", "acr", "abstained", "images"))
    percents = {float(radius): float(value) for radius, value in row.items()}
    return PublishedCertified(float(sigma), float(acr), int(abstained), int(images), percents)


def _told_apart(sets: Sequence[CertifiedSet]) -> tuple[CertifiedSet, ...]:
    """The sets, those of one σ and denoiser with what differs between them."""
    told = []
    for each in sets:
        alike = [_settings(other.certification) for other in sets if other.label == each.label]
        mine = _settings(each.certification)
        differing = [f"{name} {value}" for name, value in mine.items() if len({other[name] for other in alike}) > 1]
        told.append(CertifiedSet(each.certification, each.images, ", ".join(differing)))
    return tuple(told)


def _settings(asked: Certification) -> dict[str, str]:
    """What can tell certificates of one σ and denoiser apart."""
    denoiser = asked.identity["denoiser"] or {}
    return {
        "n": f"{asked.n:,}",
        "n0": f"{asked.n0:,}",
        "alpha": f"{asked.alpha:g}",
        "seed": str(asked.seed),
        "classifier": asked.classifier if ":" in asked.classifier else asked.classifier[:8],
        "denoiser": str(denoiser.get("checkpoint"))[:8],
        "precision": str(asked.identity.get("precision", "float32")),
    }


def _table(sets: Sequence[CertifiedSet], published: Sequence[PublishedCertified]) -> Table:
    """A row a smoothed classifier, the published one after ours of the same σ; a column a radius."""
    radii = table_radii(max(each.largest for each in sets))
    rows = []
    for i, each in enumerate(sets):
        rows.append((each.label, _entries(each, radii)))
        last = i + 1 == len(sets) or sets[i + 1].certification.sigma != each.certification.sigma
        theirs = [one for one in published if last and one.sigma == each.certification.sigma]
        rows += [(f"σ {number(one.sigma)} · {PUBLISHED_LABEL}", _published_entries(one, radii)) for one in theirs]
    columns = (*map(number, radii), "ACR", "abstained", "images")
    return Table("Certified accuracy at an L2 radius", "radius", columns, tuple(rows))


def table_radii(largest: float) -> list[float]:
    """The radii of a table: multiples of 0.25, or of more if these were too many, up to the largest certified one."""
    step = next((step for step in STEPS if largest / step < COLUMNS), STEPS[-1])
    return [i * step for i in range(int(largest / step) + 1)]


def _entries(each: CertifiedSet, radii: Sequence[float]) -> tuple[Entry, ...]:
    images = len(each.images)
    error = each.average_radius_error
    average = Entry(f"{each.average_radius:.3f}", "" if math.isnan(error) else f"±{error:.3f}")
    others = (f"{percent(each.abstained / images)} %", f"{images:,}")
    rates = [rate_entry(each.at(radius)) if radius <= each.limit else Entry() for radius in radii]
    return (*rates, average, *map(Entry, others))


def _published_entries(each: PublishedCertified, radii: Sequence[float]) -> tuple[Entry, ...]:
    shares = {radius: each.percents.get(radius, 0.0) / 100 for radius in radii}
    rates = [Entry(percent(share), "", share) if radius <= each.limit else Entry() for radius, share in shares.items()]
    others = (f"{each.average_radius:.3f}", f"{percent(each.abstained / each.images)} %", f"{each.images:,}")
    return (*rates, *map(Entry, others))


def _sentences(sets: Sequence[CertifiedSet]) -> tuple[str, ...]:
    """What the certificates say, and what they do not."""
    alphas = sorted({each.certification.alpha for each in sets})
    certain = listed([f"{percent(1 - alpha, 2).rstrip('0').rstrip('.')} %" for alpha in alphas])
    return (
        *(_comparison(sigma, sets) for sigma in sorted({each.certification.sigma for each in sets})),
        f"These are guarantees against any attacker, each with a confidence of {certain}. They are about the smoothed "
        "classifier, which takes a vote over noisy copies of an image, and not about the defended classifier of the "
        "grid, which looks at an image once.",
        f"Even if all samples were of one class no radius could exceed {_limits(sets)}.",
        "A radius r is an L2 distance: of images with d pixels it covers L∞ perturbations of up to r/√d, for 28×28 "
        "pixels r/28.",
    )


def _comparison(sigma: float, sets: Sequence[CertifiedSet]) -> str:
    """``With σ 0.5, …`` at radius 0 and σ, for each denoiser and for none."""
    clauses = [
        f"{percent(each.at(0).fraction)} % at radius 0 and {percent(each.at(sigma).fraction)} % at {number(sigma)} "
        + ("without a denoiser" if each.certification.denoiser is None else f"with {each.certification.label}")
        + (f" ({each.variant})" if each.variant else "")
        for each in sets
        if each.certification.sigma == sigma
    ]
    return f"Smoothed with σ {number(sigma)}, the frozen classifier has a certified accuracy of {'; '.join(clauses)}."


def _limits(sets: Sequence[CertifiedSet]) -> str:
    """The largest possible radius for each σ and number of samples."""
    reached = {}
    for each in sets:
        asked = each.certification
        reached[asked.sigma, asked.n] = f"{each.limit:.2f} (σ {number(asked.sigma)}, n {asked.n:,})"
    return listed(list(reached.values()))
