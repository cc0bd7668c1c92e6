"""The purifier that is proved, by the real commands."""

from dataclasses import replace

import pytest
import torch

from src.attacks import pgd
from src.data import ImageDataModule
from src.defended import DefendedClassifier
from src.defenses import AutoencoderPurifier
from src.evaluation import CellStore
from src.evaluation.code_certificate import Verdict
from src.evaluation.components import TestSet
from src.evaluation.proofs import prove
from src.models import CertifiedVQVAE, load_classifier
from src.models.checkpoint import read_checkpoint
from tests.evaluation.exhaustion import outcomes, patterns
from tests.workflows.conftest import copy_of, read_grid

pytestmark = pytest.mark.slow

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

    # What is proved is a cell of the same grid, below what any attack leaves.
    asked = ("attack=fgsm,certified", "eps=0,0.05", "defense=none,vqvae_certified", "limit=40", "logger=none")
    said = run_command("src.sweep", "-m", *asked, "threat=gray_box,adaptive", outputs=outputs).stdout
    keys = {(row["attack"], row["eps"], row["threat"], row["defense"]): row["key"] for row in read_grid(outputs)}
    proof = keys["certified", "0.05", "adaptive", "vqvae_certified"]
    assert proof == keys["certified", "0.05", "gray_box", "vqvae_certified"]
    assert keys["certified", "0", "adaptive", "none"] == keys["fgsm", "0", "adaptive", "none"]
    store = CellStore(outputs / "cells")
    attack = store.get(keys["fgsm", "0.05", "adaptive", "vqvae_certified"])
    proof, nothing = store.get(proof), store.get(keys["certified", "0.05", "adaptive", "none"])
    assert not (proof.right & ~attack.right).any()
    assert {"refuted", "open", "digest", "nodes"} <= proof.attacker.keys()
    assert proof.attacker["proved"] == proof.correct and proof.attacker["refuted"] > 0
    assert nothing.correct == 0 and "nothing can be proved of a defense by Identity" in nothing.attacker["unprovable"]
    assert "nothing-to-prove" in said and "proved-and-fooled" not in said

    # An attack that fools what is proved is an error of the program, whoever made it.
    assert not attack.right.all()
    store.put(replace(proof, outcomes="1" * 40, per_class=[]))
    broken = run_command("src.report", "logger=none", outputs=outputs, check=False)
    assert broken.returncode == 1 and "do not use these numbers" in broken.stderr
    assert "proved-and-fooled" in (outputs / "report" / "index.html").read_text()


@pytest.mark.very_slow
def test_what_is_proved_of_a_trained_network_agrees_with_exhaustion_and_stands_attacks(
    trained, run_command, slice_root, tmp_path
):
    outputs = copy_of(trained, tmp_path)
    arguments = ("model=vqvae_certified", "logger=none", "trainer.max_epochs=30", "model.module.eps=0.1", *NARROW)
    run_command("src.train", *arguments, "model.module.guidance=1", "model.module.drawing_lr=1e-2", outputs=outputs)
    folder = outputs / "checkpoints" / "mnist"
    classifier = load_classifier(folder / "classifier.ckpt")
    purifier = AutoencoderPurifier.from_checkpoint(folder / "vqvae_certified.ckpt", None, network=CertifiedVQVAE)
    data = ImageDataModule("mnist", slice_root, val_size=100)
    data.setup()
    digits = TestSet(*data.held_out("test", None), 10)
    model = DefendedClassifier(classifier, purifier)

    found = prove(classifier, purifier, digits, 0.1)
    assert 0.2 < found.proved.float().mean() < 1
    attacked = pgd(model, digits.images, digits.labels, eps=0.1, steps=20)
    assert (model(attacked).argmax(1) == digits.labels)[found.proved].all()

    exact = prove(classifier, purifier, digits, 0.02, nodes=10_000)
    few = [i for i, x in enumerate(digits.images) if patterns(purifier.network, x, 0.02) <= 1024]
    assert len(few) > 20
    for i in few:
        x, label = digits.images[i], int(digits.labels[i])
        classes = outcomes(purifier.network, lambda tried: model(tried).argmax(1), x, 0.02, at_most=1024)
        assert (exact.verdicts[i] == Verdict.PROVED) == (classes == {label})
