"""How numbers and names are written, the same in every table, figure and sentence."""

import hashlib
import re
from typing import TypeVar

from src.evaluation.spec import number

T = TypeVar("T")

#: What stands where a cell is not computed.
MISSING = "—"


def column_label(defense: str, noise: float | None) -> str:
    """``vqvae 0.5``, or the defense alone where it has no noise."""
    return defense if noise is None else f"{defense} {number(noise)}"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent, without the sign: 0.8321 → ``83.2``."""
    return f"{100 * fraction:.{digits}f}"


def marked(text: str, doubtful: bool) -> str:
    """A number with the sign that a check found a reason not to believe it: ``83.2?``."""
    return f"{text}?" if doubtful else text


def half_width(low: float, high: float) -> str:
    """Half of an interval of fractions, in points: ``±0.7``."""
    return plus_minus(50 * (high - low))


def plus_minus(half: float) -> str:
    """The length of an error bar in points: ``±0.7``. A second digit keeps it from rounding to ±0.0."""
    return f"±{half:.1f}" if half >= 0.05 else f"±{half:.2f}"


def points(difference: float, digits: int = 1) -> str:
    """A difference in percentage points with its sign: ``+2.0``, ``-0.1``, ``0.0``."""
    text = f"{difference:+.{digits}f}"
    return text[1:] if not float(text) else text


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def slug(name: str) -> str:
    """A name as part of a file name. Two names never share one: what had to be replaced is told apart by a hash."""
    safe = re.sub(r"[^A-Za-z0-9._+=-]+", "-", name)[:60]
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def spread(items: list[T], most: int) -> list[T]:
    """At most ``most`` (≥ 2) of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return items
    step = (len(items) - 1) / (most - 1)
    return [items[round(i * step)] for i in range(most)]
