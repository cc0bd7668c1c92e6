"""Training on two devices, as a user runs it: two processes that are one training."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from src.models.checkpoint import read_checkpoint
from src.training_record import TrainingRecord
from src.workflows.callbacks import EpochSeeds
from tests.conftest import REPO
from tests.wandb_reading import read_runs

pytestmark = pytest.mark.slow

TWO = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
SMALL = ("model.module.hidden=32", "model.module.residual_hidden=8", "model.module.num_embeddings=64")


def test_two_processes_are_one_training(trained, run_command, tmp_path):
    """Half the batch each: the steps of the `trained` fixture, which took all of it, but for the noise they draw."""
    budget = ("+experiment=demo", "model.epochs=1", "data.batch_size=64")
    watched = "model.module._target_=tests.workflows.components.Watched"
    done = run_command("src.train", "model=vqvae", "noise=0.5", *budget, *SMALL, *TWO, watched, outputs=tmp_path)
    folder = tmp_path / "checkpoints" / "mnist"

    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights, provenance = read_checkpoint(folder / "vqvae-noise0.5.ckpt", "")
    assert torch.equal(weights["state_dict"]["quantizer.codebook"], first["codebook"])
    assert provenance.config["trainer"]["devices"] == 2

    record, alone = (
        TrainingRecord.load(each / "vqvae-noise0.5.json") for each in (folder, trained / "checkpoints" / "mnist")
    )
    assert record.epochs[0]["step"] == alone.epochs[0]["step"] == 11
    assert record.epochs[0]["val/loss"] == pytest.approx(alone.epochs[0]["val/loss"], rel=0.1)

    assert [done.stdout.count(line) for line in ("training vqvae", "epoch 1/1", "saved ")] == [1, 1, 1]
    assert len(read_runs(tmp_path, "train")) == 1
    (run,) = (tmp_path / "train").iterdir()
    assert {path.name for path in run.iterdir()} == {".hydra", "train.log"}


def test_a_multirun_of_them_is_refused(run_command, tmp_path):
    """Lightning would run the whole command again for the second device."""
    arguments = ("-m", "model=vqvae", "noise=0,0.5", *TWO, "logger=none")
    done = run_command("src.train", *arguments, outputs=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: 2 devices and -m do not go together: train one model a command"
    assert not list(tmp_path.rglob("*.ckpt"))


def test_every_process_draws_noise_of_its_own_and_the_first_that_of_one_alone():
    def draw(rank: int, epoch: int) -> torch.Tensor:
        EpochSeeds(3).on_train_epoch_start(SimpleNamespace(current_epoch=epoch, global_rank=rank), None)
        return torch.randn(8)

    assert torch.equal(draw(0, 2), torch.randn(8, generator=torch.Generator().manual_seed(3 * 100_003 + 2)))
    drawn = [draw(rank, epoch) for rank in range(3) for epoch in range(3)]
    assert len({tuple(each.tolist()) for each in drawn}) == 9


def is_alive(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.very_slow
@pytest.mark.parametrize("told", ["first", "second"])
def test_sigterm_ends_both(told, slice_root, tmp_path):
    command = [sys.executable, "-m", "src.train", "model=vqvae", "logger=none", "model.epochs=500", *SMALL, *TWO]
    command += [f"data.root={slice_root}", "data.source=null", "data.val_size=100", f"paths.outputs={tmp_path}"]
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    state = tmp_path / "checkpoints" / "mnist" / "vqvae-noise0.last.ckpt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "src.train"], capture_output=True, text=True)
    (second,) = (int(each) for each in children.stdout.split())
    os.kill(process.pid if told == "first" else second, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.count("resume=true") == 1
    assert "Traceback" not in said
    while is_alive(second) and time.monotonic() < deadline + 60:
        time.sleep(0.1)
    assert not is_alive(second)
