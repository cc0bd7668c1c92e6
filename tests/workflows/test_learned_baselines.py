"""The VQ-VAE's rivals, by the real commands."""

import json

import pytest

from src.models.checkpoint import read_checkpoint
from tests.workflows.conftest import copy_of, read_grid

pytestmark = pytest.mark.slow

NARROW = ("model.module.hidden=16", "model.module.residual_hidden=4", "model.module.dimension=8")


@pytest.mark.parametrize(
    ("name", "defense"), [("autoencoder", "autoencoder"), ("vae", "vae"), ("diffusion", "diffpure")]
)
def test_it_is_trained_and_swept_as_the_vqvae_is(name, defense, trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    training = (f"model={name}", "noise=0.5", "budget=demo", "trainer.limit_train_batches=3", "logger=none", *NARROW)
    run_command("src.train", *training, outputs=outputs)
    path = outputs / "checkpoints" / "mnist" / f"{name}-noise0.5.ckpt"
    assert read_checkpoint(path, "")[1].noise == 0.5
    assert set(json.loads(path.with_suffix(".json").read_text())["examples"]) == {"original", "noisy", "reconstruction"}

    asked = (
        "threat=gray_box,adaptive",
        "attack=ifgsm",
        "eps=0,0.3",
        f"defense={defense}",
        "noise=0.5",
        "limit=40",
        "eot_samples=2",
    )
    run_command("src.sweep", "-m", *asked, "logger=none", "checks.images=0", outputs=outputs)
    rows = read_grid(outputs)
    assert len(rows) == 4 and all(row["accuracy"] and row["noise"] == "0.5" for row in rows)

    run_command("src.pack", f"output={tmp_path / 'weights'}", outputs=outputs)
    card = (tmp_path / "weights" / "README.md").read_text().splitlines()
    (row,) = [line for line in card if f"| mnist/{name}-noise0.5" in line]
    assert ("%" in row) == (name != "diffusion"), "what a diffusion leaves depends on its steps, and on chance"

    untrained = run_command(
        "src.sweep", f"defense={defense}", "noise=0.25", "logger=none", outputs=outputs, check=False
    )
    assert untrained.returncode != 0
    assert f"python -m src.train model={name} noise=0.25" in untrained.stdout + untrained.stderr


def test_a_diffusion_model_without_noise_is_refused_in_a_line(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    done = run_command("src.train", "model=diffusion", "noise=0", "logger=none", outputs=outputs, check=False)
    assert done.returncode == 1
    assert "noise must be above 0 for a diffusion model, such as 0.5; got 0" in done.stderr.splitlines()[-1]
    done = run_command("src.sweep", "defense=diffpure", "noise=0", "logger=none", outputs=outputs, check=False)
    assert done.returncode == 1
    assert "defense=diffpure needs noise above 0, such as noise=0.25" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["vae", "diffusion"])
def test_they_are_certified_as_the_vqvae_is(name, trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    training = (f"model={name}", "noise=0.5", "budget=demo", "trainer.limit_train_batches=3", "logger=none", *NARROW)
    run_command("src.train", *training, outputs=outputs)
    run_command(
        "src.certify", f"model={name}", "noise=0.5", "images=2", "n0=10", "n=50", "logger=none", outputs=outputs
    )
    assert list((outputs / "certified").glob(f"*{name}0.5*.csv"))
