"""Fixtures of the reporting room; how they are made is in reporting_factories.py."""

import pytest
import reporting_factories as make

from src.evaluation.grid import Grid
from tests.command_server import CommandServer
from tests.reporting.wandb.wandb_writing import Sweep
from tests.wandb_reading import Processes, read_runs


@pytest.fixture
def grid() -> Grid:
    """The default sweep, all computed, without images: 3 attacks × 4 eps × 7 columns."""
    return make.make_grid()


@pytest.fixture
def pictured() -> Grid:
    """A small grid whose cells keep images: 1 attack × 2 eps × 3 columns."""
    columns = {column: make.COLUMNS[column] for column in [("none", None), ("binarize", None), ("vqvae", 0.5)]}
    return make.make_grid(attacks=("fgsm",), budgets=(0.0, 0.3), columns=columns, images=True)


@pytest.fixture(scope="session")
def processes(command_server: CommandServer) -> Processes:
    """Where the functions of wandb_writing.py run."""
    return Processes("tests.reporting.wandb.wandb_writing", command_server)


@pytest.fixture(scope="session")
def sweep(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep's outputs, and how the process that wrote them went."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("sweep")
    Image.new("RGB", (40, 30)).save(folder / "fgsm curves.png")
    ended = processes.run("write_sweep", folder / "outputs", folder / "fgsm curves.png", home=folder / "home")
    assert ended.code == 0, ended.stderr
    return Sweep(folder / "outputs", ended, read_runs(folder / "outputs"))
