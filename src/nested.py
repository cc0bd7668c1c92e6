"""What is nested in mappings and lists."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def leaves(value: Any, path: str = "", separator: str = "/") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists by their paths, such as ``attack/steps`` or ``defense/0/k``.

    Args:
        value: what is nested, or a leaf.
        path: of ``value`` itself.
        separator: between the names of a path.
    """
    inner = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    if isinstance(inner, Mapping):
        for name, part in inner.items():
            yield from leaves(part, f"{path}{separator}{name}" if path else str(name), separator)
    else:
        yield path, value


def texts(values: Iterable[Any]) -> set[str]:
    """All texts anywhere in ``values``, such as the fingerprints of weights in identities of cells."""
    return {leaf for value in values for _, leaf in leaves(value) if isinstance(leaf, str)}


def rebuilt(value: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    """``value`` with what ``change`` makes of each mapping in it, the innermost first."""
    if isinstance(value, list):
        return [rebuilt(part, change) for part in value]
    if isinstance(value, Mapping):
        return change({name: rebuilt(part, change) for name, part in value.items()})
    return value
