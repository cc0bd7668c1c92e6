"""What the files of a data set must be."""

import hashlib
from dataclasses import dataclass

from src.data.idx import decode_idx
from src.errors import UserError


def md5_of(content: bytes) -> str:
    """The MD5 of a file's content, in hex."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class IdxFile:
    """One file of a set: its name without `.gz`, and the hashes, in hex, of its *uncompressed* content.

    MD5 is what the world publishes for these files; SHA-256, beside it, is what nobody can forge. A hash left
    out is not checked; without any, the file only has to be sound IDX.
    """

    name: str
    md5: str | None = None
    sha256: str | None = None

    def check(self, content: bytes) -> str:
        """The MD5 of uncompressed `content`; UserError, saying what is wrong, unless it is this file's."""
        md5 = md5_of(content)
        if self.md5 and md5 != self.md5:
            raise UserError(f"its MD5 is {md5} where {self.md5} is right ({len(content)} bytes)")
        if self.sha256 and (sha256 := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise UserError(f"its SHA-256 is {sha256} where {self.sha256} is right")
        if not self.md5 and not self.sha256:
            decode_idx(content, "it")
        return md5


# MNIST's own names, which its successors have kept.
STANDARD = {
    "train_images": IdxFile("train-images-idx3-ubyte"),
    "train_labels": IdxFile("train-labels-idx1-ubyte"),
    "test_images": IdxFile("t10k-images-idx3-ubyte"),
    "test_labels": IdxFile("t10k-labels-idx1-ubyte"),
}
ROLES = tuple(STANDARD)
