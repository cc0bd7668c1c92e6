"""Real trainings, logged to W&B, TensorBoard and CSV, and read back from disk."""

import csv
import hashlib
import json
import os
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import CSVLogger, Logger
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from src.errors import UserError
from src.training_record import TrainingRecord
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.configured import train_from_config
from src.workflows.loggers import Training, opened, tensorboard_logger
from tests.command_server import CommandServer
from tests.wandb_reading import LoggedRun, Processes, read_runs

SMALL = ["model=vqvae", "trainer=cpu", "data.source=null", "data.val_size=100", "model.epochs=2"]
SMALL += ["model.module.hidden=16", "model.module.residual_hidden=4", "model.module.num_embeddings=16"]
CRASHING = "model.module._target_=tests.workflows.components.Crashing"
PLACE = {"project": "p", "entity": "e", "group": "g", "job_type": "j", "tags": ["a", "b"], "notes": "why"}
ASKED = [f"logger.{name}={json.dumps(value)}" for name, value in PLACE.items()]


def train(*overrides: str) -> TrainingRecord | None:
    """What ``python -m src.train`` does with these overrides, in this process."""
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose("train", overrides=[*SMALL, *overrides])
    return train_from_config(config)


# What follows runs in a process of its own.


def write_trainings(outputs: str, root: str) -> dict[str, Any]:
    """One training after the other, as the jobs of a multirun: one crashes, one is interrupted, two end well."""
    import wandb

    torch.set_num_threads(1)
    before, ended = wandbs_environment(), []
    where = [f"paths.outputs={outputs}", f"data.root={root}"]
    for overrides in (["noise=0.5", CRASHING], ["noise=0.25", CRASHING], ["noise=0.5"], ["noise=0", *ASKED]):
        try:
            train(*where, *overrides)
            ended.append("well")
        except (ZeroDivisionError, SystemExit) as error:
            ended.append(type(error).__name__)
    return {"ended": ended, "run": wandb.run is None, "environment": wandbs_environment() == before}


def wandbs_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB")}


def train_without_wandb(outputs: str, root: str) -> bool:
    return train(f"paths.outputs={outputs}", f"data.root={root}", "noise=0.5", "model.epochs=1") is not None


# What follows reads what they wrote.


@dataclass(frozen=True)
class Trained:
    """What :func:`write_trainings` left behind."""

    outputs: Path
    result: dict[str, Any]
    runs: list[LoggedRun]


@pytest.fixture(scope="module")
def processes(command_server: CommandServer) -> Processes:
    return Processes("tests.workflows.test_loggers", command_server)


@pytest.fixture(scope="module")
def logged(processes: Processes, slice_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("logged")
    ended = processes.run("write_trainings", folder / "outputs", slice_root, home=folder / "home")
    assert ended.code == 0, ended.stderr
    return Trained(folder / "outputs", ended.result, read_runs(folder / "outputs"))


@pytest.mark.slow
def test_a_training_that_crashed_or_was_interrupted_is_marked_failed(logged: Trained) -> None:
    assert logged.result["ended"] == ["ZeroDivisionError", "SystemExit", "well", "well"]
    assert [run.exit_code for run in logged.runs] == [1, 1, 0, 0]
    assert all(run.of("artifact") == [] for run in logged.runs[:2])


def test_nothing_of_a_run_leaks_into_the_next(logged: Trained) -> None:
    assert logged.result["run"]
    assert logged.result["environment"]
    assert len({run.start["run_id"] for run in logged.runs}) == 4
    assert [run.config["noise"] for run in logged.runs] == [0.5, 0.25, 0.5, 0]


def test_a_training_run_says_what_was_trained(logged: Trained) -> None:
    names = [run.start["display_name"] for run in logged.runs]
    assert names == [f"vqvae noise {noise} seed 0" for noise in ("0.5", "0.25", "0.5", "0")]
    run = logged.runs[2]
    told = {name: run.start.get(name) for name in ("project", "entity", "run_group", "job_type", "tags", "notes")}
    usual = {"project": "defense-vqvae", "run_group": "mnist-training", "job_type": "train"}
    assert told == dict.fromkeys(("entity", "tags", "notes")) | usual
    asked = {name: run.config[name] for name in ("model", "data", "noise", "seed", "budget", "epochs", "lr")}
    assert asked == {"model": "vqvae", "data": "mnist", "noise": 0.5, "seed": 0, "budget": "full"} | {
        "epochs": 2,
        "lr": 2e-4,
    }
    assert run.config["module/num_embeddings"] == 16
    assert not any(isinstance(value, dict | list) for value in run.config.values())


def test_its_place_comes_from_the_configuration(logged: Trained) -> None:
    start = logged.runs[3].start
    names = {"group": "run_group"}
    assert {name: start[names.get(name, name)] for name in PLACE} == PLACE


def test_a_short_training_has_losses_at_every_epoch_and_numbers_in_its_summary(logged: Trained) -> None:
    run = logged.runs[2]
    record = TrainingRecord.load(logged.outputs / "checkpoints" / "mnist" / "vqvae-noise0.5.json")
    assert [row["train/loss"] for row in run.history if "train/loss" in row] == pytest.approx(
        [loss for _, loss in record.losses]
    )
    assert [step for step, _ in record.losses] == [11, 22]  # batches: fewer than the usual 20 steps between two losses
    assert [row["val/loss"] for row in run.history if "val/loss" in row] == [e["val/loss"] for e in record.epochs]
    assert [row["trainer/global_step"] for row in run.history if "examples/noisy._type" in row] == [11, 22]
    numbers = {name: value for name, value in run.summary.items() if not name.startswith("examples/")}
    assert {"train/loss", "val/loss", "val/perplexity", "training_seconds"} <= set(numbers)
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_the_weights_are_an_artifact_below_the_outputs(logged: Trained) -> None:
    run = logged.runs[2]
    checkpoint = logged.outputs / "checkpoints" / "mnist" / "vqvae-noise0.5.ckpt"
    record = TrainingRecord.load(TrainingRecord.path(checkpoint))
    (artifact,) = run.of("artifact")
    assert (artifact["name"], artifact["type"]) == ("mnist-vqvae-noise0.5", "model")
    assert set(artifact["aliases"]) == {"latest", record.weights[:8]}
    assert not artifact.get("use_after_commit")
    (entry,) = artifact["manifest"]["contents"]
    content = checkpoint.read_bytes()
    assert entry["digest"] == b64encode(hashlib.md5(content).digest()).decode()
    assert Path(entry["local_path"]).read_bytes() == content
    assert logged.outputs / "wandb" in Path(entry["local_path"]).parents
    metadata = json.loads(artifact["metadata"])
    assert metadata["weights"] == run.config["weights"] == record.weights
    assert metadata["val/loss"] == record.epochs[-1]["val/loss"]
    assert {name: metadata[name] for name in ("model", "data", "noise", "seed")} == {
        "model": "vqvae",
        "data": "mnist",
        "noise": 0.5,
        "seed": 0,
    }


def test_a_training_does_without_a_wandb_that_does_not_start(
    processes: Processes, slice_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "wandb").write_text("in the way")
    ended = processes.run("train_without_wandb", tmp_path / "out", slice_root, home=tmp_path / "home")
    assert ended.result is True, ended.stderr
    (said,) = [line for line in ended.stderr.splitlines() if "W&B" in line]
    assert said.startswith("not logged to W&B: vqvae noise 0.5 seed 0 (")


@pytest.mark.slow
def test_tensorboard_shows_losses_images_and_hyper_parameters(slice_root: Path, tmp_path: Path) -> None:
    record = train(f"paths.outputs={tmp_path}", f"data.root={slice_root}", "noise=0.5", "logger=tensorboard")
    assert record
    folder = tmp_path / "train" / "tensorboard" / "vqvae-noise0.5" / "version_0"
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0, IMAGES: 0})
    events.Reload()
    drawn = [(event.step, event.value) for event in events.Scalars("val/loss")]
    assert drawn == [(epoch["step"] - 1, pytest.approx(epoch["val/loss"])) for epoch in record.epochs]
    assert [event.value for event in events.Scalars("train/loss")] == [pytest.approx(loss) for _, loss in record.losses]
    shown = events.Images("examples/reconstruction")
    assert [(image.step, image.width, image.height) for image in shown] == [(11, 224, 56), (22, 224, 56)]
    assert events.Scalars("final/val/loss")[0].value == pytest.approx(record.epochs[-1]["val/loss"])
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    noted = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert {name: noted[name] for name in ("model", "data", "noise", "seed", "epochs")} == {
        "model": "vqvae",
        "data": "mnist",
        "noise": 0.5,
        "seed": 0,
        "epochs": 2,
    }
    assert not (tmp_path / "wandb").exists()


def test_csv_holds_losses_and_hyper_parameters_of_each_training(slice_root: Path, tmp_path: Path) -> None:
    where = (f"paths.outputs={tmp_path}", f"data.root={slice_root}", "noise=0.5", "logger=csv")
    records = [train(*where, "overwrite=true", f"model.epochs={epochs}") for epochs in (1, 2)]
    for version, record in enumerate(records):
        assert record
        folder = tmp_path / "train" / "csv" / "vqvae-noise0.5" / f"version_{version}"
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
        assert losses == [epoch["val/loss"] for epoch in record.epochs]
        assert len([row for row in rows if row["train/loss"]]) == len(record.epochs)
        assert yaml.safe_load((folder / "hparams.yaml").read_text())["epochs"] == len(record.epochs)
    assert not (tmp_path / "wandb").exists()


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard.{package}", False)
    with pytest.raises(UserError, match=r"logger=tensorboard.*pip install .*\[tensorboard\]") as error:
        tensorboard_logger(Training("a", "a", "mnist", {}), str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_logger_of_the_users_own_is_told_what_was_asked_for(tmp_path: Path) -> None:
    own: Logger = CSVLogger(tmp_path)
    with opened(own, Training("a", "a", "mnist", {"seed": 3})) as loggers:
        assert loggers == [own]
        assert own.experiment.hparams == {"seed": 3}
    with opened(None, Training("a", "a", "mnist", {})) as loggers:
        assert loggers == []


@pytest.mark.parametrize("logger", ["tensorboard", "csv", "none"])
def test_cells_are_logged_to_nothing_but_wandb(logger: str) -> None:
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        assert compose("sweep", overrides=[f"logger={logger}", "hydra/sweeper=basic"]).logger.cells is None
