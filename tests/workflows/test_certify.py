"""Certification as a user runs it: the real command, on a slice of real digits."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
from scipy.stats import beta, norm

from src.data import ImageDataModule
from tests.wandb_reading import read_runs
from tests.workflows.conftest import Command, copy_of

pytestmark = pytest.mark.slow

#: Every tenth of 120 images, few samples: a fraction of a second for each image.
SMALL = ("images=12", "n=200", "n0=20", "batch_size=50")
INDICES = list(range(0, 120, 10))


def read(outputs: Path, name: str) -> list[dict[str, str]]:
    """The rows of the one CSV whose name begins so, without the seconds, which no two runs share."""
    (path,) = (outputs / "certified").glob(f"{name}*.csv")
    with path.open() as lines:
        return [
            {column: value for column, value in row.items() if column != "seconds"} for row in csv.DictReader(lines)
        ]


@pytest.fixture(scope="module")
def certified(trained: Path, run_command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An outputs folder after an ordinary multirun, with and without the denoiser, and what was said."""
    outputs = copy_of(trained, tmp_path_factory.mktemp("certified"))
    done = run_command("src.certify", "-m", "noise=0.5", "model=vqvae", "denoise=true,false", *SMALL, outputs=outputs)
    return outputs, done.stdout


def test_the_rows_are_those_of_cohens_algorithm(certified, mnist):
    outputs, _ = certified
    _, labels = mnist.test_set(120)
    for name in ("mnist-vqvae0.5-sigma0.5-", "mnist-none-sigma0.5-"):
        rows = read(outputs, name)
        assert [int(row["index"]) for row in rows] == INDICES
        assert [int(row["label"]) for row in rows] == labels[INDICES].tolist()
        for row in rows:
            count, predicted = int(row["count"]), int(row["predicted"])
            assert (row["n"], row["n0"]) == ("200", "20")
            p = beta.ppf(0.001, count, 200 - count + 1)
            assert float(row["radius"]) == pytest.approx(0.5 * norm.ppf(p) if p > 0.5 else 0)
            assert (predicted == -1) == (p <= 0.5)
            assert row["correct"] == str(int(predicted == int(row["label"])))
    assert any(float(row["radius"]) > 0.5 for row in rows)


def test_it_says_how_it_goes_and_ends_with_a_table(certified):
    _, said = certified
    assert said.count("12 images, 0 of them stored -> ") == 2
    assert "[1/12, " in said
    assert "certified at radius 0: " in said
    lines = [line.split() for line in said.splitlines()]
    heads = [line for line in lines if line[:2] == ["radius", "0"]]
    assert len(heads) == 2
    assert heads[0][-3:] == ["ACR", "abstained", "images"]
    rows = {name: [line for line in lines if line[:4] == ["σ", "0.5", "·", name]] for name in ("vqvae", "none")}
    assert all(len(found) == 1 and found[0][-1] == "12" for found in rows.values())


def test_it_leaves_a_table_and_a_figure(certified):
    outputs, _ = certified
    text = (outputs / "report" / "certified.md").read_text()
    share = sum(row["correct"] == "1" for row in read(outputs, "mnist-vqvae")) / 12
    (line,) = (line for line in text.splitlines() if line.startswith("| σ 0.5 · vqvae 0.5 "))
    assert line.split("|")[2].split()[0] == f"{100 * share:.1f}"
    assert (outputs / "report" / "figures" / "certified.png").stat().st_size > 10_000


def test_wandb_has_a_run_a_certification(certified):
    outputs, _ = certified
    runs = {run.config["denoiser"]: run for run in read_runs(outputs, "certify")}
    assert set(runs) == {"vqvae", "none"}
    run, rows = runs["vqvae"], read(outputs, "mnist-vqvae")
    assert {name: run.config[name] for name in ("sigma", "n", "n0", "alpha", "noise", "seed")} == {
        "sigma": 0.5, "n": 200, "n0": 20, "alpha": 0.001, "noise": 0.5, "seed": 0,
    }  # fmt: skip
    radii = [float(row["radius"]) * int(row["correct"]) for row in rows]
    assert run.summary["certified/acr"] == pytest.approx(sum(radii) / 12)
    assert run.summary["certified/radius_0_5"] == pytest.approx(sum(radius >= 0.5 for radius in radii) / 12)
    assert run.media("figures/certified").read_bytes()[1:4] == b"PNG"
    curve = run.table("certified/curve_table")
    assert [point["accuracy"] for point in curve] == sorted((p["accuracy"] for p in curve), reverse=True)
    assert run.exit_code == 0
    used = {name: {each["name"] for each in runs[name].of("artifact") if each["type"] == "model"} for name in runs}
    assert used == {"none": {"mnist-classifier"}, "vqvae": {"mnist-classifier", "mnist-vqvae-noise0.5"}}


def test_killed_and_started_again_the_file_is_that_of_an_uninterrupted_run(
    certified, trained, start_command, run_command, tmp_path
):
    command = ("src.certify", "noise=0.5", *SMALL, "logger=none", f"paths.checkpoints={trained / 'checkpoints'}")
    process = start_command(*command, outputs=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("certified/*.csv")) or len(read(tmp_path, "mnist")) < 3:
        assert not process.has_ended(), process.wait()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    survived = read(tmp_path, "mnist")
    assert 3 <= len(survived) < 12
    expected = read(certified[0], "mnist-vqvae")
    assert survived == expected[: len(survived)]
    said = run_command(*command, outputs=tmp_path).stdout
    assert read(tmp_path, "mnist") == expected
    assert f"{len(survived)} of them stored" in said
    assert not list(tmp_path.glob("certified/.*.claim")) + list(tmp_path.glob("certified/.*.tmp"))


def test_certificates_are_a_part_of_the_newest_sweeps_report(certified, run_command):
    outputs, _ = certified
    sweep = ("-m", "attack=fgsm", "eps=0,0.2", "defense=none", "logger=none")
    said = run_command("src.sweep", *sweep, outputs=outputs).stdout
    assert "Certified accuracy · mnist" in said
    assert certified_images(outputs / "report" / "grid.md") == "12"
    more = ("noise=0.5", *SMALL, "images=15", "logger=none")
    said = run_command("src.certify", *more, outputs=outputs).stdout
    rows = read(outputs, "mnist-vqvae")
    assert [int(row["index"]) for row in rows] == sorted({*INDICES, *range(0, 120, 8)})
    assert f"15 images, {len({*INDICES} & {*range(0, 120, 8)})} of them stored" in said
    assert certified_images(outputs / "report" / "grid.md") == str(len(rows))
    assert "Certified accuracy · mnist</h2>" in (outputs / "report" / "index.html").read_text()


def certified_images(markdown: Path) -> str:
    """The number of images in the row of the denoised classifier."""
    (line,) = (line for line in markdown.read_text().splitlines() if line.startswith("| σ 0.5 · vqvae 0.5 "))
    return line.split("|")[-2].strip()


def test_anyones_classifier_can_be_certified(run_command, tmp_path):
    own = "classifier=tests.workflows.components:linear_classifier"
    run_command("src.certify", own, "denoise=false", "noise=0.25", *SMALL, "logger=none", outputs=tmp_path)
    assert [int(row["index"]) for row in read(tmp_path, "mnist-none-sigma0.25-")] == INDICES
    (description,) = (tmp_path / "certified").glob("*.json")
    assert '"factory": "tests.workflows.components:linear_classifier"' in description.read_text()


def test_a_denoiser_that_is_trained_for_it_is_chosen_by_validation_images(trained, slice_root, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    narrow = ("model.module.hidden=16", "model.module.residual_hidden=4", "model.module.num_embeddings=32")
    smooth = ("model=vqvae_smooth", "noise=0.5", "logger=none")
    run_command("src.train", *smooth, "+experiment=demo", "trainer.limit_train_batches=3", *narrow, outputs=outputs)
    assert (outputs / "checkpoints" / "mnist" / "vqvae_smooth-noise0.5.ckpt").is_file()
    run_command("src.certify", *smooth, "split=val", *SMALL, outputs=outputs)
    _, labels = ImageDataModule("mnist", slice_root, val_size=100).held_out("val")
    rows = read(outputs, "mnist-val-vqvae_smooth0.5-sigma0.5-")
    assert [(int(row["index"]), int(row["label"])) for row in rows] == [(i, int(labels[i])) for i in range(0, 96, 8)]


def test_another_precision_makes_other_certificates(certified, trained, run_command, tmp_path):
    outputs = copy_of(trained, tmp_path)
    fewer = ("images=6", "logger=none")
    run_command("src.certify", "noise=0.5", "denoise=false", *SMALL, *fewer, "precision=bfloat16", outputs=outputs)
    (described,) = (outputs / "certified").glob("*.json")
    assert json.loads(described.read_text())["identity"]["precision"] == "bfloat16"
    assert not (certified[0] / "certified" / described.name).exists()
    counts = [
        {int(row["index"]): int(row["count"]) for row in read(folder, "mnist-none-sigma0.5-")}
        for folder in (certified[0], outputs)
    ]
    exact, rounded = ([each[index] for index in INDICES[::2]] for each in counts)
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=20)
