"""The worst case over several attacks, image by image: robust accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass

from src.evaluation.cell import Cell, Member


@dataclass(frozen=True)
class WorstCase:
    """What a suite of attacks leaves when each image may choose its attack."""

    outcomes: str  #: "1" where no attack made the image count as wrong
    predictions: list[int]  #: under the attack that was chosen
    chosen: list[str]  #: for each image, the first attack that it fell to, or else the last of the suite
    members: dict[str, Member]  #: see :attr:`src.evaluation.cell.Cell.members`


def worst_case(members: Mapping[str, Cell]) -> WorstCase:
    """Take for each image the worst of the cells ``members``, which must be of the same images in the same order.

    By construction its accuracy is at most that of every member. Of a defense that answers at random each member has
    seen answers of its own, and one wrong answer is enough: the worst case then falls with every member, a little even
    by chance.

    Raises:
        ValueError: there are no members, or they are not of equally many images.
    """
    if not members or len({cell.n for cell in members.values()}) != 1:
        raise ValueError("the worst case needs attacks, all on the same images")
    names = list(members)
    outcomes = list(zip(*(cell.outcomes for cell in members.values()), strict=True))
    chosen = [names[each.index("0")] if "0" in each else names[-1] for each in outcomes]
    told: dict[str, Member] = {
        name: {
            "key": cell.key,
            "correct": cell.correct,
            "alone": sum(each[i] == "0" and each.count("0") == 1 for each in outcomes),
        }
        for i, (name, cell) in enumerate(members.items())
    }
    return WorstCase(
        outcomes="".join("0" if "0" in each else "1" for each in outcomes),
        predictions=[members[name].predictions[i] for i, name in enumerate(chosen)],
        chosen=chosen,
        members=told,
    )
