"""What certificates say: a table, and sentences on what they promise and what not."""

import math
from collections.abc import Sequence

from src.evaluation.certificates import Certification
from src.reporting.analysis.certified import (
    PUBLISHED_DATA,
    PUBLISHED_LABEL,
    Certificates,
    CertifiedSet,
    PublishedCertified,
    published_certified,
)
from src.reporting.analysis.labels import listed, number, percent, slug
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
    names = list(dict.fromkeys(each.certification.data for each in sets))
    return [_section(data, sets, f"-{slug(data)}" if len(names) > 1 else "") for data in names]


def _section(data: str, sets: Sequence[CertifiedSet], suffix: str) -> Section[Certificates]:
    mine = _told_apart([each for each in sets if each.certification.data == data])
    sigmas = {each.certification.sigma for each in mine}
    beside = tuple(each for each in published_certified() if data == PUBLISHED_DATA and each.sigma in sigmas)
    subject, title = Certificates(data, suffix, mine, beside), f"Certified accuracy · {data}"
    return Section(subject, title, _sentences(mine), (_table(mine, beside),), CERTIFIED_LEGEND)


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
