"""Training as a user runs it."""

import json
import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.data import ImageDataModule
from src.encoded_images import decode_images
from src.errors import UserError
from src.models import VQVAE, Classifier, RobustVQVAE, SmoothVQVAE
from src.models.checkpoint import read_checkpoint, weights_fingerprint
from src.training_record import TrainingRecord
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.configured import _trainer_identity
from src.workflows.training import TrainingPlan, train

TINY = {"noise": 0.5, "hidden": 16, "residual_hidden": 4, "num_embeddings": 16, "embedding_dim": 8, "lr": 1e-3}
NETWORKS = {
    "vqvae": partial(VQVAE, **TINY),
    "classifier": partial(Classifier, widths=(4, 8), hidden=16, patience=0, lr=5e-3),
    "vqvae_robust": partial(RobustVQVAE.guided_by, Classifier(widths=(4, 8), hidden=16), steps=1, **TINY),
    "vqvae_smooth": partial(SmoothVQVAE.guided_by, Classifier(widths=(4, 8), hidden=16), shift=1, **TINY),
}


class Interrupt(Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch and trainer.global_step % 3 == 2:
            raise KeyboardInterrupt


class Spoil(Callback):
    """Makes one weight NaN in an epoch, as a learning rate that is too large would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.current_epoch == self.epoch:
            next(pl_module.parameters()).view(-1)[0] = torch.nan


class Harness:
    """Trains small networks on a slice of real digits."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    def plan(self, name: str, **changes: object) -> TrainingPlan:
        noise = 0.5 if name in ("vqvae", "vqvae_smooth") else None
        fields = {"checkpoint": self.folder / f"{name}.ckpt", "noise": noise, "seed": 0, "config": {"name": name}}
        return TrainingPlan(model=name, command=f"train {name}", **(fields | changes))

    def data(self, **split: int) -> ImageDataModule:
        return ImageDataModule("slice", self.root, batch_size=200, seed=0, **({"val_size": 100} | split))

    def train(
        self,
        name: str,
        epochs: int = 3,
        interrupt_in: int | None = None,
        split: dict[str, int] | None = None,
        trainer: dict[str, object] | None = None,
        more_callbacks: Sequence[Callback] = (),
        **changes: object,
    ) -> TrainingRecord:
        def make_trainer(callbacks: list[Callback], **arguments: object) -> Trainer:
            extra = [] if interrupt_in is None else [Interrupt(interrupt_in)]
            arguments |= trainer or {}
            return Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks + extra, **arguments)

        plan, data = self.plan(name, epochs=epochs, **changes), self.data(**(split or {}))
        return train(plan, NETWORKS[name], data, make_trainer, more_callbacks=more_callbacks)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return read_checkpoint(self.folder / f"{name}.ckpt", "")[0]["state_dict"]


@pytest.fixture
def harness(tmp_path: Path, slice_root: Path) -> Harness:
    return Harness(tmp_path, slice_root)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("vqvae_robust", "vqvae_smooth"))) for n in NETWORKS]
)
def test_resumed_is_uninterrupted_to_the_last_bit(name, tmp_path, slice_root):
    whole, broken = Harness(tmp_path / "whole", slice_root), Harness(tmp_path / "broken", slice_root)
    steps = {"limit_train_batches": 3}  # an epoch; the second of them is interrupted after the second
    whole.train(name, trainer=steps)
    with pytest.raises(SystemExit):
        broken.train(name, interrupt_in=1, trainer=steps)
    assert not (broken.folder / f"{name}.ckpt").exists()
    record = broken.train(name, resume=True, trainer=steps)
    assert weights_fingerprint(broken.weights(name)) == weights_fingerprint(whole.weights(name))
    reference = TrainingRecord.load(TrainingRecord.path(whole.folder / f"{name}.ckpt"))
    assert [e["val/loss"] for e in record.epochs] == [e["val/loss"] for e in reference.epochs]
    assert record.losses == reference.losses


@pytest.mark.slow
def test_the_robust_vqvae_ends_with_a_rate_near_nothing(harness):
    harness.train("vqvae_robust")
    state = torch.load(harness.folder / "vqvae_robust.last.ckpt", weights_only=True)
    (rate,) = state["lr_schedulers"][0]["_last_lr"]  # what a next step would have taken
    assert 0 < rate < 0.01 * TINY["lr"]


def test_seeds_decide(harness, tmp_path, slice_root):
    other, again = Harness(tmp_path / "other", slice_root), Harness(tmp_path / "again", slice_root)
    harness.train("vqvae", epochs=1)
    other.train("vqvae", epochs=1, seed=1)
    again.train("vqvae", epochs=1)
    assert weights_fingerprint(harness.weights("vqvae")) == weights_fingerprint(again.weights("vqvae"))
    assert weights_fingerprint(harness.weights("vqvae")) != weights_fingerprint(other.weights("vqvae"))


def test_an_interruption_leaves_the_last_good_checkpoint(harness, caplog):
    harness.train("vqvae", epochs=1)
    before = (harness.folder / "vqvae.ckpt").read_bytes()
    with pytest.raises(SystemExit):
        harness.train("vqvae", epochs=3, interrupt_in=1, overwrite=True)
    assert (harness.folder / "vqvae.ckpt").read_bytes() == before
    assert read_checkpoint(harness.folder / "vqvae.last.ckpt", "")[1].epochs == 1
    assert "train vqvae resume=true" in caplog.text


def test_training_teaches_and_is_recorded(harness):
    record = harness.train("classifier", epochs=9)
    assert record.epochs[-1]["val/accuracy"] > max(0.3, record.epochs[0]["val/accuracy"])
    assert [epoch["epoch"] for epoch in record.epochs] == list(range(1, 10))
    assert record.seconds > 0
    assert record.environment["threads"] == str(torch.get_num_threads())
    assert TrainingRecord.load(TrainingRecord.path(harness.folder / "classifier.ckpt")) == record


def test_a_vqvaes_record_shows_images(harness):
    record = harness.train("vqvae", epochs=2)
    original, noisy, reconstruction = (decode_images(record.examples[n]) for n in record.examples)
    assert original.shape == noisy.shape == reconstruction.shape == (10, 1, 28, 28)
    assert abs(noisy - original).mean() > 0.1
    assert {"val/perplexity", "val/codes_used", "val/reconstruction"} <= set(record.epochs[-1])


def test_what_is_trained_is_not_trained_again(harness):
    record = harness.train("vqvae", epochs=1)
    changed = (harness.folder / "vqvae.ckpt").stat().st_mtime_ns
    assert harness.train("vqvae", epochs=1) == record
    assert (harness.folder / "vqvae.ckpt").stat().st_mtime_ns == changed


def test_what_another_training_replaces_is_kept_beside_unless_it_is_told_not_to(harness, caplog):
    record = harness.train("vqvae", epochs=1)
    path = harness.folder / "vqvae.ckpt"
    before = path.read_bytes()
    harness.train("vqvae", epochs=1, overwrite="different")  # the same is left as it is
    assert path.read_bytes() == before
    harness.train("vqvae", epochs=2)
    kept = harness.folder / "replaced" / f"vqvae-{record.weights[:12]}.ckpt"
    assert read_checkpoint(path, "")[1].epochs == 2
    assert kept.read_bytes() == before
    assert TrainingRecord.load(TrainingRecord.path(kept)) == record
    assert f"holds another training (planned_epochs 1, not 2); it will be kept as {kept}" in caplog.text
    harness.train("vqvae", epochs=1, overwrite="different")
    assert path.read_bytes() == before
    assert len(list(kept.parent.glob("*.ckpt"))) == 1


@pytest.mark.parametrize("trained_before", [False, True])
def test_a_debug_run_publishes_nothing(harness, trained_before, caplog):
    caplog.set_level("INFO")
    if trained_before:
        harness.train("classifier", epochs=1)
    before = {path.name: path.read_bytes() for path in harness.folder.glob("*")}
    assert harness.train("classifier", overwrite=True, trainer={"fast_dev_run": True}) is None
    assert {path.name: path.read_bytes() for path in harness.folder.glob("*")} == before
    assert "debug run" in caplog.text


def test_a_training_that_diverges_publishes_nothing_and_keeps_the_last_good_state(harness, caplog):
    harness.train("vqvae", epochs=1)
    files = [harness.folder / name for name in ("vqvae.ckpt", "vqvae.last.ckpt")]
    before = [path.read_bytes() for path in files]
    with pytest.raises(UserError, match=r"diverged in epoch 2: .* nothing was published"):
        harness.train("vqvae", epochs=2, resume=True, overwrite=True, more_callbacks=[Spoil(epoch=1)])
    assert [path.read_bytes() for path in files] == before
    assert "resume=true" not in caplog.text


def test_resume_refuses_another_configuration(harness):
    harness.train("vqvae", epochs=1)
    with pytest.raises(UserError, match="another configuration"):
        harness.train("vqvae", epochs=2, resume=True, overwrite=True, config={"name": "other"})
    with pytest.raises(UserError, match="no checkpoint"):
        harness.train("classifier", resume=True)


def test_resume_refuses_another_number_of_epochs_where_rates_follow_from_it(harness):
    steps = {"limit_train_batches": 3}
    with pytest.raises(SystemExit):
        harness.train("vqvae_robust", epochs=2, interrupt_in=1, trainer=steps)
    with pytest.raises(UserError, match=r"planned for 2 epochs.*trainer\.max_epochs=2"):
        harness.train("vqvae_robust", epochs=3, resume=True, trainer=steps)
    harness.train("vqvae_robust", epochs=2, resume=True, trainer=steps)
    assert not (harness.folder / "vqvae.ckpt").exists()
    with pytest.raises(SystemExit):
        harness.train("vqvae", epochs=2, interrupt_in=1, trainer=steps)
    assert len(harness.train("vqvae", epochs=3, resume=True, trainer=steps).epochs) == 3  # a constant rate


def test_a_network_knows_which_images_it_was_trained_on(harness):
    harness.train("classifier", epochs=1)
    for path in (harness.folder / "classifier.ckpt", harness.folder / "classifier.last.ckpt"):
        provenance = read_checkpoint(path, "")[1]
        assert (provenance.split_seed, provenance.val_size) == (0, 100)


@pytest.mark.parametrize("split", [{"split_seed": 1}, {"val_size": 200}])
def test_resume_refuses_another_split(harness, split):
    harness.train("classifier", epochs=1)
    with pytest.raises(UserError, match="another configuration"):
        harness.train("classifier", epochs=2, resume=True, split=split)


def test_the_commands_leave_what_the_contract_says(trained):
    folder = trained / "checkpoints" / "mnist"
    for name, noise, network in (
        ("classifier", None, Classifier),
        ("vqvae-noise0", 0, VQVAE),
        ("vqvae-noise0.5", 0.5, VQVAE),
    ):
        module: LightningModule = network.load_from_checkpoint(folder / f"{name}.ckpt", weights_only=True)
        provenance = read_checkpoint(folder / f"{name}.ckpt", "")[1]
        assert provenance.weights == weights_fingerprint(module.state_dict())
        assert (provenance.data, provenance.noise, provenance.epochs) == ("mnist", noise, 1)
        assert json.loads((folder / f"{name}.json").read_text())["weights"] == provenance.weights


def test_sigterm_leaves_the_last_whole_epoch_and_says_how_to_go_on(start_command, tmp_path):
    narrow = ("model.module.widths=[4,8]", "model.module.hidden=16")
    command = ("src.train", "model=classifier", "logger=none", "model.epochs=500", *narrow)
    process = start_command(*command, outputs=tmp_path)
    state = tmp_path / "checkpoints" / "mnist" / "classifier.last.ckpt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    ended = process.wait()
    said = ended.stdout + ended.stderr
    assert ended.returncode == 128 + signal.SIGTERM
    assert "resume=true" in said
    assert "Traceback" not in said
    assert read_checkpoint(state, "")[1].epochs >= 1
    assert not (state.parent / "classifier.ckpt").exists()


@pytest.mark.slow
def test_one_command_trains_several_models(run_command, trained, tmp_path):
    arguments = ("-m", "model=vqvae,classifier", "model.epochs=1", "noise=0.5", "logger=none", "+experiment=demo")
    run_command("src.train", *arguments, outputs=tmp_path)
    folder = Path("checkpoints", "mnist")
    assert read_checkpoint(tmp_path / folder / "vqvae-noise0.5.ckpt", "")[1].noise == 0.5
    again, alone = (read_checkpoint(outputs / folder / "classifier.ckpt", "")[1] for outputs in (tmp_path, trained))
    assert again.weights == alone.weights
    (run,) = (tmp_path / "train").iterdir()
    assert {path.name for path in run.iterdir()} == {"0_vqvae", "1_classifier", "multirun.yaml"}


@pytest.mark.parametrize(
    "override",
    [
        *("+trainer.max_steps=20", "+trainer.gradient_clip_val=1", "+trainer.accumulate_grad_batches=2"),
        *("+trainer.limit_val_batches=3", "+trainer.callbacks=[]", "trainer.limit_train_batches=7"),
        *("trainer.precision=bf16-mixed", "trainer.devices=2", "+trainer.some_new_option=1"),
    ],
)
def test_whatever_may_change_weights_is_a_part_of_what_a_checkpoint_is(override, compose_training):
    usual = compose_training()
    assert _trainer_identity(compose_training(override)) != _trainer_identity(usual)
    assert _trainer_identity(compose_training("+trainer.profiler=simple", "trainer=cpu")) == _trainer_identity(usual)


@pytest.fixture
def compose_training():
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        yield lambda *overrides: compose("train", overrides=["model=classifier", *overrides])
