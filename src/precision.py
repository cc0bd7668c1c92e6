"""Which numbers a network computes with."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]

PRECISIONS: tuple[str, ...] = get_args(Precision)


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which convolutions and dense layers on ``device`` compute in ``precision``.

    "bfloat16" has three digits and is several times faster on a GPU or a processor with bfloat16 units (AMX), and far
    slower where it is emulated. "float32" changes nothing: not even what an outer context asks for.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
