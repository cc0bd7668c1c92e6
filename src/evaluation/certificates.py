"""Certificates on disk: a CSV with a row an image, and beside it what they were computed with."""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from filelock import Timeout
from pydantic import Field, FiniteFloat, PositiveInt, TypeAdapter, WrapValidator

from src.errors import UserError
from src.evaluation.spec import content_key
from src.evaluation.statistics import certified_radius
from src.files import held, locked, write_text
from src.stored import DamagedError, read

log = logging.getLogger(__name__)

#: Part of every identity. Raise it when a change of code changes what a stored certificate means.
SCHEMA = 1

#: The class predicted where the samples do not tell; its radius is 0.
ABSTAIN = -1

#: Columns of the CSV, a contract with users' scripts.
COLUMNS = ("index", "label", "predicted", "radius", "correct", "count", "n", "n0", "seconds")


@dataclass(frozen=True, order=True)
class CertifiedImage:
    """The certificate of one test image."""

    index: int  #: in the test set's canonical order
    label: int
    predicted: int  #: the smoothed classifier's class; ABSTAIN (-1) where the samples did not tell
    radius: float  #: L2, in pixel units; 0 where it abstained
    count: int  #: of the n samples, those of the class that the first n0 had chosen
    n: int
    n0: int
    seconds: float

    @property
    def correct(self) -> bool:
        return self.predicted == self.label

    def holds_at(self, radius: float) -> bool:
        """Whether the image is certified to be classified correctly within this L2 radius."""
        return self.correct and self.radius >= radius

    def columns(self) -> dict[str, Any]:
        """The row of the CSV, by :data:`COLUMNS`."""
        values = asdict(self) | {"correct": int(self.correct), "seconds": round(self.seconds, 3)}
        return {name: values[name] for name in COLUMNS}

    @classmethod
    def from_columns(cls, row: Mapping[str, str]) -> "CertifiedImage":
        """Read a row and check that it is consistent.

        Raises:
            ValueError: a column is missing or no number, or columns contradict each other.
        """
        try:
            whole = {name: int(row[name]) for name in ("index", "label", "predicted", "count", "n", "n0")}
            image = cls(**whole, radius=float(row["radius"]), seconds=float(row["seconds"]))
            stated = int(row["correct"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a row: {error!r}") from error
        abstained = image.predicted == ABSTAIN
        possible = 0 <= image.radius < float("inf") and 0 <= image.count <= image.n  # false for NaN as well
        if stated != image.correct or abstained != (image.radius == 0) or not possible:
            raise ValueError("its columns contradict each other")
        return image


@dataclass(frozen=True)
class Certification:
    """What a set of certificates was computed with.

    The types of the fields are also the schema by which a stored description is checked.

    ``identity`` is all that a certificate depends on besides the image, as plain JSON types: data, weights of the
    classifier and the denoiser, σ, n0, n, alpha, seed. Its hash is part of the name of the file.
    """

    data: str
    denoiser: str | None  #: name of the denoiser's configuration; None for the bare classifier
    noise: FiniteFloat | None  #: σ of the denoiser's training noise
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)]  #: σ of the smoothing, in pixel units
    n0: PositiveInt
    n: PositiveInt
    alpha: Annotated[float, Field(gt=0, lt=1)]
    seed: int
    identity: dict[str, Any]

    @property
    def key(self) -> str:
        return content_key(self.identity)

    @property
    def classifier(self) -> str:
        """What the smoothed classifier is known by: its weights' fingerprint, or the name of a user's own factory."""
        identity = self.identity["classifier"]
        return str(identity["factory"] if isinstance(identity, Mapping) else identity)

    @property
    def label(self) -> str:
        """``vqvae 0.5``, or ``none``."""
        return "none" if self.denoiser is None else f"{self.denoiser} {self.noise:g}"

    @property
    def name(self) -> str:
        """``mnist-vqvae0.5-sigma0.5-1a2b3c4d``: the name of the files without their endings."""
        return f"{self.data}-{self.label.replace(' ', '')}-sigma{self.sigma:g}-{self.key[:8]}"


@cache
def _schema() -> TypeAdapter[Certification]:
    """Of the JSON beside a CSV."""
    return TypeAdapter(Annotated[Certification, WrapValidator(_as_written)])


def _as_written(stored: Any, fields_of: Callable[[Any], Certification]) -> Certification:
    certification = fields_of(stored)
    if stored.get("key") != certification.key:
        raise ValueError("its key is not that of its identity")
    if (certification.denoiser is None) != (certification.noise is None):
        raise ValueError("a denoiser has a noise that it was trained with")
    return certification


class CertificateFile:
    """The certificates of one smoothed classifier. Safe for many processes: the files are whole at any time, and of
    several processes that want one image one computes it.

    Args:
        folder: usually ``outputs/certified``; made when the first certificate is stored.
        certification: what they are computed with.
    """

    def __init__(self, folder: Path, certification: Certification) -> None:
        self.certification = certification
        self.path = Path(folder) / f"{certification.name}.csv"
        self.description = self.path.with_suffix(".json")

    @classmethod
    def load(cls, description: Path) -> "CertificateFile":
        """The file beside its ``description``, the JSON.

        Raises:
            UserError: it is damaged.
        """
        try:
            file = cls(description.parent, read(_schema(), description))
        except (DamagedError, FileNotFoundError) as error:
            raise UserError(f"{description} is damaged ({error}); move it and its CSV away") from error
        if file.description.name != description.name:
            raise UserError(f"{description} is damaged: it describes other certificates; move it and its CSV away")
        return file

    def rows(self) -> dict[int, CertifiedImage]:
        """The stored certificates by the index of their image. A row that is damaged is named in a warning and counts
        as none, so that it is computed again."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}); move it away") from error
        images = {}
        head, *lines = text.splitlines() or [""]
        for number, line in enumerate(lines, start=2):
            try:  # no value holds a comma, so none is quoted
                row = dict(zip(head.split(","), line.split(","), strict=True))
                image = CertifiedImage.from_columns(row)
                if (image.n, image.n0) != (self.certification.n, self.certification.n0):
                    raise ValueError("it is of another number of samples")
                if image.predicted != ABSTAIN and abs(image.radius - self._radius_of(image.count)) > 1e-6:
                    raise ValueError("its radius does not follow from its votes")
                images[image.index] = image
            except ValueError as error:
                log.warning("%s, line %d is damaged (%s) and will be computed again", self.path, number, error)
        return images

    def _radius_of(self, count: int) -> float:
        settings = self.certification
        return certified_radius(count, settings.n, settings.sigma, settings.alpha)

    def add(self, image: CertifiedImage) -> None:
        """Store a certificate: the CSV is written again, atomically, in the order of the images.

        Raises:
            UserError: the folder cannot be written.
        """
        with locked(self.path):
            if not self.description.exists():
                described = {"schema": SCHEMA, "key": self.certification.key} | asdict(self.certification)
                write_text(self.description, json.dumps(described, indent=1) + "\n")
            write_text(self.path, _to_csv(self.rows() | {image.index: image}))

    def complete(self, wanted: Sequence[int], compute: Callable[[int], CertifiedImage]) -> Iterator[CertifiedImage]:
        """Compute and store what is missing of the images ``wanted``, one after the other; yields each that this
        process has computed.

        Images that other processes are working on are left to them. At the end this one waits for those, and computes
        itself what they did not finish.

        Raises:
            UserError: the folder cannot be written.
        """
        for wait in (False, True):
            stored = self.rows().keys()
            for index in wanted:
                if index not in stored:
                    with self._claim(index, wait) as ours:
                        image = compute(index) if ours else None
                        if image is not None:
                            self.add(image)
                    if image is not None:
                        yield image
        for index in wanted:  # all stored by now; a process that died may have left its claim
            self._claim_path(index).unlink(missing_ok=True)

    @contextmanager
    def _claim(self, index: int, wait: bool) -> Iterator[bool]:
        """Claim an image; yields whether it is ours to compute: no other process has claimed it, and it is not stored.
        With ``wait``, wait for the end of another's claim. The system releases the claim of a process that dies."""
        path = self._claim_path(index)
        with ExitStack() as stack:
            try:
                stack.enter_context(held(path, f"certify image {index}", wait))
            except Timeout:
                yield False
                return
            except OSError as error:
                raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
            yield index not in self.rows()
            # Whoever gets hold of a claim that is gone finds the image stored.
            path.unlink(missing_ok=True)

    def _claim_path(self, index: int) -> Path:
        return self.path.parent / f".{self.path.stem}.{index}.claim"


def _to_csv(rows: Mapping[int, CertifiedImage]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[index].columns() for index in sorted(rows))
    return text.getvalue()
