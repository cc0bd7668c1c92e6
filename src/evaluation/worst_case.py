"""The worst case over several attacks, image by image: robust accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from src.evaluation.cell import Cell, Member


@dataclass(frozen=True)
class WorstCase:
    """What a suite of attacks leaves when each image may choose its attack. Arrays are (N,)."""

    right: np.ndarray  #: bool: no attack made the image count as wrong
    predictions: np.ndarray  #: int: classes under the attack that was chosen
    chosen: np.ndarray  #: int: which member each image fell to first, or else the last of the suite
    members: dict[str, Member]  #: see :attr:`src.evaluation.cell.Cell.members`


def worst_case(members: Mapping[str, Cell]) -> WorstCase:
    """Take for each image the worst of the cells ``members``, which must be of the same images in the same order.

    By construction its accuracy is at most that of every member. Of a defense that answers at random each member has
    seen answers of its own, and one wrong answer is enough: the worst case then falls with every member, a little even
    by chance.

    Raises:
        ValueError: there are no members, or they are not of equally many images.
    """
    cells = list(members.values())
    if len({cell.n for cell in cells}) != 1:
        raise ValueError("the worst case needs attacks, all on the same images")
    right = np.stack([cell.right for cell in cells])  # (attacks, N)
    fooled = ~right
    alone = (fooled & (fooled.sum(0) == 1)).sum(1)
    chosen = np.where(fooled.any(0), fooled.argmax(0), len(cells) - 1)
    predictions = np.array([cell.predictions for cell in cells])
    return WorstCase(
        right=np.logical_and.reduce(right),
        predictions=np.take_along_axis(predictions, chosen[None], 0)[0],
        chosen=chosen,
        members={
            name: {"key": cell.key, "correct": cell.correct, "alone": int(alone[i])}
            for i, (name, cell) in enumerate(members.items())
        },
    )
