"""A training of seconds, without a trainer."""

import torch
from torch import Tensor

from src.models.denoiser import Denoiser


def fitted(network: Denoiser) -> dict[str, Tensor]:
    """The losses after a few steps on one image of a square."""
    network.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    x = torch.zeros(16, 1, 28, 28)
    x[:, :, 10:18, 10:18] = 1
    for _ in range(60):
        optimizer.zero_grad()
        network.training_step((x, torch.zeros(16)), 0).backward()
        optimizer.step()
    return network.losses(network.corrupt(x), (x, torch.zeros(16)))
