"""Certificates on disk: found again, never computed twice, whole whatever happens."""

import csv
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from src.errors import UserError
from src.evaluation.certificates import COLUMNS, CertificateFile, Certification, CertifiedImage
from src.evaluation.smoothing import ABSTAIN
from src.evaluation.statistics import certified_radius

WANTED = range(0, 100, 10)
#: Forked processes need not import PyTorch again, and these do not use it.
FORK = multiprocessing.get_context("fork")


def certification(sigma: float = 0.5, n: int = 1000) -> Certification:
    identity = {"data": {"name": "digits"}, "sigma": sigma, "n": n}
    return Certification("digits", "vqvae", 0.5, sigma, 100, n, 0.001, 0, identity)


def image(index: int) -> CertifiedImage:
    """A made-up certificate: every seventh image is abstained on, every third is wrong."""
    label = index % 10
    predicted = ABSTAIN if index % 7 == 0 else label + (index % 3 == 0)
    count = 700 + index
    radius = 0.0 if predicted == ABSTAIN else certified_radius(count, 1000, 0.5, 0.001)
    return CertifiedImage(index, label, predicted, radius, count, 1000, 100, 0.25)


def computing(file: CertificateFile, wanted: range = WANTED) -> list[int]:
    """Complete the file; returns what was computed for it, in order."""
    computed = []

    def compute(index: int) -> CertifiedImage:
        computed.append(index)
        return image(index)

    assert [each.index for each in file.complete(wanted, compute)] == computed
    return computed


@pytest.fixture
def file(tmp_path: Path) -> CertificateFile:
    return CertificateFile(tmp_path / "certified", certification())


def test_the_csv_is_the_contract(file):
    computing(file)
    assert file.path.name == f"digits-vqvae0.5-sigma0.5-{certification().key[:8]}.csv"
    with file.path.open() as lines:
        rows = list(csv.DictReader(lines))
    assert ",".join(rows[0]) == ",".join(COLUMNS) == "index,label,predicted,radius,correct,count,n,n0,seconds"
    assert [int(row["index"]) for row in rows] == list(WANTED)
    assert rows[0] == dict(zip(COLUMNS, ["0", "0", "-1", "0.0", "0", "700", "1000", "100", "0.25"], strict=True))
    assert [row["correct"] for row in rows[1:4]] == ["1", "1", "0"]
    assert float(rows[2]["radius"]) == certified_radius(720, 1000, 0.5, 0.001)  # to the last digit


def test_what_is_stored_is_read_again_and_not_computed_again(file):
    assert computing(file) == list(WANTED)
    again = CertificateFile.load(file.description)
    assert again.certification == file.certification
    assert again.rows() == {index: image(index) for index in WANTED}
    before = file.path.read_bytes()
    assert computing(again) == []
    assert file.path.read_bytes() == before


def test_more_images_extend_the_file(file):
    computing(file)
    assert computing(file, range(0, 100, 5)) == list(range(5, 100, 10))
    assert list(file.rows()) == list(range(0, 100, 5))


def test_other_settings_are_other_files(file, tmp_path):
    computing(file)
    for other in (certification(sigma=0.25), certification(n=2000)):
        other_file = CertificateFile(tmp_path / "certified", other)
        assert other_file.path != file.path
        assert not other_file.rows()


def test_interrupted_and_in_another_order_the_file_is_the_same(file, tmp_path):
    computing(file)
    other = CertificateFile(tmp_path / "other", certification())

    def interrupted(index: int) -> CertifiedImage:
        if index == 40:
            raise KeyboardInterrupt
        return image(index)

    with pytest.raises(KeyboardInterrupt):
        list(other.complete([90, 10, 0, 40, 20], interrupted))
    assert sorted(other.rows()) == [0, 10, 90]
    assert computing(other) == [20, 30, 40, 50, 60, 70, 80]
    assert other.path.read_bytes() == file.path.read_bytes()
    assert other.description.read_bytes() == file.description.read_bytes()


def test_nothing_but_the_files_and_a_lock_is_left(file):
    computing(file)
    names = {path.name for path in file.path.parent.iterdir()}
    assert names == {file.path.name, file.description.name, f".{file.path.name}.lock"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line[: len(line) // 2],
        lambda line: line.replace(",1000,", ",2000,"),
        lambda line: line.replace(",790,", ",1790,"),
        lambda line: "\0" * len(line),
        lambda line: line.replace("0.25", ""),
    ],
)
def test_a_damaged_line_is_named_and_computed_again(file, spoil, caplog):
    computing(file)
    whole = file.path.read_text()
    lines = whole.splitlines()
    lines[-1] = spoil(lines[-1])
    file.path.write_text("\n".join(lines))
    assert computing(file) == [90]
    assert "line 11 is damaged" in caplog.text
    assert file.path.read_text() == whole


def test_a_damaged_description_is_named(file):
    computing(file)
    stored = json.loads(file.description.read_text())
    for text in ("", "[]", json.dumps(stored | {"sigma": "x" * 3, "key": "0"}), json.dumps({"key": stored["key"]})):
        file.description.write_text(text)
        with pytest.raises(UserError, match=file.description.name):
            CertificateFile.load(file.description)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "certified").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        computing(CertificateFile(tmp_path / "certified", certification()))


# ---------------------------------------------------------------- processes


def work(folder: Path, notes: Path, slow: float, wanted: range = range(0, 60, 2)) -> None:
    """A process that completes a file and notes what it computes."""

    def compute(index: int) -> CertifiedImage:
        with notes.open("a") as lines:
            lines.write(f"{index}\n")
        time.sleep(slow)
        return image(index)

    list(CertificateFile(folder, certification()).complete(wanted, compute))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_processes_share_the_images_and_compute_none_twice(tmp_path):
    notes = [tmp_path / f"notes{i}" for i in range(3)]
    processes = [FORK.Process(target=work, args=(tmp_path, note, 0.03)) for note in notes]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    computed = [int(line) for note in notes if note.exists() for line in note.read_text().split()]
    assert sorted(computed) == list(range(0, 60, 2))
    assert list(CertificateFile(tmp_path, certification()).rows()) == list(range(0, 60, 2))
    assert not list(tmp_path.glob(".*.claim"))


def test_what_a_killed_process_was_at_is_computed_by_the_one_that_waits(tmp_path):
    notes, file = tmp_path / "notes", CertificateFile(tmp_path, certification())
    process = FORK.Process(target=work, args=(tmp_path, notes, 300.0, range(30, 31)))
    process.start()
    until(lambda: notes.exists() and notes.read_text() == "30\n")
    computed = []

    def compute(index: int) -> CertifiedImage:
        computed.append(index)
        if index == 50:  # the last that is free: now only the image of the other process is left
            process.kill()
        return image(index)

    list(file.complete([30, 40, 50], compute))
    process.join()
    assert computed == [40, 50, 30]
    assert list(file.rows()) == [30, 40, 50]


def test_columns_must_not_contradict_each_other():
    good = {name: str(value) for name, value in image(20).columns().items()}
    assert CertifiedImage.from_columns(good) == image(20)
    assert CertifiedImage.from_columns({**good, "seconds": "1"}) == replace(image(20), seconds=1.0)
    for name, value in (("correct", "0"), ("predicted", "-1"), ("radius", "0.0"), ("count", "1001"), ("n", "many")):
        with pytest.raises(ValueError, match=r".+"):
            CertifiedImage.from_columns({**good, name: value})


def test_a_radius_that_its_votes_do_not_give_is_computed_again(file, caplog):
    computing(file)
    stored = file.path.read_text()
    radius = f"{image(20).radius}"
    assert radius in stored
    file.path.write_text(stored.replace(radius, "0.9"))
    assert computing(file) == [20]
    assert "its radius does not follow from its votes" in caplog.text
    assert file.path.read_text() == stored
