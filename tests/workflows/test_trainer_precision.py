"""``trainer.precision=auto``, which the bottleneck VQ-VAEs have in their YAML."""

import pytest
from hydra import compose, initialize_config_dir

from src.models.checkpoint import read_checkpoint
from src.workflows import configured
from src.workflows.command import CONFIG_PATH, register_resolvers

SMALL = ["trainer=cpu", "trainer.limit_train_batches=2", "data.source=null", "data.val_size=100", "model.epochs=1"]
SMALL += ["model.module.hidden=16", "model.module.residual_hidden=4", "model.module.num_embeddings=16", "logger=none"]


@pytest.mark.slow
@pytest.mark.parametrize(("native", "trained_in"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_machine_computes_in_it(
    monkeypatch, trained, slice_root, tmp_path, native, trained_in
):
    monkeypatch.setattr(configured, "native_bfloat16", lambda accelerator: native)
    register_resolvers()
    places = [f"paths.outputs={tmp_path}", f"data.root={slice_root}"]
    places += [f"model.module.classifier.checkpoint={trained}/checkpoints/mnist/classifier.ckpt"]
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose("train", overrides=["model=vqvae_smooth", "noise=0.5", *SMALL, *places])
    assert config.trainer.precision == "auto"
    configured.train_from_config(config)
    _, provenance = read_checkpoint(tmp_path / "checkpoints" / "mnist" / "vqvae_smooth-noise0.5.ckpt", "")
    assert provenance.config["trainer"]["precision"] == trained_in
