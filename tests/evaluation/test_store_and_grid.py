import csv
import io
import json
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from src.errors import UserError
from src.evaluation import Cell, CellStore, Coordinates, SweepManifest
from src.evaluation.grid import COLUMNS, latest_sweep, next_number
from src.evaluation.spec import SCHEMA, content_key
from src.evaluation.statistics import sign_test, wilson_interval
from src.files import clear_temporaries, write_atomically

WHERE = Coordinates("mnist", "fgsm", 0.3, "gray_box", "vqvae", 0.25, "default", 0)


def make_cell(identity: dict | None = None, outcomes: str = "1101") -> Cell:
    identity = identity or {"eps": 0.3}
    return Cell(
        key=content_key(identity),
        coordinates=WHERE,
        n=len(outcomes),
        outcomes=outcomes,
        predictions=[3] * len(outcomes),
        clean_accuracy=1.0,
        undefended_accuracy=0.0,
        perturbation_l2=1.0,
        perturbation_linf=0.3,
        reconstruction_mse=0.01,
        stages={"attack": 1.0, "purify": 0.5, "classify": 0.25},
        identity=identity,
        per_class=[[outcomes.count("1"), len(outcomes)], [0, 0]],
    )


@pytest.fixture
def store(tmp_path) -> CellStore:
    return CellStore(tmp_path / "cells")


def test_cells_come_back_as_they_were(store, tmp_path):
    cell = make_cell()
    store.put(cell)
    assert CellStore(tmp_path / "cells").get(cell.key) == cell
    assert store.get("0" * 32) is None


def test_every_number_of_the_file_follows_from_its_outcomes(store):
    stored = json.loads(store.put(make_cell(outcomes="1" * 83 + "0" * 17)).read_text())
    assert (stored["n"], stored["correct"], stored["accuracy"]) == (100, 83, 0.83)
    assert (stored["ci_low"], stored["ci_high"]) == wilson_interval(83, 100)
    assert stored["seconds"] == 1.75


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"1101"', '"1111"'),
        lambda text: text.replace('"eps": 0.3}', '"eps": 0.4}'),
        lambda text: text.replace(f'"schema": {SCHEMA}', '"schema": 99'),
        lambda text: text.replace('"clean_accuracy": 1.0', '"clean_accuracy": 0.5'),
        lambda text: json.dumps(json.loads(text) | {"per_class": [[2, 4], [0, 0]]}),
    ],
)
def test_a_damaged_cell_is_named_and_counts_as_missing(store, tmp_path, caplog, damage):
    cell = make_cell()
    path = store.put(cell)
    path.write_text(damage(path.read_text()))
    fresh = CellStore(tmp_path / "cells")
    assert fresh.get(cell.key) is None
    assert path.name in caplog.text
    fresh.put(cell)
    assert CellStore(tmp_path / "cells").get(cell.key) == cell


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    def write(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "cell.json").write_text("before")
    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(tmp_path / "cell.json", write)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("cell.json", "before")]


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_stays(tmp_path):
    (tmp_path / ".cell.json.k1ll3d__.tmp").write_text("half")
    (tmp_path / ".mine.tmp").write_text("of another program")

    def write(path):
        path.write_text("whole")
        clear_temporaries(tmp_path)
        assert path.read_text() == "whole"

    write_atomically(tmp_path / "cell.json", write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "cell.json": "whole",
        ".mine.tmp": "of another program",
    }


def test_wilson_interval_is_the_textbooks():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20)[0] == 0
    assert wilson_interval(20, 20)[1] == 1


@pytest.mark.parametrize("n", [1, 7, 100, 10_000])
def test_intervals_and_the_sign_test_are_scipys(n):
    for count in range(0, n + 1, max(1, n // 20)):
        known = binomtest(count, n, alternative="greater").pvalue
        assert sign_test(count, n) == pytest.approx(known, rel=1e-9)
        interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
        assert wilson_interval(count, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert sign_test(0, 0) == 1


def test_grid_csv_is_the_contract(store):
    cell = make_cell()
    store.put(cell)
    rows = ((WHERE, cell.key), (replace(WHERE, defense="none", noise=None, eps=0.1), "f" * 32))
    grid = SweepManifest(rows).grid(store)
    text = grid.to_csv()
    assert text.splitlines()[0] == (
        "data,attack,eps,threat,defense,noise,protocol,seed,n,correct,accuracy,ci_low,ci_high,seconds,key"
    )
    present, missing = csv.DictReader(io.StringIO(text))
    low, high = cell.interval
    assert (float(present["accuracy"]), float(present["ci_low"]), float(present["ci_high"])) == (0.75, low, high)
    assert (present["noise"], present["eps"], present["n"], present["correct"]) == ("0.25", "0.3", "4", "3")
    assert [missing[name] for name in COLUMNS[8:14]] == [""] * 6
    assert (missing["noise"], missing["eps"], missing["key"]) == ("", "0.1", "f" * 32)
    assert [row.key for row in grid.missing] == ["f" * 32]


def test_requests_come_back_and_the_newest_is_found(tmp_path, store):
    request = SweepManifest(((WHERE, "a" * 32),), pending=1, started=5.0, compare_published=True)
    assert latest_sweep(tmp_path) is None
    for day in ("2026-01-02_00-00-00", "2026-01-10_00-00-00", "2026-01-01_00-00-00"):
        request.save(tmp_path / day)
    assert latest_sweep(tmp_path) == tmp_path / "2026-01-10_00-00-00"
    assert SweepManifest.load(tmp_path / "2026-01-10_00-00-00") == request
    with pytest.raises(UserError, match="is no sweep"):
        SweepManifest.load(tmp_path)
    (tmp_path / "grid.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        SweepManifest.load(tmp_path)


def test_a_clock_that_went_backwards_does_not_make_an_old_sweep_the_newest(tmp_path, caplog):
    """The newest is the one that was begun last; sweeps from before there were numbers are older than all others."""
    SweepManifest(()).save(tmp_path / "2026-05-01_00-00-00")
    old = tmp_path / "2026-05-01_00-00-00" / "grid.json"
    stored = json.loads(old.read_text())
    del stored["number"]
    old.write_text(json.dumps(stored))
    for folder in ("2026-03-01_00-00-00_000000", "2026-02-01_00-00-00_000000"):
        SweepManifest((), number=next_number(tmp_path)).save(tmp_path / folder)
        assert latest_sweep(tmp_path) == tmp_path / folder
    (tmp_path / "2026-02-01_00-00-00_000000" / "grid.json").write_text("{")
    assert latest_sweep(tmp_path) == tmp_path / "2026-03-01_00-00-00_000000"
    assert "damaged" in caplog.text


def test_finished_cells_are_counted_from_the_store(store):
    """Two of three were pending, and one of these is there by now; a row that shows the same cell is no other cell."""
    cells = [make_cell({"eps": eps}) for eps in (0.1, 0.2, 0.3)]
    request = SweepManifest(tuple((WHERE, cell.key) for cell in [*cells, cells[0]]), pending=2)
    store.put(cells[0])
    assert request.finished(store) == 0
    store.put(cells[1])
    assert request.finished(store) == 1
