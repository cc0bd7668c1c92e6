"""The whole road, from training to a report with pictures, with images that are not MNIST's 1 × 28 × 28."""

from pathlib import Path

import pytest
import torch

from src.data.idx import write_idx
from tests.workflows.conftest import read_grid

pytestmark = pytest.mark.slow

SMALL = ("model.module.hidden=16", "model.module.residual_hidden=4", "model.module.num_embeddings=16")


def patterns(folder: Path, shape: tuple[int, int, int]) -> Path:
    """A random pattern for each of three classes, under noise; in IDX files."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(40, 216, (3, *shape), generator=generator)
    for part, size in (("train", 120), ("t10k", 24)):
        labels = torch.arange(size) % 3
        noise = torch.randint(-40, 40, (size, *shape), generator=generator)
        images = (pattern[labels] + noise).clamp(0, 255).to(torch.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte", images[:, 0] if shape[0] == 1 else images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels.to(torch.uint8))
    return folder


@pytest.mark.parametrize(
    ("shape", "defenses", "threats"),
    [
        ((3, 32, 32), ["none", "kmeans", "vqvae"], ["gray_box", "adaptive"]),
        ((1, 20, 20), ["none", "binarize", "vqvae"], ["gray_box"]),
    ],
    ids=str,
)
def test_from_own_images_to_a_report_with_pictures(command_server, tmp_path, shape, defenses, threats):
    root, outputs = patterns(tmp_path / "own", shape), tmp_path / "outputs"
    own = [f"data.root={root}", "data.name=own", "data.source=null", f"data.image_shape={list(shape)}".replace(" ", "")]
    common = [*own, "data.num_classes=3", "data.val_size=20", f"paths.outputs={outputs}", "logger=none", "trainer=cpu"]

    def run(command, *arguments):
        done = command_server.run(command, *arguments, *common)
        assert done.returncode == 0, done.stdout + done.stderr

    run("src.train", "model=classifier", "+experiment=demo")
    run("src.train", "model=vqvae", "+experiment=demo", *SMALL)
    asked = (f"defense={','.join(defenses)}", f"threat={','.join(threats)}", "noise=0", "checks.images=4")
    run("src.sweep", "-m", "attack=fgsm,ifgsm", "eps=0,0.1", *asked)
    rows = read_grid(outputs)
    assert len(rows) == 2 * 2 * len(threats) * len(defenses)
    assert all(row["accuracy"] and row["n"] == "24" for row in rows)
    gradients = list((outputs / "gradients").glob("*.safetensors"))
    assert gradients  # of the bare classifier, shared by attacks
    figures = {path.name for path in (outputs / "report" / "figures").glob("*.png")}
    where = "-gray_box" if len(threats) > 1 else ""
    assert {f"panel-ifgsm-eps0.1{where}.png", "reconstructions-vqvae.png"} <= figures


@pytest.mark.parametrize(
    ("model", "shape", "said"),
    [
        ("classifier", (1, 20, 28), "model=classifier cannot be trained on images 1×20×28: "),
        (
            "vqvae",
            (1, 30, 30),
            "model=vqvae turns images 1×30×30 into 1×28×28; it needs a height and a width divisible",
        ),
    ],
)
def test_a_network_that_cannot_take_these_images_is_refused_in_a_line(command_server, tmp_path, model, shape, said):
    root, outputs = patterns(tmp_path / "own", shape), tmp_path / "outputs"
    own = ["data=folder", f"data.root={root}", "data.val_size=20", f"paths.outputs={outputs}", "logger=none"]
    done = command_server.run("src.train", f"model={model}", "+experiment=demo", "trainer=cpu", *own)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert not list(outputs.rglob("*.ckpt"))
