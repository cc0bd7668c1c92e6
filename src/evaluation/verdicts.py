"""What counts as the answer of a model that answers at random: the classes of several answers, made into one."""

import torch
from torch import Tensor

from src.evaluation.spec import MAJORITY, WORST_OF_N


def judged(answers: Tensor, labels: Tensor, verdict: str) -> Tensor:
    """The class that counts for each image.

    Args:
        answers: classes (S, N), int64, of S answers to the same N images; NO_CLASS is wrong.
        labels: classes (N,), int64.
        verdict: :data:`WORST_OF_N`: the first wrong answer, else the label, so one wrong answer is enough for an
            attacker who may ask again. :data:`MAJORITY`: the class of most answers; of classes with equally many, one
            that is wrong. "single": the first answer.

    Returns:
        Classes (N,), int64.

    Raises:
        ValueError: another verdict.
    """
    if verdict == "single":
        return answers[0]
    if verdict == WORST_OF_N:
        wrong = answers != labels
        first = answers.gather(0, wrong.int().argmax(0, keepdim=True))[0]
        return torch.where(wrong.any(0), first, labels)
    if verdict == MAJORITY:
        votes = (answers[:, None] == answers[None]).sum(1)  # (S, N): how many answers are as this one
        votes = 2 * votes + (answers != labels)  # of equals a wrong one
        return answers.gather(0, votes.argmax(0, keepdim=True))[0]
    raise ValueError(f"there is no verdict {verdict!r}: single, {WORST_OF_N}, {MAJORITY}")
