import errno
import gzip
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data.idx import decode_idx, encode_idx, read_idx, write_content, write_idx
from src.errors import UserError

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@given(shape=shapes, seed=st.integers(0, 2**32))
def test_round_trip(shape, seed):
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    decoded = decode_idx(encode_idx(values))
    assert decoded.dtype == torch.uint8
    assert decoded.shape == values.shape
    assert decoded.equal(values)


def test_the_format_is_the_documented_one():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 255])
    assert decode_idx(content).tolist() == [[10, 11, 12], [13, 14, 255]]
    assert encode_idx(torch.tensor([[10, 11, 12], [13, 14, 255]], dtype=torch.uint8)) == content


def test_a_transposed_tensor_is_written_in_its_own_order():
    values = torch.arange(6, dtype=torch.uint8).reshape(2, 3).T
    assert decode_idx(encode_idx(values)).equal(values)


@given(shape=shapes, data=st.data())
def test_any_other_length_is_refused(shape, data):
    content = encode_idx(torch.zeros(shape, dtype=torch.uint8))
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(UserError, match=r"x\.idx"):
        decode_idx(content[:length], "x.idx")
    with pytest.raises(UserError, match="too long"):
        decode_idx(content + b"\0", "x.idx")


@pytest.mark.parametrize("content", [b"<html>no</html>", b"", b"\0\0\x08\0", b"\0\0\x0d\x01\0\0\0\0"])
def test_what_is_not_idx_of_bytes_is_refused(content):
    with pytest.raises(UserError, match=r"x\.idx"):
        decode_idx(content, "x.idx")


def test_only_bytes_are_written():
    with pytest.raises(TypeError, match="float32"):
        encode_idx(torch.rand(3))


def test_files_plain_and_gzipped(tmp_path):
    values = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    write_idx(tmp_path / "new" / "x", values)
    (tmp_path / "x.gz").write_bytes(gzip.compress(encode_idx(values)))
    assert read_idx(tmp_path / "new" / "x").equal(values)
    assert read_idx(tmp_path / "x.gz").equal(values)


def test_a_truncated_gzip_file_is_named(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(encode_idx(torch.zeros(1000, dtype=torch.uint8)))[:-9])
    with pytest.raises(UserError, match=r"x\.gz"):
        read_idx(path)
    with pytest.raises(UserError, match=r"missing\.gz"):
        read_idx(tmp_path / "missing.gz")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_content(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"old"}


def test_what_a_killed_writer_left_does_not_stay(tmp_path):
    write_content(tmp_path / "x", b"first")
    (tmp_path / ".x.abcdefgh.tmp").write_bytes(b"half of something longer than the whole")
    write_content(tmp_path / "x", b"second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"second"}
