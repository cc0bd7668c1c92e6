"""The random streams that a component may draw from: those of torch, NumPy and Python."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_streams_kept() -> Iterator[None]:
    """Afterwards the random streams, of all devices in use, are where they were before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the stream that components draw from
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the random streams begin with ``seed``, in [0, 2³²); afterwards they are where they were before."""
    with random_streams_kept():
        reseed(seed)
        yield


def reseed(seed: int) -> None:
    """Let the random streams begin with ``seed``, in [0, 2³²)."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
