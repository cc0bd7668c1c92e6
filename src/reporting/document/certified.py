"""What certificates say: a table, and sentences on what they promise and what not."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from src.evaluation.certificates import Certification
from src.evaluation.spec import number
from src.reporting.analysis.certified import (
    PUBLISHED_DATA,
    PUBLISHED_LABEL,
    Certificates,
    CertifiedSet,
    PublishedCertified,
    published_certified,
)
from src.reporting.analysis.labels import listed, percent, slug
from src.reporting.document.sections import Section
from src.reporting.document.tables import Entry, Table, rate_entry

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


def certified_sections(sets: Sequence[CertifiedSet]) -> list[Section[Certificates]]:
    """A section for each data set."""
    names = list(dict.fromkeys(certified_set.certification.data for certified_set in sets))
    return [_section(data, sets, f"-{slug(data)}" if len(names) > 1 else "") for data in names]


def _section(data: str, sets: Sequence[CertifiedSet], suffix: str) -> Section[Certificates]:
    own_sets = _told_apart([certified_set for certified_set in sets if certified_set.certification.data == data])
    sigmas = {certified_set.sigma for certified_set in own_sets}
    published = tuple(curve for curve in published_certified() if data == PUBLISHED_DATA and curve.sigma in sigmas)
    subject, title = Certificates(data, suffix, own_sets, published), f"Certified accuracy · {data}"
    return Section(subject, title, _sentences(own_sets), (_table(own_sets, published),), CERTIFIED_LEGEND)


def _told_apart(sets: Sequence[CertifiedSet]) -> tuple[CertifiedSet, ...]:
    """The sets; those of one σ and denoiser say what differs between them."""
    labelled_sets = []
    for certified_set in sets:
        peer_settings = [_settings(other.certification) for other in sets if other.label == certified_set.label]
        own_settings = _settings(certified_set.certification)
        differing = [
            f"{name} {value}"
            for name, value in own_settings.items()
            if len({other[name] for other in peer_settings}) > 1
        ]
        labelled_sets.append(replace(certified_set, variant=", ".join(differing)))
    return tuple(labelled_sets)


def _settings(certification: Certification) -> dict[str, str]:
    """What can tell certificates of one σ and denoiser apart."""
    denoiser = certification.identity["denoiser"] or {}
    return {
        "n": f"{certification.n:,}",
        "n0": f"{certification.n0:,}",
        "alpha": f"{certification.alpha:g}",
        "seed": str(certification.seed),
        "classifier": certification.classifier if ":" in certification.classifier else certification.classifier[:8],
        "denoiser": str(denoiser.get("checkpoint"))[:8],
        "precision": str(certification.identity.get("precision", "float32")),
    }


def _table(sets: Sequence[CertifiedSet], published: Sequence[PublishedCertified]) -> Table:
    """One row per smoothed classifier, published ones after ours of the same σ; one column per radius."""
    radii = table_radii(max(certified_set.largest for certified_set in sets))
    rows = []
    for sigma, group in groupby(sets, key=attrgetter("sigma")):
        rows += [(certified_set.label, _entries(certified_set, radii)) for certified_set in group]
        curves = [curve for curve in published if curve.sigma == sigma]
        rows += [(f"σ {number(sigma)} · {PUBLISHED_LABEL}", _published_entries(curve, radii)) for curve in curves]
    columns = (*map(number, radii), "ACR", "abstained", "images")
    return Table("Certified accuracy at an L2 radius", "radius", columns, tuple(rows))


def table_radii(largest: float) -> list[float]:
    """The radii of a table: multiples of 0.25, or of more if these were too many, up to the largest certified one."""
    step = next((step for step in STEPS if largest / step < COLUMNS), STEPS[-1])
    return [i * step for i in range(int(largest / step) + 1)]


def _entries(certified_set: CertifiedSet, radii: Sequence[float]) -> tuple[Entry, ...]:
    images = len(certified_set.images)
    error = certified_set.average_radius_error
    average = Entry(f"{certified_set.average_radius:.3f}", "" if math.isnan(error) else f"±{error:.3f}")
    others = (f"{percent(certified_set.abstained / images)} %", f"{images:,}")
    rates = [rate_entry(certified_set.at(radius)) if radius <= certified_set.limit else Entry() for radius in radii]
    return (*rates, average, *map(Entry, others))


def _published_entries(curve: PublishedCertified, radii: Sequence[float]) -> tuple[Entry, ...]:
    shares = {radius: curve.percents.get(radius, 0.0) / 100 for radius in radii}
    rates = [Entry(percent(share), "", share) if radius <= curve.limit else Entry() for radius, share in shares.items()]
    others = (f"{curve.average_radius:.3f}", f"{percent(curve.abstained / curve.images)} %", f"{curve.images:,}")
    return (*rates, *map(Entry, others))


def _sentences(sets: Sequence[CertifiedSet]) -> tuple[str, ...]:
    """What the certificates say, and what they do not."""
    alphas = sorted({certified_set.certification.alpha for certified_set in sets})
    confidence = listed([f"{percent(1 - alpha, 2).rstrip('0').rstrip('.')} %" for alpha in alphas])
    return (
        *(_comparison(sigma, sets) for sigma in sorted({certified_set.sigma for certified_set in sets})),
        f"These are guarantees against any attacker, each with a confidence of {confidence}. They are about the "
        "smoothed classifier, which takes a vote over noisy copies of an image, and not about the defended classifier "
        "of the grid, which looks at an image once.",
        f"Even if all samples were of one class no radius could exceed {_limits(sets)}.",
        "A radius r is an L2 distance: of images with d pixels it covers L∞ perturbations of up to r/√d, for 28×28 "
        "pixels r/28.",
    )


def _comparison(sigma: float, sets: Sequence[CertifiedSet]) -> str:
    """``With σ 0.5, …`` at radius 0 and σ, for each denoiser and for none."""
    clauses = "; ".join(_clause(certified_set) for certified_set in sets if certified_set.sigma == sigma)
    return f"Smoothed with σ {number(sigma)}, the frozen classifier has a certified accuracy of {clauses}."


def _clause(certified_set: CertifiedSet) -> str:
    sigma, certification = certified_set.sigma, certified_set.certification
    at_zero, at_sigma = (percent(certified_set.at(radius).fraction) for radius in (0, sigma))
    denoiser = "without a denoiser" if certification.denoiser is None else f"with {certification.label}"
    variant = f" ({certified_set.variant})" if certified_set.variant else ""
    return f"{at_zero} % at radius 0 and {at_sigma} % at {number(sigma)} {denoiser}{variant}"


def _limits(sets: Sequence[CertifiedSet]) -> str:
    """The largest possible radius for each σ and number of samples, whatever the confidence."""
    limits: dict[tuple[float, int], float] = {}
    for certified_set in sets:
        place = certified_set.sigma, certified_set.certification.n
        limits[place] = max(limits.get(place, 0.0), certified_set.limit)
    return listed([f"{limit:.2f} (σ {number(sigma)}, n {n:,})" for (sigma, n), limit in limits.items()])
