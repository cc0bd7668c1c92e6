"""A drawing of any size as an image like those of MNIST."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: The longer side of a digit and the side of its image in MNIST, in pixels.
BOX, FIELD = 20, 28


def like_mnist(ink: Tensor, image_shape: Sequence[int] = (1, FIELD, FIELD)) -> Tensor:
    """Scale and place a drawing as MNIST's digits are (LeCun et al., http://yann.lecun.com/exdb/mnist).

    What is drawn is scaled, its proportions kept, until its longer side is 20 pixels of 28, and moved by whole pixels
    until its centre of mass is at the centre of the image, which in MNIST is the pixel (14, 14) give or take half a
    pixel. Its darkest ink becomes 1, as it is in all but a few of MNIST's images. For images of another size the box
    has the same share of them; one that would stick out of the image is moved back into it.

    Args:
        ink: (H, W), finite, ≥ 0: how much of it there is at each place, in any unit. 0 where nothing is drawn.
        image_shape: (C, H, W) of the image; all channels are alike.

    Returns:
        float32 of ``image_shape`` in [0, 1], the drawing bright on black.

    Raises:
        ValueError: nothing is drawn.
    """
    drawing = ink.float() / ink.max().clamp_min(torch.finfo(torch.float32).tiny)
    rows, columns = (_extent((drawing > 0).any(1 - axis)) for axis in (0, 1))
    channels, *field = image_shape
    box = max(1, round(min(field) * BOX / FIELD))
    scale = box / max(rows.stop - rows.start, columns.stop - columns.start)
    size = [max(1, round((span.stop - span.start) * scale)) for span in (rows, columns)]
    small = F.interpolate(drawing[None, None, rows, columns], size, mode="area")[0, 0]
    image = torch.zeros(field)
    top, left = (_begin(small.sum(1 - axis), field[axis]) for axis in (0, 1))
    image[top : top + size[0], left : left + size[1]] = small / small.max()
    return image.clamp(0, 1).expand(channels, *field).clone()


def _extent(occupied: Tensor) -> slice:
    """From the first to the last true value of (N,)."""
    indices = occupied.nonzero()
    if not len(indices):
        raise ValueError("nothing is drawn")
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _begin(mass: Tensor, field: int) -> int:
    """Where the masses (N,), N ≤ field, begin on a line of ``field`` pixels if their centre is that of the line."""
    centre = (mass @ torch.arange(len(mass), dtype=mass.dtype)) / mass.sum()
    return min(max(round(field // 2 - centre.item()), 0), field - len(mass))
