"""The purifier that is proved, by the real commands."""

import torch

from src.models.checkpoint import read_checkpoint
from tests.workflows.conftest import copy_of, read_grid

NARROW = (
    "model.module.convolutions=[[4,5,2,2],[8,4,2,1]]",
    "model.module.linears=[16]",
    "model.module.style_codes=4",
    "model.module.hidden=4",
)


def test_it_is_trained_and_swept_like_any_other(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    arguments = ("model=vqvae_certified", "+experiment=demo", "trainer.limit_train_batches=4", "logger=none", *NARROW)
    run_command("src.train", *arguments, outputs=outputs)
    checkpoint, provenance = read_checkpoint(outputs / "checkpoints" / "mnist" / "vqvae_certified.ckpt", "")
    classifier = read_checkpoint(outputs / "checkpoints" / "mnist" / "classifier.ckpt", "")[1]
    assert provenance.config["module"]["classifier"]["checkpoint"] == classifier.weights
    stand_in = checkpoint["state_dict"]["stand_in"]  # kept with the weights, one row a class
    assert stand_in.shape == (10, 4**2) and stand_in.dtype == torch.int64 and 0 <= stand_in.min() <= stand_in.max() < 16
    assert "is trained already" in run_command("src.train", *arguments, outputs=outputs).stdout

    asked = ("attack=fgsm", "eps=0,0.3", "defense=vqvae_certified", "threat=gray_box,adaptive", "limit=40")
    run_command("src.sweep", "-m", *asked, "logger=none", "checks.images=0", outputs=outputs)
    rows = [row for row in read_grid(outputs) if row["defense"] == "vqvae_certified"]
    assert len(rows) == 4 and all(row["accuracy"] and row["noise"] == "" for row in rows)
