"""What tests of several rooms share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.data import ImageDataModule
from src.data.idx import write_idx
from src.workflows.command import PLUGINS
from tests.command_server import CommandServer
from tests.conftest import REPO
from tests.parsing import parse_once
from tests.shared_work import share_the_charts_library, shared_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _plugins() -> None:
    """Hydra looks for plugins once in the life of a process, in whichever test comes first."""
    sys.path.append(PLUGINS)


@pytest.fixture(scope="session", autouse=True)
def _quick_composing() -> None:
    parse_once()


@pytest.fixture(scope="session", autouse=True)
def _one_charts_library(tmp_path_factory: pytest.TempPathFactory) -> None:
    share_the_charts_library(shared_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """One for each test process, started when the first test asks for it."""
    server = CommandServer(REPO, shared_folder(tmp_path_factory))
    yield server
    server.close()


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


@pytest.fixture(scope="session")
def slice_root(mnist: ImageDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 training and 120 test images of MNIST, as IDX files."""
    root = tmp_path_factory.mktemp("mnist-slice")
    mnist.setup()
    for part, dataset, size in (("train", mnist._sets["fit"], 1500), ("t10k", mnist._sets["test"], 120)):
        write_idx(root / f"{part}-images-idx3-ubyte", dataset.images[:size, 0])
        write_idx(root / f"{part}-labels-idx1-ubyte", dataset.labels[:size].to(torch.uint8))
    return root


@pytest.fixture(scope="session")
def real_digits(mnist: ImageDataModule) -> tuple[Tensor, Tensor]:
    """256 test digits of MNIST: images (256, 1, 28, 28) and labels (256,)."""
    return mnist.test_set(256)


Fit = Callable[[Callable[[Tensor], Tensor]], nn.Module]


@pytest.fixture(scope="session")
def fit(real_digits: tuple[Tensor, Tensor]) -> Fit:
    """``fit(defense)``: a small classifier that knows by heart what ``defense`` makes of the real digits. Frozen."""

    def learn(defense: Callable[[Tensor], Tensor]) -> nn.Module:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            x, y = defense(real_digits[0]), real_digits[1]
            with torch.enable_grad():
                network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
                optimizer = torch.optim.Adam(network.parameters(), 1e-2)
                for _ in range(60):
                    loss = nn.functional.cross_entropy(network(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                optimizer.zero_grad()
        return network.eval().requires_grad_(False)

    return learn


@pytest.fixture(scope="session")
def knows_digits(fit: Fit) -> nn.Module:
    """A small classifier that is right on all the real digits, and easily attacked."""
    return fit(lambda x: x)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A real headless Chromium, which reaches nothing outside this machine; one a test process.

    Where there is none the test is skipped, unless REQUIRE_BROWSER is set, as .ci/run does.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        message = "no Chromium on PATH; on Debian: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=executable, args=[*arguments, "--no-first-run"])
        yield found
        found.close()
