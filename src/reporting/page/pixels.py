"""All images of the page in one block of bytes, each stack of them once."""

import base64
import gzip
from collections.abc import Mapping
from math import prod
from typing import Any

#: Bytes of pixels that a page may hold before it shows fewer images of each cell; compressed they are a third.
BUDGET = 4_000_000


class Pixels:
    """Collects stacks of images as :func:`src.encoded_images.encode_images` wrote them, and gives each a number.

    Args:
        budget: bytes; however many stacks are added, each is cut to as many images as fit, at least one.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._stacks: dict[str, tuple[int, list[int]]] = {}  #: number and shape by base64, in the order of the numbers

    def add(self, stored: Mapping[str, Any]) -> int:
        """The number of a stack (N, C, H, W); the same for the same pixels."""
        number, _ = self._stacks.setdefault(stored["uint8"], (len(self._stacks), stored["shape"]))
        return number

    @property
    def shown(self) -> int:
        """How many images of each stack there is room for, at least one."""
        one_each = sum(prod(shape[1:]) for _, shape in self._stacks.values())
        return max(1, self.budget // one_each) if one_each else 0

    def shapes(self) -> list[list[int]]:
        """(images kept, C, H, W) of every stack, in the order of their pixels in :meth:`packed`."""
        return [[min(shape[0], self.shown), *shape[1:]] for _, shape in self._stacks.values()]

    def packed(self) -> str:
        """The pixels, 8 bits each, one stack after the other; gzip, base64."""
        pieces = (base64.b64decode(code)[: self.shown * prod(shape[1:])] for code, (_, shape) in self._stacks.items())
        return pack(b"".join(pieces))


def pack(content: bytes) -> str:
    """Bytes for a page to unpack: gzip, base64. The same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
