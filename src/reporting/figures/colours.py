"""Colours, the same in figures, page and terminal; readable by the colour-blind and in grey."""

from collections.abc import Collection
from colorsys import hls_to_rgb, rgb_to_hls
from dataclasses import dataclass

from src.evaluation.spec import Column

#: Accuracy 0 to 1, pale to dark (ColorBrewer's YlGnBu).
HEAT = ("#ffffd9", "#edf8b1", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#0c2c84")
#: Shades of one family of trained defenses, small noise to large.
RAMPS = (
    ("#8fc1e3", "#3f8fc7", "#0f5a9e", "#04224d"),
    ("#c9a6d6", "#9a5fb5", "#6a2c8c", "#33094d"),
    ("#a9cf8f", "#63a055", "#2c6e35", "#0b3315"),
)
#: Okabe and Ito's colours, for defenses without noise.
FIXED = ("#e69f00", "#009e73", "#d55e00", "#cc79a7", "#8c6d31", "#7f7f7f")
#: Symbols by the names that Vega has for them, or as paths.
SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left")
CROSS = "M-.8,-1L0,-.2L.8,-1L1,-.8L.2,0L1,.8L.8,1L0,.2L-.8,1L-1,.8L-.2,0L-1,-.8Z"
#: Strokes: lengths of dashes and gaps.
SOLID, DASHED, DASH_DOTTED, DOTTED = (1, 0), (7, 4), (7, 3, 2, 3), (2, 3)
INK, SOFT, LINE, RIGHT, WRONG = "#222222", "#5a6068", "#dfe2e6", "#0065a8", "#c8500a"


@dataclass(frozen=True)
class Style:
    """How a line and its points are drawn."""

    colour: str
    shape: str = "stroke"  #: a line without points
    dash: tuple[int, ...] = SOLID


def blend(stops: tuple[str, ...], position: float) -> str:
    """The colour at ``position`` in [0, 1] along evenly spaced stops, as ``#rrggbb``."""
    offset = min(max(position, 0.0), 1.0) * (len(stops) - 1)
    left = min(int(offset), len(stops) - 2)
    share = offset - left
    pairs = zip(_rgb(stops[left]), _rgb(stops[left + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def heat(fraction: float) -> tuple[str, str]:
    """Background and ink for an accuracy: whichever of black and white has more contrast, 4.5 at least (WCAG 2, AA)."""
    background = blend(HEAT, fraction)
    return background, "#ffffff" if _luminance(background) < 0.179 else "#000000"


def shades(values: list[float], family: int = 0) -> dict[float, str]:
    """A colour for each value, ordered from light to dark."""
    ordered = sorted(set(values))
    ramp = RAMPS[family % len(RAMPS)]
    return {value: blend(ramp, i / (len(ordered) - 1) if len(ordered) > 1 else 0.5) for i, value in enumerate(ordered)}


def on_dark(colour: str) -> str:
    """The same hue for a dark page: what is dark on white is light there, so that the order of shades stays."""
    hue, lightness, saturation = rgb_to_hls(*(channel / 255 for channel in _rgb(colour)))
    return "#" + "".join(f"{round(255 * c):02x}" for c in hls_to_rgb(hue, 0.99 - 0.75 * lightness, saturation))


def column_styles(columns: list[Column], bare: Collection[Column]) -> dict[Column, Style]:
    """A style for each column: black dashes for those of ``bare``, which have no defense, one ramp a family
    of noises, else a colour of its own."""
    families = list(dict.fromkeys(defense for defense, noise in columns if noise is not None))
    tones = {
        name: shades([noise for defense, noise in columns if defense == name and noise is not None], i)
        for i, name in enumerate(families)
    }
    plain = [column for column in columns if column[1] is None and column not in bare]
    styles: dict[Column, Style] = {}
    for column in columns:
        defense, noise = column
        if noise is not None:
            styles[column] = Style(tones[defense][noise], "circle" if defense == families[0] else "triangle-right")
        elif column in bare:
            styles[column] = Style(INK, CROSS, DASHED)
        else:
            i = plain.index(column)
            styles[column] = Style(FIXED[i % len(FIXED)], SHAPES[i % len(SHAPES)])
    return styles


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
