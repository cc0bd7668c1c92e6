"""The dashboard's panels are checked against runs that were logged as sweeps, trainings and certifications log them,
and read back from disk."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.evaluation import CellStore, Grid, SweepManifest
from src.evaluation.certificates import CertificateFile, Certification, CertifiedImage
from src.evaluation.statistics import certified_radius
from src.reporting.analysis.certified import CertifiedSet
from src.workflows.dashboard import publish
from tests.command_server import CommandServer
from tests.conftest import REPO
from tests.reporting import reporting_factories as make
from tests.wandb_reading import LoggedRun, Processes, read_runs
from tests.workflows.conftest import Command
from tests.workspace_reading import panels, read_workspace

pytestmark = pytest.mark.slow

DATA = {"name": "mnist", "fingerprint": "f00d"}
COLUMNS = [("none", None), ("vqvae", 0.0), ("vqvae", 0.5)]
PLACES = [("fgsm", "gray_box"), ("ifgsm", "gray_box"), ("ifgsm", "adaptive")]


def small_grid() -> Grid:
    """Two attacks, one of them under two threats × 2 eps × 3 columns, with images."""
    cells = []
    for attack, threat in PLACES:
        for eps in (0.0, 0.3):
            for i, (defense, noise) in enumerate(COLUMNS):
                where = make.coordinates(attack, eps, threat=threat, defense=defense, noise=noise)
                examples = make.draw_examples(eps, noise or 0.0, i)
                cells.append(make.cell(where, 0.9 - eps, n=20, examples=examples, data=DATA))
    return Grid(tuple(map(make.row, cells)))


def certificates() -> CertifiedSet:
    """Three test images certified with the same classifier on the same data."""
    identity = {"data": DATA, "classifier": "0" + "c" * 63, "denoiser": None, "sigma": 0.5}
    asked = Certification("mnist", None, None, sigma=0.5, n0=100, n=1000, alpha=0.001, seed=0, identity=identity)
    images = [
        CertifiedImage(i, 1, 1, certified_radius(count, 1000, 0.5, 0.001), count, 1000, 100, 1.0)
        for i, count in enumerate((700, 900, 990))
    ]
    return CertifiedSet(asked, tuple(images))


def config_of(outputs: Path | str, **changes: Any) -> DictConfig:
    """What ``conf/dashboard.yaml`` and ``conf/report.yaml`` come to."""
    cells = {
        "_target_": "src.reporting.wandb.settings.wandb_settings",
        "folder": str(outputs),
        "project": "defense-vqvae",
    }
    paths = {"outputs": str(outputs), "checkpoints": f"{outputs}/checkpoints", "data": f"{outputs}/data"}
    usual = {"name": "a grid", "sweep": "latest", "logger": {"cells": cells}, "paths": paths, "seed": 0}
    return OmegaConf.create(usual | changes)


def keep_sweep(outputs: Path, grid: Grid) -> None:
    """Leave cells, certificates and a sweep's request behind."""
    for row in grid:
        assert row.cell
        CellStore(outputs / "cells").put(row.cell)
    SweepManifest(rows=tuple((row.coordinates, row.key) for row in grid)).save(outputs / "sweeps" / "one")
    certified = certificates()
    file = CertificateFile(outputs / "certified", certified.certification)
    for image in certified.images:
        file.add(image)


# What follows runs in a process of its own.


def write_runs(outputs: str) -> None:
    """Report on a sweep, train a network of each kind for a few steps and certify, all logged to W&B."""
    from src.reporting.wandb.certified import log_certified
    from src.workflows.building import build
    from src.workflows.reporting import report

    keep_sweep(Path(outputs), small_grid())
    config = config_of(outputs)
    report(config, None, False)
    settings = build(config.logger.cells)
    log_certified(certificates(), [], settings)
    train_briefly(settings)


def train_briefly(settings: Any) -> None:
    import torch
    from lightning import Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from src.models import VQVAE, Classifier
    from src.reporting.wandb.training import training_run
    from src.workflows.callbacks import Illustrate

    torch.manual_seed(0)
    images, labels = torch.rand(8, 1, 28, 28), torch.randint(0, 10, (8,))
    batches = DataLoader(TensorDataset(images, labels), batch_size=4)
    for module in (
        Classifier(hidden=8),
        VQVAE(noise=0.5, hidden=8, residual_hidden=4, num_embeddings=16, embedding_dim=4),
    ):
        with training_run(type(module).__name__, "mnist", {}, settings) as logger:
            trainer = Trainer(
                accelerator="cpu",
                max_epochs=2,
                log_every_n_steps=1,
                logger=logger,
                callbacks=[Illustrate(images[:2])],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, batches, batches)


# What follows reads what it wrote.


@dataclass(frozen=True)
class World:
    """An outputs folder with runs, and what the command said there."""

    outputs: Path
    runs: list[LoggedRun]
    said: subprocess.CompletedProcess[str]

    @property
    def file(self) -> Path:
        return self.outputs / "dashboard" / "workspace.json"


def dashboard(outputs: Path) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own that knows no key."""
    home = outputs.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    command = [sys.executable, "-m", "src.dashboard", f"paths.outputs={outputs}"]
    return subprocess.run(
        command, cwd=REPO, env=environment | {"HOME": str(home)}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def world(command_server: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> World:
    outputs = tmp_path_factory.mktemp("dashboard") / "outputs"
    processes = Processes("tests.workflows.test_dashboard", command_server)
    ended = processes.run("write_runs", outputs, home=outputs.parent / "home")
    assert ended.code == 0, ended.stderr
    return World(outputs, read_runs(outputs), dashboard(outputs))


def test_no_panel_is_empty(world: World) -> None:
    found = panels(read_workspace(world.file))
    unmet = {f"{panel.section}: {panel.title}": missing for panel in found if (missing := panel.unmet(world.runs))}
    assert unmet == {}
    assert {panel.section for panel in found} == {"Grid", "Trade-off", "Images", "Certified", "Training", "Cost"}
    assert all(panel.unmet([]) for panel in found if panel.kind != "Markdown Panel"), "a panel asks for nothing"


def test_there_is_a_panel_for_each_attack_and_threat_and_a_heat_map(world: World) -> None:
    found = [panel for panel in panels(read_workspace(world.file)) if panel.section == "Grid"]
    lines = {panel.title: len(panel.config["metrics"]) for panel in found if "xAxis" in panel.config}
    assert lines == {f"Accuracy under {attack} · {threat}": len(COLUMNS) for attack, threat in PLACES}
    (heat_maps,) = (panel.config["mediaKeys"] for panel in found if "mediaKeys" in panel.config)
    assert heat_maps == ["figures/heatmap_gray_box", "figures/heatmap_adaptive"]


def test_the_columns_beside_the_runs_are_filled(world: World) -> None:
    (runs,) = read_workspace(world.file)["spec"]["section"]["runSets"]
    cells = [run for run in world.runs if run.start["job_type"] == "cell"]
    for column in runs["runFeed"]["columnOrder"][1:]:
        kind, name = column.split(":")
        assert any(name.removesuffix(".value") in getattr(run, kind) for run in cells), column


def test_without_a_key_it_says_how_to_publish(world: World) -> None:
    said = world.said
    assert (said.returncode, said.stderr) == (0, "")
    assert str(world.file) in said.stdout
    places = [said.stdout.index(step) for step in ("wandb login", "wandb sync", "python -m src.dashboard")]
    assert places == sorted(places)
    assert f"{world.outputs}/wandb/offline-run-*" in said.stdout
    assert [path.name for path in world.file.parent.iterdir() if path.name != ".hydra-runs"] == ["workspace.json"]


def test_before_any_sweep_it_says_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = panels(read_workspace(publish(config_of(tmp_path))))
    assert "no sweep" in caplog.text
    assert {panel.section for panel in found} == {"Grid", "Trade-off", "Images", "Training", "Cost"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sweep": "nowhere"}, "nowhere is no sweep"),
        ({"name": "🎉"}, "name=🎉"),
        ({"logger": {"cells": None}}, "belongs to W&B.*logger=wandb"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        publish(config_of(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "dashboard").exists()


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UserError, match=r"wandb-workspaces.*pip install .*\[dashboards\]"):
        publish(config_of(tmp_path))


class Server:
    """Takes the place of W&B's: keeps what it is sent, or refuses it."""

    default_entity = "somebody"

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.refuses = False

    def upsert(self, view: Any) -> dict[str, Any]:
        if self.refuses:
            raise RuntimeError("project not found\nat all")
        self.sent.append(view)
        return {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    from wandb_workspaces.workspaces import interface

    made = Server()
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("wandb.Api", lambda: made)
    monkeypatch.setattr(interface.internal, "upsert_view2", made.upsert)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.ai")
    return made


def test_with_a_key_it_is_saved_and_its_address_told(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = publish(config_of(tmp_path))
    (view,) = server.sent
    assert (view.entity, view.project) == ("somebody", "defense-vqvae")
    assert view.spec.model_dump(by_alias=True, exclude_none=True) == read_workspace(path)["spec"]
    assert "https://wandb.ai/somebody/defense-vqvae?nw=abc" in caplog.text


def test_a_server_that_refuses_costs_a_line_and_the_file_stays(tmp_path: Path, server: Server) -> None:
    server.refuses = True
    with pytest.raises(UserError, match=r"workspace\.json.*project not found at all.*wandb sync") as error:
        publish(config_of(tmp_path))
    assert "\n" not in str(error.value)
    assert (tmp_path / "dashboard" / "workspace.json").exists()


def test_wandb_mode_offline_is_obeyed_although_there_is_a_key(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setenv("WANDB_MODE", "offline")
    publish(config_of(tmp_path))
    assert server.sent == []
    assert "unset WANDB_MODE" in caplog.text


@pytest.mark.very_slow
def test_no_panel_is_empty_after_the_real_commands(
    swept: tuple[Path, str], run_command: Command, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(swept[0], outputs)
    quick = ("model.epochs=1", "overwrite=true", "trainer.log_every_n_steps=1", "+experiment=demo")
    narrow = ("model.module.hidden=32", "model.module.residual_hidden=8", "model.module.num_embeddings=64")
    run_command("src.train", "model=classifier", *quick, outputs=outputs)
    run_command("src.train", "model=vqvae", "noise=0.5", *quick, *narrow, outputs=outputs)
    said = dashboard(outputs)
    assert said.returncode == 0, said.stderr
    runs, found = read_runs(outputs), panels(read_workspace(outputs / "dashboard" / "workspace.json"))
    assert {panel.title: panel.unmet(runs) for panel in found if panel.unmet(runs)} == {}
