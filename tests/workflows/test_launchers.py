"""Sweeps in parallel: whatever launches the jobs, the same comes out."""

import re
from collections.abc import Sequence
from pathlib import Path

import joblib
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf

from src.workflows.command import CONFIG_PATH, register_resolvers
from tests.wandb_reading import read_runs
from tests.workflows.conftest import USERS_OWN, cells, copy_of, read_grid

#: 2 attacks × 2 eps undefended, a part of conftest's GRID, and a defense that fails on its two attacked cells.
PART = (
    *("-m", "attack=fgsm,ifgsm", "eps=0,0.2", "defense=none,fragile", "noise=0", USERS_OWN),
    "checks.images=0",
)
BROKEN = {("fgsm", "0.2", "fragile"), ("ifgsm", "0.2", "fragile")}


def where(row: dict[str, str]) -> tuple[str, str, str]:
    return row["attack"], row["eps"], row["defense"]


def same_as_the_basic_launcher(outputs: Path, swept: Path) -> None:
    """Grid, store, shared sets, job folders and W&B runs are those of the basic launcher's sweep."""
    reference = {where(row): row for row in read_grid(swept) if row["defense"] == "none"}
    rows = {where(row): row for row in read_grid(outputs)}
    assert {place for place, row in rows.items() if not row["accuracy"]} == BROKEN
    for place, expected in reference.items():
        assert all(rows[place][name] == expected[name] for name in ("key", "n", "correct", "accuracy", "ci_low"))
    assert set(cells(outputs)) == {row["key"] for row in rows.values() if row["accuracy"]}
    names = [{path.name for path in (each / "adversarial").glob("*.safetensors")} for each in (outputs, swept)]
    assert names[0] == names[1]
    (sweep,) = (outputs / "sweeps").glob("*/")  # the workers know its name, to the microsecond
    assert {path.name for path in sweep.iterdir() if path.name.isdigit()} == {str(number) for number in range(6)}
    runs = [run for run in read_runs(outputs, "cell") if "error" not in run.config]
    logged = sorted(
        (run.config["attack"], run.config["eps"], run.config["defense"], run.summary["accuracy"]) for run in runs
    )
    complete = [row for row in rows.values() if row["accuracy"]]
    clean_once = {
        r["key"]: (r["attack"] if float(r["eps"]) else "none", float(r["eps"]), r["defense"], float(r["accuracy"]))
        for r in complete
    }
    assert logged == sorted(clean_once.values())


def failures(said: str) -> list[tuple[int, int]]:
    """Threads and process of each failed job."""
    return [(int(t), int(p)) for t, p in re.findall(r"failed: .*fragile.*: (\d+) threads in process (\d+)", said)]


@pytest.mark.slow
def test_joblib(swept, trained, run_process, tmp_path, monkeypatch):
    """Two processes with half of the cores each. A failing job stops no other, whatever it raises."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outputs = copy_of(trained, tmp_path)
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = run_process("src.sweep", *PART, *launcher, outputs=outputs, check=False)
    assert done.returncode == 1
    assert "error: 2 of 8 cells are missing" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "launcher:" not in done.stdout
    assert "missing: ifgsm eps 0.2 · fragile" in done.stdout
    assert [threads for threads, _ in failures(done.stdout)] == [max(1, joblib.cpu_count() // 2)] * 2
    assert max(int(number) for number in re.findall(r"\[(\d+)/6, ", done.stdout)) == 4
    same_as_the_basic_launcher(outputs, swept[0])


@pytest.mark.slow
def test_submitit_starts_no_more_jobs_than_it_may(trained, run_command, tmp_path, monkeypatch):
    """One at a time, so the second, which needs the first one's set of attacked images, finds it made."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outputs = copy_of(trained, tmp_path)
    cap = ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=1", "logger=none")
    grid = ("-m", "attack=fgsm", "eps=0.2", "defense=fragile,none", "noise=0", USERS_OWN)
    done = run_command("src.sweep", *grid, *cap, outputs=outputs, check=False)
    assert "error: 1 of 2 cells are missing" in done.stderr
    (sweep,) = (outputs / "sweeps").glob("*/")
    first, second = ((sweep / number / "sweep.log").read_text() for number in "01")
    assert "[1/2, " in first
    ((threads, _),) = failures(second)
    assert threads == 1


@pytest.mark.very_slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_heavier_launchers(launcher, swept, trained, run_process, tmp_path, monkeypatch):
    if launcher == "ray":
        pytest.importorskip("ray", reason="pip install --editable '.[dev,ray]' --constraint constraints.txt")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    outputs = copy_of(trained, tmp_path)
    done = run_process("src.sweep", *PART, f"hydra/launcher={launcher}", outputs=outputs, check=False)
    assert "error: 2 of 8 cells are missing" in done.stderr
    logs = "".join(path.read_text() for path in (outputs / "sweeps").glob("*/*/sweep.log"))
    assert [threads for threads, _ in failures(logs)] == [1, 1]
    same_as_the_basic_launcher(outputs, swept[0])


class FakeLauncher:
    """Notes what it is asked to launch; its second batch dies."""

    def __init__(self) -> None:
        self.launched: list[tuple[int, list[list[str]]]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[int]:
        self.launched.append((initial_job_idx, [list(each) for each in job_overrides]))
        if len(self.launched) == 2:
            raise RuntimeError("a worker process died")
        return [0] * len(job_overrides)


@pytest.mark.parametrize(
    ("batch_size", "begins", "sizes"), [(2, [0, 2, 4], [2, 2, 1]), (None, [0], [5]), (9, [0], [5])]
)
def test_batches_of_a_sweep(batch_size, begins, sizes, caplog):
    from hydra_plugins.grid_sweeper import GridSweeper

    sweeper, launcher = GridSweeper(max_batch_size=batch_size), FakeLauncher()
    sweeper.launcher = launcher
    points = [[f"eps=0.{number}"] for number in range(5)]
    sweeper._launch(points, batch_size)
    assert [begin for begin, _ in launcher.launched] == begins
    assert [len(batch) for _, batch in launcher.launched] == sizes
    assert [point for _, batch in launcher.launched for point in batch] == points
    assert ("a worker process died" in caplog.text) == (len(sizes) > 1)


@pytest.fixture
def compose_sweep():
    """``compose_sweep("eps=0.1")``: the configuration of a sweep, Hydra's part included."""
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        yield lambda *overrides: compose("sweep", overrides=list(overrides), return_hydra_config=True)


def test_two_sweeps_of_one_second_have_a_folder_each(compose_sweep):
    folders = {str(compose_sweep().hydra.sweep.dir) for _ in range(2)}
    assert len(folders) == 2


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/\w+' is validated")  # as src.workflows.command does
@pytest.mark.parametrize("path", sorted(Path(CONFIG_PATH).glob("hydra/launcher/*.yaml")), ids=lambda path: path.stem)
def test_our_launcher_files_fit_their_plugins(path, compose_sweep):
    if path.stem == "ray":
        pytest.importorskip("ray", reason="pip install --editable '.[dev,ray]' --constraint constraints.txt")
    launcher = compose_sweep(f"hydra/launcher={path.stem}").hydra.launcher
    ours, merged = (OmegaConf.to_container(each, resolve=False) for each in (OmegaConf.load(path), launcher))
    assert {name: str(merged[name]) for name in ours} == {name: str(value) for name, value in ours.items()}
    assert get_class(launcher._target_).__name__.endswith("Launcher")
