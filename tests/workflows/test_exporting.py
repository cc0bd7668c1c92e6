"""What is exported answers as PyTorch does, and says what it is."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from src.defended import DefendedClassifier
from src.defenses import JPEG, Identity, VQVAEPurifier
from src.errors import UserError
from src.models import VQVAE, Classifier
from src.models.checkpoint import load_module, read_checkpoint
from src.workflows.exporting import Subject, _exported, _exporters_quiet
from tests.workflows.conftest import copy_of

pytestmark = pytest.mark.slow

QUIET = ("logger=none", "checks.images=0")


@pytest.fixture(scope="module")
def measured(trained, run_command, tmp_path_factory):
    """An outputs folder with networks and three measured cells."""
    outputs = copy_of(trained, tmp_path_factory.mktemp("measured"))
    asked = ("attack=fgsm", "eps=0,0.3", "defense=none,vqvae", "noise=0.5", "limit=40")
    run_command("src.sweep", "-m", *asked, *QUIET, outputs=outputs)
    return outputs


def networks(outputs):
    folder = outputs / "checkpoints" / "mnist"
    return load_module(Classifier, folder / "classifier.ckpt", "")[0], load_module(
        VQVAE, folder / "vqvae-noise0.5.ckpt", ""
    )[0]


def agreeing(theirs, ours) -> float:
    return np.isclose(theirs, ours.numpy(), atol=1e-4).all(tuple(range(1, ours.ndim))).mean()


def test_onnx_is_one_file_that_answers_as_pytorch_and_knows_its_numbers(measured, run_command, real_digits):
    said = run_command("src.export", "defense=vqvae", "noise=0.5", outputs=measured).stdout
    path = measured / "exported" / "mnist-vqvae-noise0.5-classifier.onnx"
    assert str(path) in said and len(said.strip().splitlines()) == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    classifier, vqvae = networks(measured)
    session = onnxruntime.InferenceSession(path)
    for size in (1, 7, 64):
        x = real_digits[0][:size]
        logits = session.run(["logits"], {"images": x.numpy()})[0]
        assert agreeing(logits, DefendedClassifier(classifier, VQVAEPurifier(vqvae))(x)) >= 0.9

    metadata = json.loads({each.key: each.value for each in onnx.load(path).metadata_props}["defense_vqvae"])
    weights = {
        name: read_checkpoint(measured / "checkpoints" / "mnist" / f"{name}.ckpt", "")[1]
        for name in ("classifier", "vqvae-noise0.5")
    }
    assert metadata["classifier"] == weights["classifier"].weights
    assert metadata["purifier"]["checkpoint"] == weights["vqvae-noise0.5"].weights
    assert metadata["data"]["fingerprint"] == weights["classifier"].data_fingerprint
    assert metadata["purifier"]["clip"] is True and metadata["noise"] == 0.5
    assert {(cell["eps"], cell["defense"]) for cell in metadata["cells"]} == {(0.0, "vqvae"), (0.3, "vqvae")}
    for cell in metadata["cells"]:
        stored = json.loads((measured / "cells" / f"{cell['key']}.json").read_text())
        assert cell["accuracy"] == stored["outcomes"].count("1") / 40


def test_each_part_can_be_had_alone_and_for_pytorch(measured, run_command, real_digits, tmp_path):
    classifier, vqvae = networks(measured)
    x = real_digits[0][:5]
    files = {"purifier": VQVAEPurifier(vqvae)(x), "classifier": classifier(x)}
    for part, expected in files.items():
        path = tmp_path / f"{part}.pt2"
        asked = (f"part={part}", "defense=vqvae", "noise=0.5", "format=torch_export", f"output={path}")
        run_command("src.export", *asked, outputs=measured)
        extra = {"defense_vqvae.json": ""}
        function = torch.export.load(path, extra_files=extra).module()
        assert agreeing(function(x).numpy(), expected) >= 0.8
        metadata = json.loads(extra["defense_vqvae.json"])
        assert (metadata["classifier"] is None) == (part == "purifier")
        assert {cell["defense"] for cell in metadata["cells"]} == {"vqvae" if part == "purifier" else "none"}
        parameters = (vqvae if part == "purifier" else classifier).parameters()
        assert path.stat().st_size < 3 * sum(each.nbytes for each in parameters) + 2**20


REFUSED = {
    "a random one": (("defense=resize_pad",), "is random"),
    "one by a library": (("defense=jpeg",), "defense=jpeg runs code outside PyTorch's graph and cannot be exported ("),
    "one that decides by values": (("defense=kmeans",), "defense=kmeans cannot be exported: PyTorch cannot trace it ("),
    "another format": (("format=tflite",), "format=tflite is not"),
    "another ending": (("output=x.pt",), "should end in .onnx"),
    "not trained": (("defense=vae", "noise=0.25"), "python -m src.train model=vae"),
}


@pytest.mark.parametrize(("asked", "named"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_said_in_a_line(measured, run_command, asked, named):
    before = sorted(measured.rglob("*.onnx"))
    done = run_command("src.export", *asked, outputs=measured, check=False)
    assert done.returncode == 1 and named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "on CPU" not in done.stderr
    assert sorted(measured.rglob("*.onnx")) == before


class ByNumPy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy().round())


PARTS = {"defense=jpeg": JPEG(), "the classifier": nn.Sequential(nn.Flatten(), nn.Linear(784, 10))}


@pytest.mark.parametrize("replaced", [{}, {"defense=jpeg": Identity(), "the classifier": ByNumPy()}])
def test_the_part_that_leaves_pytorchs_graph_is_named(replaced, real_digits):
    parts = PARTS | replaced
    module = DefendedClassifier(parts["the classifier"], parts["defense=jpeg"])
    images = real_digits[0][:4]
    module(images)
    with _exporters_quiet(), pytest.raises(UserError) as error:
        _exported(Subject(module, "logits", None, None, parts), images)
    name = "the classifier" if replaced else "defense=jpeg"
    assert str(error.value).startswith(
        f"{name} runs code outside PyTorch's graph and cannot be exported (RuntimeError: "
    )
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_file_is_not_written_over_unless_asked(measured, run_command, tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"mine")
    asked = ("defense=binarize", "part=purifier", f"output={path}")
    done = run_command("src.export", *asked, outputs=measured, check=False)
    assert done.returncode == 1 and "is there already" in done.stderr
    assert path.read_bytes() == b"mine"
    run_command("src.export", *asked, "overwrite=true", outputs=measured)
    assert onnx.load(path).graph.output[0].name == "purified"
