"""Tables of README and docs are what their CSV files give, and each CSV says how it was measured."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from src.errors import UserError
from src.evaluation import Cell, CellStore, Coordinates, SweepManifest
from src.evaluation.spec import content_key
from tests import results
from tests.conftest import REPO
from tests.result_tables import TABLES
from tests.results import Measured, manifest_of, pages, sources

FOLDER = results.results(REPO)
FILES = sorted(FOLDER.glob("*.csv"))
MADE = [page for page in pages() if "<!-- table" in page.read_text(encoding="utf-8")]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """README and docs, to be changed."""
    shutil.copy(REPO / "README.md", tmp_path)
    kept = shutil.ignore_patterns("*.png", "*.svg", "*.py", "__pycache__")
    shutil.copytree(REPO / "docs", tmp_path / "docs", ignore=kept)
    return tmp_path


def change(path: Path, before: str, after: str) -> None:
    """Replace the first match of the pattern ``before``."""
    text, changes = re.subn(before, after, path.read_text(encoding="utf-8"), count=1)
    assert changes
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("page", MADE, ids=lambda page: page.name)
def test_tables_are_what_their_data_give(page: Path) -> None:
    found = list(results.filled(page))
    assert found
    for _, stands, made in found:
        assert stands == made


def test_each_table_stands_on_a_page() -> None:
    named = {table[1] for page in pages() for table in results.TABLE.finditer(page.read_text(encoding="utf-8"))}
    assert named == TABLES.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_csv_has_a_manifest_and_is_used(path: Path) -> None:
    manifest = manifest_of(path)
    assert manifest["seeds"] == sorted({int(row.get("seed", 0)) for row in Measured.load(path.stem, FOLDER).rows})
    assert any(path.stem in sources(page) for page in pages())
    for command in manifest["prepare"] + manifest["commands"]:
        assert command.startswith(("make ", "python -m ", "cp outputs/", "rm -f outputs/"))
        assert not re.search(r"(^|[ =])/", command), "a path of one machine"


def test_each_manifest_has_a_csv() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {path.stem for path in FILES}


def test_no_page_has_two_versions_of_a_network_under_one_name() -> None:
    assert [found for page in pages() for found in results.contradictions(page)] == []


def test_another_version_of_a_network_is_told(copied: Path) -> None:
    change(copied / "docs/results/report.json", r'"vqvae 0\.5": "\w{4}', '"vqvae 0.5": "0000')
    (told,) = results.contradictions(copied / "docs/results.md", copied)
    assert told.endswith("vqvae 0.5 has other weights in report than in board")
    with pytest.raises(UserError, match="other weights"):
        results.check(copied)


def test_a_changed_digit_is_told_and_written_back(copied: Path) -> None:
    results.check(copied)
    assert results.write(copied) == []
    page = copied / "docs" / "verdicts.md"
    change(page, r"0\.3 \| \d+\.\d ±", "0.3 | 99.9 ±")
    with pytest.raises(UserError, match=r"verdicts\.md: the table 'verdicts of verdicts' is not what its CSV gives"):
        results.check(copied)
    assert results.write(copied) == [page]
    assert page.read_bytes() == (REPO / "docs" / "verdicts.md").read_bytes()


def test_a_changed_count_changes_the_table(copied: Path) -> None:
    change(copied / "docs/results/attacks.csv", r"(ours,FGSM,0\.1,k=1,500),\d+", r"\1,400")
    assert results.write(copied) == [copied / "docs" / "attacks.md"]
    assert "| FGSM | ours | 0.1 | 80.0 |" in (copied / "docs/attacks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("table: verdicts of verdicts", "table: judgements of verdicts", "there is no table 'judgements'; there are "),
        ("table: verdicts of verdicts", "table: verdicts of nothing", "there is no .*nothing.csv"),
        ("<!-- end of table -->", "", "a table's comment is not of the form"),
    ],
)
def test_a_comment_that_names_nothing_is_one_clear_line(copied: Path, before: str, after: str, message: str) -> None:
    change(copied / "docs" / "verdicts.md", before, after)
    with pytest.raises(UserError, match=message) as error:
        results.check(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"), [("commit", "yesterday"), ("seeds", ["0"]), ("networks", None), ("weights", {"classifier": 1})]
)
def test_a_manifest_that_does_not_fit_is_refused(copied: Path, field: str, value: object) -> None:
    path = copied / "docs" / "results" / "verdicts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=f"verdicts.json: {field}"):
        manifest_of(path.with_suffix(".csv"))


def test_a_missing_manifest_is_told(copied: Path) -> None:
    (copied / "docs" / "results" / "verdicts.json").unlink()
    with pytest.raises(UserError, match=r"verdicts\.csv has no manifest verdicts\.json"):
        results.check(copied)


def a_cell(attack: str, outcomes: str, weights: str = "w", members: tuple[Cell, ...] = ()) -> Cell:
    identity = {"attack": attack, "classifier": "c", "defense": {"checkpoint": weights}, "images": outcomes}
    return Cell(
        key=content_key(identity),
        coordinates=Coordinates("mnist", attack, 0.3, "adaptive", "vqvae", 0.5, "default", 0),
        n=len(outcomes),
        outcomes=outcomes,
        predictions=[0] * len(outcomes),
        clean_accuracy=1.0,
        undefended_accuracy=0.0,
        perturbation_l2=1.0,
        perturbation_linf=0.3,
        reconstruction_mse=0.0,
        stages={},
        identity=identity,
        environment={"torch": "2.9", "python": "3.12"},
        members={each.coordinates.attack: {"key": each.key, "correct": each.correct, "alone": 0} for each in members},
        propagations={"forward": 8, "backward": 4},
    )


def swept(folder: Path, *cells: Cell) -> None:
    """A sweep of the last of the cells, which are all stored."""
    for cell in cells:
        CellStore(folder / "cells").put(cell)
    rows = ((cells[-1].coordinates, cells[-1].key),)
    command = "python -m src.sweep -m eps=0.3 attack=worst logger=none paths.outputs=elsewhere"
    SweepManifest(rows, started=86400.0, command=command).save(folder / "sweeps" / "first")


def test_a_csv_is_collected_from_stored_cells(copied: Path, tmp_path: Path) -> None:
    folder, member = copied / "docs" / "results", a_cell("fgsm", "1101")
    manifest = manifest_of(folder / "board.csv") | {"commands": ["python -m src.sweep -m attack=worst eps=0.3"]}
    results.save(folder / "board.csv", manifest)
    swept(tmp_path / "outputs", member, a_cell("worst", "1001", members=(member,)))
    results.collect("board", tmp_path / "outputs", folder, commit="0123456789")
    board = Measured.load("board", folder)
    assert [(row["attack"], row["correct"], row["forward"]) for row in board.rows] == [
        ("worst", "2", "8"),
        ("fgsm", "3", "8"),
    ]
    assert board.manifest["weights"] == {"classifier": "c", "vqvae 0.5": "w"}
    assert board.manifest["versions"] == {"torch": "2.9", "python": "3.12"}
    assert (board.manifest["commit"], board.manifest["date"]) == ("0123456789", "1970-01-02")
    with pytest.raises(UserError, match=r"has no sweep of: python -m src\.sweep"):
        results.collect("verdicts", tmp_path / "outputs", folder)


def test_cells_of_two_trainings_make_no_csv() -> None:
    with pytest.raises(UserError, match=r"vqvae 0\.5 has other weights in cell"):
        results.weights_of([a_cell("fgsm", "1101"), a_cell("ifgsm", "1101", weights="v")])


def test_what_measures_is_run_in_order(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, collected = [], []
    monkeypatch.setattr(results, "results", lambda repo: copied / "docs" / "results")
    monkeypatch.setattr(results, "collect", lambda name, *_: collected.append(name))
    results.run([], run.append)
    manifests = [manifest_of(path) for path in FILES]
    assert run == [command for manifest in manifests for command in manifest["prepare"] + manifest["commands"]]
    said = capsys.readouterr().out
    assert all(command in said for command in run)
    assert "robust-log: not measured again" in said
    assert collected == [path.stem for path in FILES if path.stem not in ("attacks", "robust-log")]


def test_make_names_the_sweeps_of_its_targets() -> None:
    (sweep,) = results.sweeps_of("make demo")
    assert "attack=fgsm,ifgsm,mifgsm" in sweep
    assert results.sweeps_of("python -m src.train model=classifier") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands_of_manifests_compose(path: Path) -> None:
    """Targets are those of the Makefile, and each sweep and training is one that Hydra understands."""
    from hydra import compose, initialize_config_dir

    manifest = manifest_of(path)
    with initialize_config_dir(str(REPO / "conf"), version_base=None):
        for command in manifest["prepare"] + manifest["commands"]:
            if command.startswith("make "):
                subprocess.run([*command.split(), "--dry-run"], cwd=REPO, capture_output=True, check=True)
            elif " src." in command:
                module, *words = command.removeprefix("python -m src.").split()
                single = [re.sub(r"=([^,\[]+),.*", r"=\1", word) for word in words if word != "-m"]  # lists stay
                assert compose(module, single)


def test_the_board_ranks_by_the_stronger_attacker_and_last_what_was_not_tried(copied: Path) -> None:
    """Defense a falls to the attacker who knows it, b to the one who does not; of c only the latter is known."""
    counts = {"a": (9, 1), "b": (4, 8), "c": (10, None)}
    threats = ("gray_box", "adaptive")
    lines = ["attack,eps,threat,defense,noise,n,correct"]
    for defense, left in counts.items():
        asked = [("gray_box", 0, 10), *((threat, 0.3, k) for threat, k in zip(threats, left, strict=True))]
        lines += [f"worst,{eps},{threat},{defense},,10,{k}" for threat, eps, k in asked if k is not None]
    (copied / "docs/results/board.csv").write_text("\n".join(lines) + "\n")
    table = TABLES["board"](Measured.load("board", copied / "docs/results"))
    assert re.findall(r"^\| (\w) \|", table, re.MULTILINE) == ["b", "a", "c"]
    assert table.splitlines()[-1].count("not measured") == 1
