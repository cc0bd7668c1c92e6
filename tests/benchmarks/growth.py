"""How a sweep's time and memory grow with images, cells and attack steps."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.harness import Measurement, Timed, alternate
from tests.benchmarks.parts import CLASSIFIER, Process, Settings, scratch, sweep, vqvae_name

NOISE = 0.25
NEEDS = (CLASSIFIER, vqvae_name(NOISE))
ABOUT = (
    "Whole `python -m src.sweep` processes into empty folders, without W&B, in turn over all sizes: images (FGSM "
    "0.3, no defense and one VQ-VAE), cells (FGSM at many eps, no defense and one VQ-VAE, 50 images) and steps of "
    "I-FGSM (no defense, 250 images). Result: the largest peak of resident memory. The exponent is the slope of a "
    "line through the logarithms of size and of the time above that of a start, which is the same command on 1 "
    "image with 1 step (cells: 2 cells); 1 is proportional growth. The plot shows the times above a start."
)


@dataclass(frozen=True)
class Axis:
    """A quantity that is varied, and what a sweep of such a size is asked."""

    name: str
    sizes: tuple[int, ...]
    start: int  #: the size whose time is start-up
    overrides: Callable[[int], Sequence[str]]


def axes(settings: Settings) -> list[Axis]:
    """Images, cells and steps."""
    both = ("defense=none,vqvae", f"noise={NOISE}", "attack=fgsm")
    few = settings.size(50, 4)

    def images(number: int) -> Sequence[str]:
        return (*both, "eps=0.3", f"limit={number}")

    def cells(number: int) -> Sequence[str]:
        return (*both, "eps=" + ",".join(f"{(i + 1) / 100:g}" for i in range(number // 2)), f"limit={few}")

    def steps(number: int) -> Sequence[str]:
        limit = settings.size(250, 4) if number > 1 else 1
        return ("defense=none", "attack=ifgsm", "eps=0.3", f"iterative.steps={number}", f"limit={limit}")

    if settings.quick:
        return [Axis("images", (20, 40), 1, images), Axis("cells", (4, 6), 2, cells), Axis("steps", (2, 4), 1, steps)]
    return [
        Axis("images", (1000, 2000, 5000, 10000), 1, images),
        Axis("cells", (6, 12, 24, 48), 2, cells),
        Axis("steps", (10, 20, 40, 80), 1, steps),
    ]


@dataclass(frozen=True)
class Curve:
    """Seconds and memory by size along one axis."""

    axis: Axis
    seconds: Mapping[int, float]  #: medians
    peak_mib: Mapping[int, float]

    @property
    def above_start(self) -> dict[int, float]:
        """Seconds beyond those of a start."""
        return {size: self.seconds[size] - self.seconds[self.axis.start] for size in self.axis.sizes}

    @property
    def exponent(self) -> float:
        return exponent(self.above_start)


def exponent(seconds: Mapping[int, float]) -> float:
    """b of the least-squares fit seconds = a · sizeᵇ; NaN where a time is not above that of a start."""
    if min(seconds.values()) <= 0:
        return math.nan
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def measure(settings: Settings) -> Iterator[Measurement]:
    """Every axis' sizes and its exponent; draws ``growth.png``."""
    curves = []
    settings.output.mkdir(parents=True, exist_ok=True)
    for axis in axes(settings):
        curve, rounds = _curve(axis, settings)
        curves.append(curve)
        for size, seconds in curve.seconds.items():
            note = "start" if size == axis.start else ""
            memory = f"{curve.peak_mib[size]:.0f} MiB"
            what = f"{size} {axis.name}"
            yield Measurement("growth", what, "s", seconds, rounds=rounds, our_result=memory, note=note)
        yield _exponent(curve)
    draw(curves, settings.output / "growth.png")


def _exponent(curve: Curve) -> Measurement:
    what, fitted = f"exponent, {curve.axis.name}", curve.exponent
    if math.isnan(fitted):
        return Measurement("growth", what, "", None, note="nothing to fit: the times are those of a start")
    return Measurement("growth", what, "", fitted, note="goal: at most 1 or so")


def _curve(axis: Axis, settings: Settings) -> tuple[Curve, int]:
    peaks: dict[int, float] = {}

    def run(size: int) -> Timed:
        with scratch(settings.output) as outputs:
            process: Process = sweep(settings, outputs, *axis.overrides(size), "logger=none")
        peaks[size] = max(process.peak_mib, peaks.get(size, 0.0))
        return Timed(process.seconds)

    rounds = 1 if settings.quick else settings.rounds  # a start takes seconds, and there are many
    run(axis.start)  # files into the cache
    runs = {str(size): lambda size=size: run(size) for size in (axis.start, *axis.sizes)}
    seconds, _ = alternate(runs, rounds)
    return Curve(axis, {int(size): statistics.median(spent) for size, spent in seconds.items()}, peaks), rounds


def draw(curves: Sequence[Curve], path: Path) -> None:
    """A panel an axis: seconds above a start (left) and peak memory (right) against size."""
    from src.reporting.figures.charts import picture
    from src.reporting.figures.gallery import save

    save(picture({"hconcat": [_panel(curve) for curve in curves]}, "Time and memory against size"), path)


def _panel(curve: Curve) -> dict[str, Any]:
    from src.reporting.figures.colours import FIXED, INK

    above = curve.above_start
    rows = [{"size": n, "above": above[n], "memory": curve.peak_mib[n]} for n in curve.axis.sizes]
    x = {"field": "size", "type": "quantitative", "title": f"number of {curve.axis.name}", "scale": {"type": "log"}}
    scale = {"type": "log" if min(above.values()) > 0 else "linear"}
    exponents = {} if math.isnan(curve.exponent) else {"title": f"exponent {curve.exponent:.2f}"}
    lines = [
        ("above", "time above a start (s)", scale, INK, [1, 0]),
        ("memory", "peak memory (MiB)", {"zero": True}, FIXED[0], [7, 4]),
    ]
    return exponents | {
        "data": {"values": rows},
        "width": 300,
        "height": 240,
        "encoding": {"x": x | {"axis": {"values": list(curve.axis.sizes), "format": ","}}},
        "resolve": {"scale": {"y": "independent"}},
        "layer": [
            {
                "mark": {"type": "line", "point": {"color": colour}, "color": colour, "strokeDash": dash},
                "encoding": {
                    "y": {"field": field, "type": "quantitative", "title": title, "scale": how}
                    | {"axis": {"titleColor": colour, "grid": field == "above"}}
                },
            }
            for field, title, how, colour, dash in lines
        ],
    }
