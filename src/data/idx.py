"""IDX, the file format of MNIST and its relatives, for unsigned bytes: the only element type those sets use.

A file is two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, and then the elements in row-major order: nothing before, between or after.
"""

import gzip
import math
import os
import struct
import zlib
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from src.errors import UserError
from src.files import clear_temporaries, replace_atomically

_UNSIGNED_BYTE = 8


def encode_idx(values: Tensor) -> bytes:
    """The IDX file of a uint8 tensor of 1 to 255 dimensions.

    Raises:
        TypeError: `values` is not uint8 (a rounding that nobody asked for would go unseen).
    """
    if values.dtype != torch.uint8 or not 1 <= values.dim() <= 255:
        raise TypeError(f"IDX here is for uint8 tensors of 1 to 255 dimensions, not {values.dtype}, {values.dim()}-d")
    header = struct.pack(f">HBB{values.dim()}I", 0, _UNSIGNED_BYTE, values.dim(), *values.shape)
    return header + values.detach().cpu().contiguous().numpy().tobytes()


def decode_idx(content: bytes, name: str = "this file") -> Tensor:
    """The uint8 tensor that an uncompressed IDX file holds, in the file's own shape; it owns its memory.

    Args:
        content: the whole file.
        name: what error messages call it.

    Raises:
        UserError: not IDX, not unsigned bytes, or longer or shorter than its header says.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise UserError(f"{name} is not an IDX file: it begins with {content[:4].hex() or 'nothing'}")
    if content[2] != _UNSIGNED_BYTE:
        raise UserError(f"{name} has IDX element type {content[2]:#04x}; only unsigned bytes (0x08) are read here")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise UserError(f"{name} is truncated: {len(content)} bytes, and its IDX header alone has {start}")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    expected = start + math.prod(shape)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise UserError(f"{name} is {state}: {len(content)} bytes, and its IDX header announces {expected}")
    # A bytearray, because torch wants memory it may write to and `bytes` is not.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)


def read_content(path: Path) -> bytes:
    """A file's bytes, decompressed where its name ends in `.gz`.

    Raises:
        UserError: it cannot be read, or it is not the complete gzip file that it claims to be.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a complete gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_idx(path: Path) -> Tensor:
    """The uint8 tensor in an IDX file, plain or `.gz`; UserError as from `read_content` and `decode_idx`."""
    return decode_idx(read_content(path), str(path))


def idx_shape(path: Path) -> tuple[int, ...]:
    """The shape in an IDX file's header, plain or `.gz`; reads no more than that. UserError if it has none."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(4)
            sizes = file.read(4 * start[3]) if len(start) == 4 else b""
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(start) < 4 or start[:2] != b"\0\0" or not sizes or len(sizes) < 4 * start[3]:
        raise UserError(f"{path} is not an IDX file")
    return struct.unpack(f">{start[3]}I", sizes)


def write_idx(path: Path, values: Tensor) -> None:
    """Write a uint8 tensor as an IDX file, as :func:`write_content` does."""
    write_content(path, encode_idx(values))


def write_content(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and wait until it is on the disk: readers see the old bytes or the new.

    Raises:
        OSError: no space, no permission, ...; `path` is as it was.
    """
    clear_temporaries(path.parent)  # of a process that was killed
    replace_atomically(path, partial(_write_through, content))


def _write_through(content: bytes, path: Path) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
