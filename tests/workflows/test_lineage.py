"""A sweep's W&B runs name the weights behind their cells."""

import json
import shutil
from pathlib import Path

from src.evaluation import Grid, GridRow
from src.training_record import TrainingRecord
from src.workflows.lineage import weights_behind
from src.workflows.reporting import _training_records
from tests.reporting import reporting_factories as make
from tests.wandb_reading import read_runs


def test_a_sweeps_grid_uses_its_networks_and_puts_out_its_report(swept: tuple[Path, str]) -> None:
    outputs = swept[0]
    (grid,) = read_runs(outputs, "grid")
    made = {each["name"]: each for each in grid.of("artifact") if each["type"] in ("model", "grid")}
    models = {name: each for name, each in made.items() if each["type"] == "model"}
    assert set(models) == {"mnist-classifier", "mnist-vqvae-noise0", "mnist-vqvae-noise0.5"}
    for name, each in models.items():
        record = TrainingRecord.load(outputs / "checkpoints" / "mnist" / f"{name.removeprefix('mnist-')}.json")
        assert each["use_after_commit"]
        assert json.loads(each["metadata"])["weights"] == record.weights
    (report,) = (each for each in made.values() if each["type"] == "grid")
    inside = {entry["path"] for entry in report["manifest"]["contents"]}
    assert {"grid.csv", "grid.md", "index.html"} <= inside
    assert {path for path in inside if path.startswith("figures/")} == {
        f"figures/{path.name}" for path in (outputs / "report" / "figures").glob("*.png")
    }
    assert grid.config["classifier"] == json.loads(models["mnist-classifier"]["metadata"])["weights"]


def test_cells_have_no_artifacts_but_fingerprints(swept: tuple[Path, str]) -> None:
    """Hundreds of cells would copy hundreds of checkpoints."""
    cells = read_runs(swept[0], "cell")
    weights = {
        path.stem: TrainingRecord.load(path).weights for path in (swept[0] / "checkpoints" / "mnist").glob("*.json")
    }
    assert len(cells) > 10
    for cell in cells:
        assert cell.of("artifact") == []
        assert cell.config["classifier"] == weights["classifier"]
        if cell.config["defense"] == "vqvae":
            assert weights[f"vqvae-noise{cell.config['noise']:g}"] in cell.config.values()


def test_only_weights_that_still_lie_there_are_found(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    shutil.copytree(trained / "checkpoints" / "mnist", folder)
    records = {path.stem: TrainingRecord.load(path).weights for path in folder.glob("*.json")}
    identity = {"classifier": records["classifier"], "defense": [{"checkpoint": records["vqvae-noise0"]}], "eps": 0.1}
    found = weights_behind([identity], tmp_path)
    assert [weights.checkpoint for weights in found] == [folder / "classifier.ckpt", folder / "vqvae-noise0.ckpt"]
    shutil.copy(folder / "vqvae-noise0.5.ckpt", folder / "vqvae-noise0.ckpt")  # trained anew, and not to its end
    (folder / "classifier.json").write_text("{")
    assert weights_behind([identity], tmp_path) == []
    own = {"classifier": {"factory": "package.module:factory", "weights": 64 * "0"}}
    assert weights_behind([own], tmp_path) == []
    assert weights_behind([own], tmp_path / "nowhere") == []


def test_a_report_shows_the_trainings_of_its_networks_only(tmp_path: Path) -> None:
    records = {
        "classifier": make.make_record("classifier", None, False),
        "vqvae": make.make_record("vqvae", 0.5, False),
    }
    where = make.coordinates(eps=0.0)
    data = {"name": "mnist", "fingerprint": "f00d", "n": 100.0}
    cell = make.cell(where, data=data, classifier=records["classifier"].weights)
    (tmp_path / "mnist").mkdir()
    for name, record in records.items():
        record.save(tmp_path / "mnist" / f"{name}.ckpt")
    shown = _training_records(tmp_path, Grid((GridRow(where, cell.key, cell),)))
    assert [record.model for record in shown] == ["classifier"]
