"""All images of the page in one block of bytes, each stack of them once."""

import base64
import gzip
from collections.abc import Mapping
from typing import Any

#: Bytes of pixels that a page may hold before it shows fewer images of each cell; compressed they are a third.
BUDGET = 4_000_000


class Pixels:
    """Collects stacks of images as :func:`src.images.encode_images` wrote them, and gives each a number.

    Args:
        budget: bytes; however many stacks are added, each is cut to as many images as fit, at least one.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._numbers: dict[str, int] = {}
        self._stacks: list[tuple[list[int], str]] = []

    def add(self, stored: Mapping[str, Any]) -> int:
        """The number of a stack (N, C, H, W); the same for the same pixels."""
        code = stored["uint8"]
        if code not in self._numbers:
            self._numbers[code] = len(self._stacks)
            self._stacks.append((list(stored["shape"]), code))
        return self._numbers[code]

    @property
    def shown(self) -> int:
        """How many images of each stack there is room for."""
        most = max((shape[0] for shape, _ in self._stacks), default=0)
        one_each = sum(_area(shape) for shape, _ in self._stacks)
        return max(1, min(most, self.budget // one_each)) if one_each else 0

    def shapes(self) -> list[list[int]]:
        """(images kept, C, H, W) of every stack, in the order of their pixels in :meth:`packed`."""
        return [[min(shape[0], self.shown), *shape[1:]] for shape, _ in self._stacks]

    def packed(self) -> str:
        """The pixels, 8 bits each, one stack after the other; gzip, base64."""
        pieces = (base64.b64decode(code)[: min(shape[0], self.shown) * _area(shape)] for shape, code in self._stacks)
        return pack(b"".join(pieces))


def pack(content: bytes) -> str:
    """Bytes for a page to unpack: gzip, base64. The same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _area(shape: list[int]) -> int:
    return shape[1] * shape[2] * shape[3]
