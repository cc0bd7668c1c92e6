"""The purifier that is trained against an attacker who knows it, by the real commands."""

import json

import pytest

from src.models.checkpoint import read_checkpoint
from tests.workflows.conftest import cells, copy_of, read_grid


def test_a_classifier_that_saw_the_validation_images_or_other_data_does_not_guide_it(
    trained, run_command, slice_root, tmp_path
):
    outputs = copy_of(trained, tmp_path)
    arguments = ("model=vqvae_robust", "+experiment=demo", "logger=none")
    for changed, said in (("data.split_seed=1", "some of these validation images"), ("data.name=mine", "not on mine")):
        classifier = f"model.module.classifier.checkpoint={outputs}/checkpoints/mnist/classifier.ckpt"
        refused = run_command("src.train", *arguments, changed, classifier, outputs=outputs, check=False)
        assert refused.returncode == 1 and said in refused.stderr
        assert f"python -m src.train model=classifier data=mnist {changed} data.root={slice_root}" in refused.stderr
    assert not list(outputs.rglob("vqvae_robust*.ckpt"))


@pytest.mark.slow
def test_it_is_trained_and_swept_like_any_other(trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    narrow = ("model.module.hidden=16", "model.module.residual_hidden=4", "model.module.num_embeddings=32")
    arguments = ("model=vqvae_robust", "+experiment=demo", "trainer.limit_train_batches=3", "logger=none", *narrow)
    exact, rounded = (*arguments, "trainer.precision=32-true"), (*arguments, "trainer.precision=bf16-mixed")
    run_command("src.train", *exact, outputs=outputs)
    path = outputs / "checkpoints" / "mnist" / "vqvae_robust.ckpt"
    classifier = read_checkpoint(outputs / "checkpoints" / "mnist" / "classifier.ckpt", "")[1]
    assert read_checkpoint(path, "")[1].config["module"]["classifier"]["checkpoint"] == classifier.weights
    assert "is trained already" in run_command("src.train", *exact, outputs=outputs).stdout
    assert "is trained already" not in run_command("src.train", *rounded, "overwrite=different", outputs=outputs).stdout
    assert read_checkpoint(path, "")[1].config["trainer"]["precision"] == "bf16-mixed"

    asked = ("threat=gray_box,adaptive", "attack=ifgsm", "eps=0,0.3", "defense=none,vqvae_robust", "limit=40")
    run_command("src.sweep", "-m", *asked, "logger=none", "checks.images=0", outputs=outputs)
    rows = [row for row in read_grid(outputs) if row["defense"] == "vqvae_robust"]
    assert len(rows) == 4 and all(row["accuracy"] and row["noise"] == "" for row in rows)

    # A variant has a name of its own, and is chosen by validation images.
    run_command("src.train", *exact, "model.name=unguided", "model.module.guidance=0", outputs=outputs)
    before = cells(outputs)
    asked = ("eps=0.3", "defense=vqvae_robust", "defense.name=unguided", "split=val", "limit=20", "logger=none")
    run_command("src.sweep", *asked, outputs=outputs)
    made = [json.loads((outputs / "cells" / f"{key}.json").read_text()) for key in set(cells(outputs)) - set(before)]
    assert {cell["defense"] for cell in made} == {"none", "unguided"}
    for cell in made:
        assert (cell["data"], cell["identity"]["data"]["split"], cell["n"]) == ("mnist-val", "val", 20)
