"""Stored records with wrong types: each is named, or does no harm. Nothing else may come of them."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import reporting_factories as make
import vl_convert

from src.errors import UserError
from src.evaluation import Cell
from src.evaluation.certificates import CertificateFile
from src.evaluation.grid import Grid, SweepManifest, latest_sweep
from src.evaluation.spec import content_key
from src.evaluation.store import CellStore
from src.reporting.analysis.certified import load_certified
from src.reporting.document.sections import sections
from src.reporting.figures.plan import plan
from src.reporting.markdown import to_markdown
from src.reporting.page.page import to_html
from src.stored import DamagedError
from src.training_record import TrainingRecord

#: What may stand in the place of something else.
WRONG: tuple[Any, ...] = (None, True, -1, 2.5, 1e300, "text", "", [], ["a"], {}, {"a": {}}, [[[]]], [None])
Path_ = tuple[Any, ...]
T = TypeVar("T")


def places(record: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The way to everything in a record, of long lists to their first entry alone."""
    inner = record.items() if isinstance(record, dict) else enumerate(record[:1]) if isinstance(record, list) else ()
    for name, value in inner:
        yield (*path, name)
        yield from places(value, (*path, name))


def mutants(record: dict[str, Any]) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """The record with something else at one place, and without it."""
    for path in places(record):
        for wrong in WRONG:
            changed = copy.deepcopy(record)
            holder = changed
            for name in path[:-1]:
                holder = holder[name]
            holder[path[-1]] = wrong
            yield (*path, wrong), changed
        if isinstance(path[-1], str):
            del holder[path[-1]]
            yield (*path, "gone"), changed


def attempt(call: Callable[[], T], refusal: type[Exception]) -> T | str:
    """What a call returns, or the one line with which it refuses."""
    try:
        return call()
    except refusal as error:
        return str(error)


def show(grid: Grid, records: list[TrainingRecord] | None = None, draw: bool = True) -> None:
    """All of a report but the files."""
    parts = sections(grid)
    to_html(grid, parts, [], records or [])
    to_markdown(parts, {})
    for drawing in plan(parts, records or []) if draw else ():
        figure = drawing.picture()
        assert figure is None or vl_convert.vegalite_to_svg(figure).startswith("<svg")


@pytest.fixture
def suite() -> Cell:
    """A worst case with everything that a cell can hold."""
    where = make.coordinates("worst", 0.3, defense="vqvae", noise=0.5, threat="adaptive")
    made = make.cell(where, 0.6, n=10, examples=make.draw_examples(0.3, 0.5, 2))
    return replace(
        made,
        attacker={
            "family": "iterative",
            "knows_defense": True,
            "zero_gradient": 0.0,
            "eot_samples": 1,
            "random": False,
        },
        members={"fgsm": {"key": "f" * 32, "correct": 7, "alone": 1}},
    )


@pytest.mark.slow
def test_a_cell_with_something_else_in_a_place_is_damaged_or_harmless(suite: Cell, tmp_path: Path) -> None:
    good = suite.to_json()
    assert Cell.from_json(good) == suite
    accepted: dict[str, Cell] = {}
    for path, record in mutants(good):
        record["digest"] = content_key({name: value for name, value in record.items() if name != "digest"})
        cell = attempt(partial(Cell.from_json, record), DamagedError)
        if isinstance(cell, str):
            assert cell and "\n" not in cell
            continue
        assert type(cell.accuracy) is float and 0 <= cell.accuracy <= 1, path
        if cell != suite:
            accepted[json.dumps(cell.to_json())] = cell
    assert len(accepted) < 80  # names, and what may be empty
    for cell in accepted.values():
        show(Grid((make.row(cell),)), draw=cell.examples != suite.examples)
        SweepManifest(((cell.coordinates, cell.key),)).check_report(_holding(cell, tmp_path))


def _holding(cell: Cell, folder: Path) -> CellStore:
    store = CellStore(folder / "cells")
    store.put(cell)
    return store


@pytest.mark.slow
def test_a_training_record_with_something_else_in_a_place_is_damaged_or_harmless(tmp_path: Path) -> None:
    good = make.make_record("vqvae", 0.5, images=True)
    path, accepted = tmp_path / "vqvae.json", list[TrainingRecord]()
    for _, record in mutants(json.loads(json.dumps(asdict(good)))):
        path.write_text(json.dumps(record))
        loaded = attempt(partial(TrainingRecord.load, path), DamagedError)
        if not isinstance(loaded, str):
            accepted.append(loaded)
    assert len(accepted) < 60
    grid = make.make_grid(("fgsm",), (0.0,), {("none", None): (0.9, 0.1)})
    for loaded in accepted:
        show(grid, [loaded, good], draw=loaded.losses != good.losses or loaded.epochs != good.epochs)


def test_a_request_with_something_else_in_a_place_is_damaged_or_harmless(tmp_path: Path) -> None:
    where, other = make.coordinates(defense="vqvae", noise=0.5), make.coordinates(eps=0.0)
    SweepManifest(
        ((where, "a" * 32), (other, "b" * 32)), probes=(("a" * 32, "half", "c" * 32),), members=("d" * 32,)
    ).save(tmp_path / "one")
    path = tmp_path / "one" / "grid.json"
    good = json.loads(path.read_text())
    del good["schema"]  # for people: the rows' keys say of which version they are
    for at, record in mutants(good):
        path.write_text(json.dumps(record))
        latest_sweep(tmp_path)
        request = attempt(partial(SweepManifest.load, tmp_path / "one"), UserError)
        if isinstance(request, str):
            assert "grid.json is damaged" in request, at
            continue
        store = CellStore(tmp_path / "cells")
        grid = request.grid(store)
        grid.to_csv()
        show(grid, draw=False)
        request.check_report(store)
        request.finished(store)


def test_a_certificate_with_something_else_in_a_place_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = make.certified(0.5, 0.9)
    file = CertificateFile(tmp_path, some.certification)
    for image in some.images:
        file.add(image)
    good = json.loads(file.description.read_text())
    for at, record in mutants(good):
        file.description.write_text(json.dumps(record))
        caplog.clear()
        load_certified(tmp_path)
        assert at[0] != "identity" or "is damaged" in caplog.text, at
    file.description.write_text(json.dumps(good))
    file.path.write_text(file.path.read_text() + "\x00\n" + "9" * 5000 + ",1,1\n" + "x" * 200_000 + "\n")
    (found,) = load_certified(tmp_path)
    assert found.images == some.images
    file.path.unlink()
    file.path.mkdir()
    assert load_certified(tmp_path) == []


NOT_JSON = ["", "[" * 100_000, '{"a":' * 100_000, "\x00", "[1, 2]", "3", '{"schema": 1', "NaN", "\ud800"]


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_no_record_at_all_is_named(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = text.encode("utf-8", "surrogatepass")
    for name in ("cells/abc.json", "sweeps/one/grid.json", "vqvae.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert CellStore(tmp_path / "cells").get("abc") is None
    assert latest_sweep(tmp_path / "sweeps") is None
    assert "abc.json is damaged" in caplog.text and "grid.json is damaged" in caplog.text
    with pytest.raises(DamagedError):
        TrainingRecord.load(tmp_path / "vqvae.json")


def test_a_folder_in_the_place_of_a_cell_is_named_before_anything_is_computed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CellStore(tmp_path)
    store.path("abc").mkdir()
    assert store.get("abc") is None
    assert "abc.json is damaged (Is a directory)" in caplog.text
    with pytest.raises(UserError, match="is a folder, where a cell belongs"):
        store.get_or_make("abc", lambda: pytest.fail("computed"))
