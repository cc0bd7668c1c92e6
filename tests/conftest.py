"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.data import ImageDataModule

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("WANDB_MODE", "offline")  # no test may depend on somebody's key


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def images() -> Tensor:
    """Twelve images in [0, 1] with exact zeros and ones, as MNIST has; (12, 1, 28, 28)."""
    return (torch.rand(12, 1, 28, 28) * 1.5 - 0.25).clamp(0, 1)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, 10, (12,))


@pytest.fixture
def small_net() -> nn.Module:
    """A smooth classifier, frozen, in eval mode."""
    return nn.Sequential(nn.Conv2d(1, 4, 5, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(576, 10)).eval()


@pytest.fixture(scope="session")
def mnist() -> ImageDataModule:
    """Real MNIST, as conf/data/mnist.yaml describes it; fetched on the first run."""
    config = OmegaConf.create({"seed": 0, "paths": {"data": str(REPO / "outputs" / "data")}})
    config.data = OmegaConf.load(REPO / "conf" / "data" / "mnist.yaml")
    data = instantiate(config.data, _convert_="all")
    data.prepare_data()
    return data
