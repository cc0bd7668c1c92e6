"""Runs are written by a process that ends, read back from disk, and compared with `grid.csv`."""

import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from src.evaluation.cell import Cell, CellSpec, Coordinates, Protocol, content_key
from src.evaluation.grid import COLUMNS, Grid, GridRow
from src.images import encode_images
from src.reporting.wandb_runs import WandbSettings, log_cell, log_failure, log_grid, resolve_mode
from tests.wandb_reading import Ended, LoggedRun, Processes, read_runs

WEIGHTS = "c0ffee" + 58 * "0"
CLASSIFIER = "c0ffee00"
EXAMPLES = encode_images(torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
NAMES = ("data", "attack", "eps", "threat", "defense", "noise", "protocol", "seed")


def cell_at(where: Coordinates, correct: int, n: int = 60, steps: float = 10.0) -> Cell:
    """A cell with ``correct`` of ``n`` images right, as if computed."""
    attack = {"_target_": f"src.attacks.{where.attack}", "steps": steps} if where.eps else {"_target_": None}
    identity = {
        "data": {"name": where.data, "n": float(n)},
        "classifier": WEIGHTS,
        "attack": attack,
        "eps": where.eps,
        "defense": [{"_target_": "src.defenses.KMeansCompression", "k": 20.0}],
        "noise": where.noise,
        "name": where.defense,
        "seed": float(where.seed),
    }
    return Cell(
        key=content_key(identity),
        coordinates=where,
        n=n,
        outcomes="1" * correct + "0" * (n - correct),
        predictions=[0] * n,
        clean_accuracy=0.95,
        undefended_accuracy=1 / 3,
        perturbation_l2=where.eps * 23.1,
        perturbation_linf=where.eps,
        reconstruction_mse=0.0123,
        stages={"attack": 1.5, "purify": 0.1, "classify": 0.2},
        identity=identity,
        examples=dict.fromkeys(("original", "attacked", "purified"), EXAMPLES)
        | {"labels": [7] * 10, "predictions": [2] * 10},
        environment={"torch": "2.14.1"},
    )


def small_grid() -> Grid:
    """2 attacks × 3 eps × 3 columns; one cell missing; at eps 0 both attacks show the same cells."""
    rows = []
    for attack in ("fgsm", "ifgsm"):
        for eps in (0.0, 0.1, 0.3):
            for i, (defense, noise) in enumerate((("none", None), ("vqvae", 0.0), ("vqvae", 0.25))):
                where = Coordinates("mnist", attack, eps, "gray_box", defense, noise, "default", 0)
                shown = where if eps else replace(where, attack="fgsm")
                cell = cell_at(shown, 57 - i - int(100 * eps) - (7 if attack == "ifgsm" and eps else 0))
                is_missing = (attack, eps, noise) == ("ifgsm", 0.3, 0.25)
                rows.append(GridRow(where, cell.key, None if is_missing else cell))
    return Grid(tuple(rows))


def settings_for(outputs: str, **changes: Any) -> WandbSettings:
    return WandbSettings(Path(outputs), **changes)


def spec_of(cell: Cell) -> CellSpec:
    """A cell's specification; nothing of it can be loaded."""

    def load() -> Any:
        raise AssertionError("nobody should compute this")

    return CellSpec(cell.coordinates, cell.identity, Protocol(), False, load, load, load, load, load)


# What follows runs in processes of its own.


def write_sweep(outputs: str, figure: str) -> dict[str, Any]:
    """Log a grid and its cells twice, and say how it went."""
    grid, settings, before = small_grid(), settings_for(outputs), dict(os.environ)
    figures = [Path(figure), Path(figure).with_name("absent.png")]
    logged, seconds = [], []
    for _ in range(2):
        for row in grid:
            begin = time.perf_counter()
            if row.cell:
                logged.append(log_cell(row.cell, row.coordinates, settings))
                seconds.append(time.perf_counter() - begin)
    grids = [log_grid(grid, figures, settings) for _ in range(2)]
    other_project = log_cell(grid.rows[0].cell, grid.rows[0].coordinates, settings_for(outputs, project="other"))
    import wandb

    return {
        "logged": logged,
        "grids": grids,
        "other_project": other_project,
        "seconds": seconds,
        "run": wandb.run is None,
        "environment": dict(os.environ) == before,
    }


def write_named(outputs: str) -> list[bool]:
    """Log to a place that is spelled out, as a configuration gives it: the folder as text, tags as a list."""
    settings = WandbSettings(
        outputs,  # type: ignore[arg-type]
        project="p",
        entity="e",
        group="g",
        tags=["a", "b"],  # type: ignore[arg-type]
        notes="why",
    )
    cell = cell_at(Coordinates("mnist", "pgd", 0.1, "adaptive", "kmeans", None, "report", 2), 30)
    unknown = replace(cell, identity={}, examples={}, environment={})
    return [
        log_cell(cell, cell.coordinates, settings),
        log_cell(unknown, replace(unknown.coordinates, seed=3), settings),
        log_grid(Grid((GridRow(cell.coordinates, cell.key, None),)), [], settings),
        log_grid(Grid(()), [], settings),
    ]


def write_failures(outputs: str) -> list[bool]:
    """A job that crashed, cells that cannot be logged, a folder that cannot be written; then the cells as they are."""
    cell = small_grid().rows[-2].cell
    assert cell
    settings, elsewhere = settings_for(outputs), settings_for(f"{outputs}/file")
    Path(outputs).mkdir()
    Path(outputs, "file").write_text("in the way")
    broken = replace(cell, examples={"original": {"shape": [1], "uint8": "?"}})
    crash = partial(log_failure, spec_of(cell), RuntimeError("out of memory"), settings)
    return [
        crash(),
        crash(),
        log_cell(broken, broken.coordinates, settings),
        log_cell(cell, cell.coordinates, elsewhere),
        log_grid(small_grid(), [], elsewhere),
        log_cell(cell, cell.coordinates, replace(settings, mode="nonsense")),
        log_cell(cell, cell.coordinates, settings),
    ]


def write_cells(outputs: str, count: int) -> list[bool]:
    """Log the first cells of the grid."""
    rows = [row for row in small_grid() if row.cell][:count]
    return [log_cell(row.cell, row.coordinates, settings_for(outputs)) for row in rows if row.cell]


def write_at_once(outputs: str) -> list[list[bool]]:
    """Log the same cells from two processes at a time."""
    import wandb

    results = [Path(f"{outputs}.{i}") for i in range(2)]
    children = []
    for result in results:
        children.append(os.fork())
        if not children[-1]:
            try:
                result.write_text(json.dumps(write_cells(outputs, 6)))
                wandb.teardown()
            finally:
                os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads(result.read_text()) for result in results]


def write_beside_a_run(outputs: str) -> dict[str, Any]:
    """Log a cell and a grid while the caller has a run of its own open."""
    import wandb

    with wandb.init(dir=outputs, project="mine", mode="offline", settings=wandb.Settings(silent=True)) as mine:
        row = small_grid().rows[0]
        assert row.cell
        log_cell(row.cell, row.coordinates, settings_for(outputs))
        log_grid(small_grid(), [], settings_for(outputs))
        untouched = wandb.run is mine
        mine.log({"loss": 1.0})
    return {"untouched": untouched}


def write_and_die(outputs: str) -> None:
    """Be killed in the middle of writing a run."""
    import src.reporting.wandb_runs as module

    def die(cell: Cell) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    module._numbers = die
    write_cells(outputs, 1)


# What follows reads what they wrote.


@dataclass(frozen=True)
class Sweep:
    """What :func:`write_sweep` left behind."""

    outputs: Path
    ended: Ended
    runs: list[LoggedRun]

    @property
    def cells(self) -> list[LoggedRun]:
        places = ("cell", "defense-vqvae")
        return [run for run in self.runs if (run.start["job_type"], run.start["project"]) == places]

    @property
    def grid(self) -> LoggedRun:
        (run,) = (run for run in self.runs if run.start["job_type"] == "grid")
        return run


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Where the functions above run."""
    started = Processes("tests.reporting.test_wandb_runs")
    yield started
    started.close()


@pytest.fixture(scope="module")
def sweep(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep's outputs, and how the process that wrote them went."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("sweep")
    Image.new("RGB", (40, 30)).save(folder / "fgsm curves.png")
    ended = processes.run("write_sweep", folder / "outputs", folder / "fgsm curves.png", home=folder / "home")
    assert ended.code == 0, ended.stderr
    return Sweep(folder / "outputs", ended, read_runs(folder / "outputs"))


def csv_rows(grid: Grid) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(grid.to_csv())))


def as_written(value: Any) -> Any:
    """A value of `grid.csv` as the number, text or nothing that it stands for."""
    if value == "":
        return None
    try:
        return float(value)
    except ValueError:
        return value


def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in NAMES)


def test_there_is_one_run_for_each_computed_row_and_its_numbers_are_those_of_the_grid(
    sweep: Sweep,
) -> None:
    runs = {place(run.config): run for run in sweep.cells}
    computed = [row for row in small_grid() if row.cell]
    assert len(sweep.cells) == len(runs) == len(computed) == 17
    written = [row for row in csv_rows(small_grid()) if row["accuracy"]]
    for row, line in zip(computed, written, strict=True):
        run = runs[place(asdict(row.coordinates))]
        for name in ("n", "correct", "accuracy", "ci_low", "ci_high", "seconds"):
            assert run.summary[name] == float(line[name]), name
        assert run.config["key"] == line["key"]
        assert run.history == [{k: v for k, v in run.summary.items() if "." not in k} | run.history[0]]


def test_a_cell_run_says_what_it_was_made_from_and_nothing_that_is_not_a_number(
    sweep: Sweep,
) -> None:
    run = next(run for run in sweep.cells if place(run.config)[1:6] == ("ifgsm", 0.1, "gray_box", "vqvae", 0.25))
    assert run.start["display_name"] == "ifgsm eps 0.1 · vqvae 0.25"
    assert run.start["run_group"] == f"mnist-default-{CLASSIFIER}"
    assert run.config["attack/steps"] == 10
    assert run.config["defense/0/k"] == 20
    assert run.config["classifier"] == WEIGHTS
    assert run.config["environment/torch"] == "2.14.1"
    assert run.summary["recovered"] == run.summary["accuracy"] - 1 / 3
    assert run.summary["seconds/attack"] == 1.5
    values = {name: value for name, value in run.summary.items() if not name.startswith("examples.")}
    assert all(isinstance(value, int | float) for value in values.values())
    assert not any(isinstance(value, dict | list) for value in run.config.values())


def test_a_cell_run_shows_its_examples(sweep: Sweep) -> None:
    from PIL import Image

    run = sweep.cells[0]
    assert Image.open(run.media("examples")).size == (10 * 28, 3 * 28)
    assert "7→2" in run.summary["examples.caption"]


def test_running_again_logs_nothing_but_another_project_gets_its_own_runs(sweep: Sweep) -> None:
    ended = sweep.ended
    assert ended.result["logged"] == 17 * [True] + 17 * [False]
    assert ended.result["grids"] == [True, False]
    assert ended.result["other_project"] is True


def test_all_runs_of_a_sweep_are_finished_and_stand_in_one_group(sweep: Sweep) -> None:
    runs = sweep.runs
    assert {run.start["run_group"] for run in runs} == {f"mnist-default-{CLASSIFIER}"}
    assert {run.exit_code for run in runs} == {0}


def test_the_grid_run_holds_the_table_of_grid_csv(sweep: Sweep) -> None:
    run = sweep.grid
    table, written = run.table("grid"), csv_rows(small_grid())
    assert list(table[0]) == list(COLUMNS)
    assert [list(row.values()) for row in table] == [[as_written(v) for v in row.values()] for row in written]
    assert table[-1]["accuracy"] is None


def test_the_grid_run_holds_the_lines_twice_and_leaves_out_what_is_missing(sweep: Sweep) -> None:
    run = sweep.grid
    wanted = {
        (row["attack"], f"{row['defense']} {row['noise']}".strip(), float(row["eps"])): float(row["accuracy"])
        for row in csv_rows(small_grid())
        if row["accuracy"]
    }
    drawn = {
        (attack, point["lineKey"], point["step"]): point["lineVal"]
        for attack in ("fgsm", "ifgsm")
        for point in run.table(f"curves/{attack}_table")
    }
    assert drawn == wanted
    names = {"none": "none", "vqvae_0": "vqvae 0", "vqvae_0_25": "vqvae 0.25"}
    stepped = {
        (name.split("/")[0], names[name.split("/")[1]], row["eps"]): value
        for row in run.history
        if "eps" in row
        for name, value in row.items()
        if "/" in name
    }
    assert stepped == wanted
    assert [row["eps"] for row in run.history if "eps" in row] == [0, 0.1, 0.3]
    steps = {metric["name"]: metric.get("step_metric") for metric in run.of("metric")}
    assert steps == {"eps": None} | {f"{a}/{label}": "eps" for a in ("fgsm", "ifgsm") for label in names}


def test_the_grid_run_holds_figures_summary_and_config(sweep: Sweep) -> None:
    from PIL import Image

    run = sweep.grid
    assert Image.open(run.media("figures/fgsm_curves")).size == (40, 30)
    assert not any("absent" in name for name in run.summary)
    accuracies = {row.coordinates: row.cell.accuracy for row in small_grid() if row.cell}
    assert run.summary["cells"] == 18
    assert run.summary["missing"] == 1
    assert run.summary["best_accuracy"] == max(accuracies.values())
    assert run.summary["worst_accuracy"] == min(accuracies.values())
    vqvae = [accuracy for where, accuracy in accuracies.items() if where.noise == 0.25]
    assert run.summary["worst/vqvae_0_25"] == min(vqvae)
    assert run.config["data"] == "mnist"
    assert run.config["eps"] == [0, 0.1, 0.3]


def test_logging_is_quiet_late_fast_and_leaves_nothing_behind(processes: Processes, sweep: Sweep) -> None:
    outputs, ended = sweep.outputs, sweep.ended
    assert ended.stdout == ended.stderr == ""
    assert not processes.module_imports_wandb
    assert ended.result["run"]
    assert ended.result["environment"]
    assert sorted(ended.result["seconds"][1:17])[8] < 0.25  # 0.03 s on an idle machine
    home = outputs.parent / "home"
    assert not (home / ".local").exists()  # W&B would keep the tables' files there until they are uploaded
    staged = [entry for run in sweep.runs for each in run.of("artifact") for entry in each["manifest"]["contents"]]
    assert len(staged) == 3
    assert all(outputs in Path(entry["local_path"]).parents for entry in staged)
    assert all(Path(entry["local_path"]).is_file() for entry in staged)


def test_place_and_names_come_from_the_settings(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_named", tmp_path / "out", home=tmp_path / "home")
    assert (ended.result, ended.stderr) == ([True, True, True, True], "")
    runs = read_runs(tmp_path / "out")
    for run in runs:
        told = {name: run.start[name] for name in ("project", "entity", "run_group", "tags", "notes")}
        assert told == {"project": "p", "entity": "e", "run_group": "g", "tags": ["a", "b"], "notes": "why"}
    assert runs[0].start["display_name"] == "pgd eps 0.1 · kmeans · adaptive seed 2"
    assert runs[0].config["noise"] is None
    assert [run.summary.get("missing") for run in runs[2:]] == [1, 0]


def test_failures_are_marked_failed_cost_a_line_and_can_be_made_good(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_failures", tmp_path / "out", home=tmp_path / "home")
    assert ended.result == [True, False, False, False, False, False, True]
    assert len(ended.stderr.splitlines()) == 4, ended.stderr
    assert all(line.startswith("not logged to W&B: ") for line in ended.stderr.splitlines())
    crashed, broken, good = read_runs(tmp_path / "out")
    assert (crashed.exit_code, broken.exit_code, good.exit_code) == (1, 1, 0)
    assert crashed.start["display_name"] == "ifgsm eps 0.3 · vqvae 0"
    assert crashed.config["error"] == "RuntimeError: out of memory"
    assert crashed.start["run_group"] == good.start["run_group"]


def test_a_run_that_was_killed_is_written_again(processes: Processes, tmp_path: Path) -> None:
    killed = processes.run("write_and_die", tmp_path / "out", home=tmp_path / "home")
    assert killed.code == -signal.SIGKILL
    assert len(list((tmp_path / "out/wandb").glob("offline-run-*"))) == 1
    again = processes.run("write_cells", tmp_path / "out", 2, home=tmp_path / "home")
    assert again.result == [True, True]
    assert [run.exit_code for run in read_runs(tmp_path / "out")] == [0, 0]


def test_two_sweeps_at_once_log_a_cell_once(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_at_once", tmp_path / "out", home=tmp_path / "home")
    assert [sum(pair) for pair in zip(*ended.result, strict=True)] == 6 * [1], ended.stderr
    assert len(read_runs(tmp_path / "out")) == 6
    assert not list((tmp_path / "out/wandb").glob(".*.lock"))


def test_a_run_of_the_callers_own_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    ended = processes.run("write_beside_a_run", tmp_path, home=tmp_path / "home")
    assert ended.result == {"untouched": True}, ended.stderr
    mine = next(run for run in read_runs(tmp_path) if run.start["project"] == "mine")
    assert mine.history == [{"loss": 1}]


def test_a_server_out_of_reach_is_waited_for_once_and_the_runs_are_kept_offline(
    processes: Processes, tmp_path: Path
) -> None:
    ended = processes.run(
        "write_cells",
        *(tmp_path / "out", 3),
        home=tmp_path / "home",
        WANDB_API_KEY=40 * "a",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_INIT_TIMEOUT="1",
    )
    assert ended.result == [True, True, True]
    assert ended.stderr.count("W&B is not reached") == 1
    offline = [run for run in read_runs(tmp_path / "out") if run.folder.name.startswith("offline-run-")]
    assert [run.exit_code for run in offline] == [0, 0, 0]


@pytest.mark.parametrize(("mode", "logged", "warnings"), [("online", True, 1), ("disabled", False, 0)])
def test_a_mode_from_the_environment_is_heeded(
    processes: Processes, tmp_path: Path, mode: str, logged: bool, warnings: int
) -> None:
    ended = processes.run("write_cells", tmp_path / "out", 1, home=tmp_path / "home", WANDB_MODE=mode)
    assert ended.result == [logged]  # online without a key goes offline instead of asking for one
    assert ended.stderr.count("W&B is not reached") == warnings
    assert (tmp_path / "out/wandb").exists() == logged


def test_sync_finds_every_finished_run(sweep: Sweep, tmp_path: Path) -> None:
    import subprocess

    home = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | {"HOME": str(tmp_path)}
    command = [
        str(Path(sys.executable).with_name("wandb")),
        "sync",
        "--dry-run",
        "--verbose",
        str(sweep.outputs / "wandb"),
    ]
    said = subprocess.run(command, env=home, capture_output=True, text=True, check=True).stderr
    assert "Would sync 19 run(s)" in said


LOGIN = f"machine {{}}\n  login user\n  password {40 * 'a'}\n"


@pytest.mark.parametrize(
    ("requested", "environment", "netrc", "mode"),
    [
        (None, {}, None, "offline"),
        (None, {"WANDB_API_KEY": ""}, None, "offline"),
        (None, {"WANDB_API_KEY": 40 * "a"}, None, "online"),
        (None, {"WANDB_IDENTITY_TOKEN_FILE": "token"}, None, "online"),
        (None, {}, LOGIN.format("api.wandb.ai"), "online"),
        (None, {}, LOGIN.format("github.com"), "offline"),
        (None, {}, f"default login user password {40 * 'a'}\n", "offline"),
        (None, {}, "machine api.wandb.ai login user password\n", "offline"),
        (None, {"WANDB_BASE_URL": "https://wandb.here:8080"}, LOGIN.format("wandb.here:8080"), "online"),
        (None, {"WANDB_BASE_URL": "https://wandb.here"}, LOGIN.format("api.wandb.ai"), "offline"),
        (None, {"NETRC": "/nowhere"}, LOGIN.format("api.wandb.ai"), "offline"),
        (None, {"WANDB_MODE": "offline", "WANDB_API_KEY": 40 * "a"}, None, "offline"),
        (None, {"WANDB_MODE": "online"}, None, "online"),
        (None, {"WANDB_MODE": "dryrun"}, None, "offline"),
        (None, {"WANDB_MODE": "disabled"}, None, "disabled"),
        ("disabled", {"WANDB_MODE": "online"}, None, "disabled"),
        ("online", {"WANDB_MODE": "offline"}, None, "online"),
    ],
)
def test_the_mode_is_the_one_asked_for_or_else_online_with_a_key_and_offline_without(
    tmp_path: Path, requested: str | None, environment: dict[str, str], netrc: str | None, mode: str
) -> None:
    if netrc:
        (tmp_path / ".netrc").write_text(netrc)
    assert resolve_mode(requested, {"HOME": str(tmp_path)} | environment) == mode


def test_a_grid_of_several_settings_has_a_line_for_each() -> None:
    from src.reporting.facets import facets
    from src.reporting.wandb_runs import _curves

    where = Coordinates("mnist", "ifgsm", 0.1, "gray_box", "none", None, "default", 0)
    cells = [cell_at(where, 40, steps=5.0), cell_at(where, 30, steps=10.0)]
    rows = [GridRow(cell.coordinates, cell.key, cell) for cell in cells]
    rows.append(GridRow(replace(where, threat="adaptive"), "", cell_at(replace(where, threat="adaptive"), 20)))
    curves = [curve for facet in facets(Grid(tuple(rows))) for curve in _curves(facet)]
    assert len({curve.metric for curve in curves}) == len({curve.label for curve in curves}) == 3
    assert [curve.points for curve in curves] == [[(0.1, 40 / 60)], [(0.1, 0.5)], [(0.1, 20 / 60)]]
