"""Figures of lines: accuracy against eps, clean against attacked accuracy, certified accuracy, training losses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from src.reporting.analysis.certified import Certificates, CertifiedSet
from src.reporting.analysis.facets import Column, Facet
from src.reporting.analysis.labels import column_label, number, unmathed
from src.reporting.analysis.rates import Rate
from src.reporting.analysis.replicates import Replicates
from src.reporting.analysis.tradeoff import TradeOffs
from src.reporting.figures.colours import FIXED, INK, column_styles, shades

if TYPE_CHECKING:
    from src.training_record import TrainingRecord

#: More noises than this are named by a colour bar instead of a legend.
IN_LEGEND = 8


def accuracy_curves(parts: Sequence[Facet | Replicates], attack: str, title: str) -> Figure:
    """Accuracy against eps under one attack: a line a column, error bars its 95 % Wilson intervals; of several seeds
    their mean, and as error bars the standard deviation. Several threats have a panel each, with the same lines."""
    if len(parts) > 1:
        return _panels(parts, attack, title)
    (part,) = parts
    figure, axes = _canvas(title, 7.4, 4.3)
    _accuracy_lines(axes, part, attack, part.columns)
    axes.set_xlabel(f"eps of {unmathed(attack)} (L∞, pixel units)")
    axes.set_ylabel("accuracy")
    _name_lines(figure, axes, part.columns)
    return figure


def _panels(parts: Sequence[Facet | Replicates], attack: str, title: str) -> Figure:
    count, columns = len(parts), list(dict.fromkeys(column for part in parts for column in part.columns))
    width, height = 3.4 * count + 1.9, 4.3
    figure = Figure(figsize=(width, height))
    figure.text(0.012, 1 - 0.12 / height, unmathed(title), fontsize=11, weight="bold", color=INK, va="top")
    panels = [
        figure.add_axes(((0.62 + 3.4 * i) / width, 0.56 / height, 3.1 / width, 1 - 1.15 / height)) for i in range(count)
    ]
    for axes, part in zip(panels, parts, strict=True):
        _style(axes)
        _accuracy_lines(axes, part, attack, columns)
        axes.set_title(unmathed(part.threat), fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel(f"eps of {unmathed(attack)} (L∞, pixel units)")
        axes.tick_params(labelleft=axes is panels[0])
    panels[0].set_ylabel("accuracy")
    _name_lines(figure, panels[-1], columns)
    return figure


def _accuracy_lines(axes: Axes, facet: Facet | Replicates, attack: str, columns: list[Column]) -> None:
    """A line a column with its error bars, styled as one of ``columns``."""
    styles, budgets = column_styles(columns, facet.grid.bare), facet.budgets(attack)
    for column in columns:
        rates = [facet.rate(attack, eps, column) for eps in budgets]
        if any(rates):
            middle, bars = _bars(rates)
            style = styles[column]
            axes.errorbar(
                budgets, middle, yerr=bars, label=_label(column), color=style.colour, marker=style.marker,
                ls="--" if style.dashed else "-", markersize=5, lw=1.6, elinewidth=1.1, capsize=2.5,
                zorder=4 if style.dashed else 3,
            )  # fmt: skip
    _percentages(axes)


def tradeoff_scatter(facet: Facet, found: TradeOffs, title: str) -> Figure:
    """Clean accuracy against the accuracy that the worst attack leaves: a point a column, noises joined by a line."""
    figure, axes = _canvas(title, 7.4, 4.3)
    styles = column_styles(facet.columns, facet.grid.bare)
    items = [item for item in found.items if item.clean and item.attacked]
    for defense in dict.fromkeys(item.defense for item in items if item.noise is not None):
        family = sorted(
            (i for i in items if i.defense == defense and i.noise is not None), key=lambda item: item.noise or 0
        )
        axes.plot(
            [100 * i.clean.fraction for i in family if i.clean],
            [100 * i.attacked.fraction for i in family if i.attacked],
            color="#b5bcc4", lw=1.2, zorder=1,
        )  # fmt: skip
    for item in items:
        style = styles[item.defense, item.noise]
        (x, x_bars), (y, y_bars) = _bars([item.clean]), _bars([item.attacked])
        axes.errorbar(
            x, y, xerr=x_bars, yerr=y_bars, label=unmathed(item.label), color=style.colour, marker=style.marker,
            ls="none", markersize=7, elinewidth=1.1, capsize=2.5, zorder=3,
        )  # fmt: skip
    axes.set_ylim(-3, 103)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}%"))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.margins(x=0.08)
    axes.set_xlabel("accuracy on clean images")
    axes.set_ylabel(f"accuracy at eps {number(found.eps or 0)}, worst attack")
    _name_lines(figure, axes, [(item.defense, item.noise) for item in items])
    return figure


def certified_curves(part: Certificates, title: str) -> Figure:
    """Certified accuracy against the L2 radius: a colour a σ, dashes without a denoiser, bands 95 % Wilson intervals;
    crosses are published."""
    figure, axes = _canvas(title, 8.6, 4.3, 3.45)
    tones = shades([each.certification.sigma for each in part.sets])
    for i, each in enumerate(part.sets):
        colour, style = tones[each.certification.sigma], _certified_line(each, part.sets[:i])
        radii, rates = zip(*each.curve(), strict=True)
        low, middle, high = (100 * np.array([getattr(r, name) for r in rates]) for name in ("low", "fraction", "high"))
        down = ((*radii, radii[-1]), (*middle, 0))
        axes.step(*down, where="pre", color=colour, ls=style, lw=1.7, label=unmathed(each.label))
        axes.fill_between(radii, low, high, step="pre", color=colour, alpha=0.16, lw=0)
    for theirs in part.published:
        shown = [(radius, share) for radius, share in theirs.percents.items() if share]
        axes.plot(*zip(*shown, strict=True), color=tones[theirs.sigma], marker="x", ls="none", ms=6, label=theirs.label)
    _percentages(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("L2 radius (pixel units)")
    axes.set_ylabel("certified accuracy")
    _legend(figure, axes, dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    return figure


def _certified_line(each: CertifiedSet, before: Sequence[CertifiedSet]) -> Any:
    """Dashes without a denoiser, else solid; shorter strokes for further ones of the same σ."""
    bare, sigma = each.certification.denoiser is None, each.certification.sigma
    places = [(other.certification.denoiser is None, other.certification.sigma) for other in before]
    styles = ("--", (0, (2, 2)), (0, (1, 3))) if bare else ("-", "-.", ":")
    return styles[min(places.count((bare, sigma)), 2)]


def training_curves(records: Sequence["TrainingRecord"], title: str) -> Figure:
    """Training loss against step, one panel a kind of model; dots are the validation loss at the end of an epoch."""
    models = list(dict.fromkeys(record.model for record in records))
    across = min(len(models), 3)
    down = -(-len(models) // across)
    width, height = max(4.4 * across, 6.4), 0.5 + 3.4 * down
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.62 / width, 0.52 / height, 0.985, 1 - 0.75 / height, wspace=0.24, hspace=0.42)
    figure.text(0.012, 1 - 0.12 / height, unmathed(title), fontsize=11, weight="bold", color=INK, va="top")
    for i, model in enumerate(models):
        axes = figure.add_subplot(down, across, i + 1)
        _style(axes)
        _losses(axes, [record for record in records if record.model == model])
        axes.set_title(unmathed(model), fontsize=9.5, color=INK, loc="left")
    return figure


def _losses(axes: Axes, records: Sequence["TrainingRecord"]) -> None:
    noises = [record.noise for record in records if record.noise is not None]
    tones = shades(noises)
    for i, record in enumerate(records):
        tone = FIXED[i % len(FIXED)] if record.noise is None else tones[record.noise]
        if record.losses:
            steps, losses = np.asarray(record.losses, dtype=float).T
            axes.plot(steps, losses, color=tone, lw=0.6, alpha=0.25)
            axes.plot(*_smooth(steps, losses), color=tone, lw=1.6, label=_record_label(record, records))
        ends = [(epoch["step"], epoch["val/loss"]) for epoch in record.epochs if {"step", "val/loss"} <= set(epoch)]
        if ends:
            axes.plot(*np.asarray(ends, dtype=float).T, color=tone, marker="o", ls="none", ms=4.5, mec="white", mew=0.8)
    values = [loss for record in records for _, loss in record.losses]
    if values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("loss (dots: validation)", fontsize=9)
    if values and (len(records) > 1 or noises) and len(records) <= IN_LEGEND:
        axes.legend(fontsize=8, frameon=False)
    elif noises:
        _colour_bar(axes.figure, axes, noises, "training noise")  # type: ignore[arg-type]


def _smooth(steps: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A moving average over a fiftieth of the run; single batches' losses jump."""
    window = max(1, len(losses) // 50)
    kernel = np.ones(window) / window
    return np.convolve(steps, kernel, "valid"), np.convolve(losses, kernel, "valid")


def _record_label(record: "TrainingRecord", among: Sequence["TrainingRecord"]) -> str:
    """What tells a record from the others."""
    parts = [] if record.noise is None else [f"noise {number(record.noise)}"]
    if len({other.data for other in among}) > 1:
        parts.append(unmathed(record.data))
    if len({other.seed for other in among}) > 1:
        parts.append(f"seed {record.seed}")
    return ", ".join(parts) or unmathed(record.model)


def _canvas(title: str, width: float, height: float, beside: float = 2.25) -> tuple[Figure, Axes]:
    """A figure with room for a legend on the right: ``beside`` inches left and right of the axes. Margins are set by
    hand: matplotlib's layout engines draw everything twice."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.66 / width, 0.56 / height, 1 - beside / width, 1 - 1.0 / height))
    figure.text(0.012, 1 - 0.12 / height, unmathed(title), fontsize=11, weight="bold", color=INK, va="top")
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8a9099")
    axes.grid(color="#e3e6ea", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, color="#8a9099", labelcolor=INK)


def _percentages(axes: Axes) -> None:
    """0 to 100 %, always, so that figures can be compared; a little room keeps bars at the ends whole."""
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))


def _bars(rates: Sequence[Rate | None]) -> tuple[list[float], list[list[float]]]:
    """Percentages and the lengths of their error bars downwards and upwards; a missing rate leaves a gap."""
    nothing = Rate(np.nan, np.nan, np.nan)
    known = [rate or nothing for rate in rates]
    below = [max(0.0, 100 * (rate.fraction - rate.low)) if rate.low == rate.low else np.nan for rate in known]
    above = [max(0.0, 100 * (rate.high - rate.fraction)) if rate.low == rate.low else np.nan for rate in known]
    return [100 * rate.fraction for rate in known], [below, above]


def _label(column: Column) -> str:
    return unmathed(column_label(*column))


def _name_lines(figure: Figure, axes: Axes, columns: Sequence[Column]) -> None:
    """A legend on the right; families of many noises get a colour bar each instead."""
    families: dict[str, list[float]] = {}
    for defense, noise in columns:
        if noise is not None:
            families.setdefault(defense, []).append(noise)
    many = {defense: noises for defense, noises in families.items() if len(noises) > IN_LEGEND}
    bars_of = {_label((defense, noise)): defense for defense, noise in columns if noise is not None}
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    shown = {label: line for label, line in lines.items() if bars_of.get(label) not in many}
    _legend(figure, axes, shown)
    for i, (defense, noises) in enumerate(many.items()):
        _colour_bar(figure, axes, noises, f"noise of {unmathed(defense)}", list(families).index(defense), i, len(many))


def _legend(figure: Figure, axes: Axes, lines: Mapping[str, Any]) -> None:
    """Names beside the upper right corner of the axes."""
    if lines:
        right = axes.get_position().x1 + 0.015
        figure.legend(
            lines.values(), lines.keys(), loc="upper left", bbox_to_anchor=(right, axes.get_position().y1 + 0.01),
            fontsize=8.5, frameon=False, handlelength=2.2, borderaxespad=0,
        )  # fmt: skip


def _colour_bar(
    figure: Figure, axes: Axes, noises: Sequence[float], label: str, family: int = 0, i: int = 0, count: int = 1
) -> None:
    """The i-th of ``count`` bars from light to dark, small noise to large, beside the lower half of the axes."""
    tones: Mapping[float, str] = shades(list(noises), family)
    box = axes.get_position()
    step = (1 - box.x1) / (count + 1) if count > 1 else 0.05
    where = figure.add_axes((box.x1 + 0.02 + i * step, box.y0, 0.02, 0.45 * box.height))
    bar = figure.colorbar(ScalarMappable(cmap=ListedColormap(list(tones.values()))), cax=where, ticks=[0, 0.5, 1])
    ordered = list(tones)
    bar.set_ticklabels([number(ordered[0]), number(ordered[len(ordered) // 2]), number(ordered[-1])])
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    bar.outline.set_visible(False)
