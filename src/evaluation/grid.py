"""The grid: the cells a sweep asked for, computed or missing."""

import csv
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, FiniteFloat, TypeAdapter

from src.errors import UserError
from src.evaluation.cell import NO_CLASS, Cell
from src.evaluation.sanity_checks import CheckReport, doubted, evidence_of, findings, idle_checks
from src.evaluation.spec import SCHEMA, Column, Coordinates
from src.evaluation.store import CellStore
from src.files import write_text
from src.stored import DamagedError, read

log = logging.getLogger(__name__)

#: Columns of ``grid.csv``, a contract with users' scripts.
COLUMNS = (
    *("data", "attack", "eps", "threat", "defense", "noise", "protocol", "seed"),
    *("n", "correct", "accuracy", "ci_low", "ci_high", "seconds", "key"),
)


@dataclass(frozen=True)
class GridRow:
    """A row: a cell that was asked for. ``cell`` is None as long as it is missing.

    Several rows can show one cell: at eps 0 there is nothing to attack with, so every attack's row is the same.
    """

    coordinates: Coordinates
    key: str
    cell: Cell | None
    bare: bool = False  #: there is no defense
    learned: bool = False  #: the defense was trained, as opposed to one that learns nothing
    informed: bool = False  #: the attacker knows the defense
    proof: bool = False  #: images are proved, not attacked
    claim: str = ""  #: what was published of the defense

    def columns(self) -> dict[str, Any]:
        """The row's values by :data:`COLUMNS`; None for what is not known."""
        cell = self.cell
        known = {"n": cell.n, "seconds": cell.seconds} | cell.score if cell else {}
        return dict.fromkeys(COLUMNS) | asdict(self.coordinates) | known | {"key": self.key}


@dataclass(frozen=True)
class Grid:
    """The rows of one sweep, in the order in which they were asked for."""

    rows: tuple[GridRow, ...]

    def __iter__(self) -> Iterator[GridRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def missing(self) -> list[GridRow]:
        return [row for row in self.rows if row.cell is None]

    def where(self, **coordinates: Any) -> "Grid":
        """The rows with these coordinates, such as ``where(attack="fgsm", eps=0.3)``."""

        def fits(row: GridRow) -> bool:
            return all(getattr(row.coordinates, name) == value for name, value in coordinates.items())

        return Grid(tuple(row for row in self.rows if fits(row)))

    def values(self, name: str) -> list[Any]:
        """The distinct values of a coordinate, in order of first appearance."""
        return list(dict.fromkeys(getattr(row.coordinates, name) for row in self.rows))

    def columns(self) -> list[Column]:
        """The distinct (defense, noise) pairs, in order of first appearance: the columns of the report's tables."""
        return self.values("column")

    def doubting(self, checks: CheckReport) -> "Grid":
        """The grid, the cells marked as doubtful of which, or of a member of which, a check found a reason not to
        believe them. An accuracy of 0 is not, unless answers that are no numbers brought it about: no attack leaves
        less."""

        def doubted_row(row: GridRow) -> GridRow:
            cell = row.cell
            if cell is None or not (cell.correct or NO_CLASS in cell.predictions):
                return row
            keys = [row.key, *(member["key"] for member in cell.members.values())]
            return replace(row, cell=replace(cell, doubtful=not checks.doubtful.isdisjoint(keys)))

        return Grid(tuple(map(doubted_row, self.rows)))

    @property
    def doubtful(self) -> bool:
        """Whether there is a cell that is not to be believed."""
        return any(row.cell is not None and row.cell.doubtful for row in self.rows)

    @property
    def without_proofs(self) -> "Grid":
        """The rows whose images are attacked."""
        return Grid(tuple(row for row in self.rows if not row.proof))

    @property
    def proofs(self) -> "Grid":
        """The rows whose images are proved, those left out of whose defense nothing can be."""
        return Grid(tuple(row for row in self.rows if row.proof and row.cell and "unprovable" not in row.cell.attacker))

    @property
    def bare(self) -> list[Column]:
        """The columns without a defense: usually one."""
        return Grid(tuple(row for row in self.rows if row.bare)).columns()

    @property
    def learned(self) -> list[Column]:
        """The columns whose defense was trained."""
        return Grid(tuple(row for row in self.rows if row.learned)).columns()

    @property
    def informed(self) -> bool:
        """Whether attackers of this grid know the defense."""
        return any(row.informed for row in self.rows)

    def to_csv(self) -> str:
        """``grid.csv``: :data:`COLUMNS`, one row a cell; what is missing is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: _plain(value) for name, value in row.columns().items()})
        return text.getvalue()


def _plain(value: Any) -> Any:
    """0.30000000000000004 is no eps anybody asked for; %g writes numbers as people do, without losing a digit."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return value


def _with_key_apart(stored: Any) -> Any:
    """A row of the file, which has the key among the coordinates, as the pair that it stands for."""
    if not isinstance(stored, dict) or "key" not in stored:
        raise ValueError("a row has a key and coordinates")
    return {name: value for name, value in stored.items() if name != "key"}, stored["key"]


@dataclass(frozen=True)
class SweepManifest:
    """What a sweep asked for, written at its start, so that a killed sweep's grid still shows what is missing.

    The types of its fields are also the schema by which a stored manifest is checked.
    """

    #: coordinates and key of every row; a name may say a value in brackets by which the sweep tells cells apart
    rows: tuple[Annotated[tuple[Coordinates, str], BeforeValidator(_with_key_apart)], ...]
    pending: int = 0  #: cells, probes and members included, that were not stored when the sweep began
    started: FiniteFloat = 0.0  #: when that was, in seconds since 1970
    compare_published: bool = False  #: whether its report shows the published numbers beside ours
    command: str = ""  #: what was typed
    number: int = 0  #: one more than the sweeps before it, so that no clock decides which is the newest
    probes: tuple[tuple[str, str, str], ...] = ()  #: key of a row, and kind and key of a cell by which it is checked
    members: tuple[str, ...] = ()  #: keys of the cells of which rows are the worst case
    bare: tuple[str, ...] = ()  #: what the rows without a defense say of it: usually "none"
    learned: tuple[str, ...] = ()  #: names of the defenses that were trained
    informed: tuple[str, ...] = ()  #: names of the threats whose attacker knows the defense
    certificates: tuple[str, ...] = ()  #: names of the attacks that are proofs
    claims: dict[str, str] = field(default_factory=dict)  #: by name of the defense, what was published of it

    FILE: ClassVar[str] = "grid.json"

    def save(self, folder: Path) -> None:
        """Write it to a sweep's folder, atomically."""
        stored = asdict(self) | {"schema": SCHEMA}
        stored["rows"] = [asdict(coordinates) | {"key": key} for coordinates, key in self.rows]
        write_text(folder / self.FILE, json.dumps(stored, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "SweepManifest":
        """Read a sweep's manifest.

        Raises:
            UserError: the folder holds none, or it is damaged.
        """
        path = folder / cls.FILE
        try:
            return read(_schema(), path)
        except FileNotFoundError as error:
            raise UserError(f"{folder} is no sweep: it has no {cls.FILE}") from error
        except DamagedError as error:
            raise UserError(f"{path} is damaged ({error}); run the sweep again, stored cells are kept") from error

    def grid(self, store: CellStore) -> Grid:
        """The grid as far as it is computed."""
        return Grid(tuple(self._row(coordinates, key, store.get(key)) for coordinates, key in self.rows))

    def judged(self, store: CellStore) -> tuple[Grid, CheckReport]:
        """The grid, its doubtful cells marked, and what the checks came to."""
        checks = self.check_report(store)
        return self.grid(store).doubting(checks), checks

    def _row(self, coordinates: Coordinates, key: str, cell: Cell | None) -> GridRow:
        return GridRow(
            coordinates,
            key,
            cell,
            bare=coordinates.defense in self.bare,
            learned=coordinates.defense in self.learned,
            informed=coordinates.threat in self.informed,
            proof=coordinates.attack in self.certificates,
            claim=self.claims.get(coordinates.defense, ""),
        )

    def check_report(self, store: CellStore) -> CheckReport:
        """Reasons not to believe the cells that are computed, and on how many probes of how many that rests."""
        probed: dict[str, dict[str, Cell]] = {}
        for of, kind, key in self.probes:
            if (probe := store.get(key)) is not None:
                probed.setdefault(of, {})[kind] = probe
        pairs = ((coordinates, store.get(key)) for coordinates, key in self.rows)
        cells = [replace(cell, coordinates=coordinates) for coordinates, cell in pairs if cell is not None]
        groups = evidence_of(cells, probed, store.get)
        found = [(evidence, tuple(findings(evidence))) for evidence in groups]
        return CheckReport(
            findings=tuple(finding for _, group in found for finding in group),
            idle=idle_checks(groups),
            judged=len({cell.key for evidence in groups for cell in evidence.views}),
            probed=sum(map(len, probed.values())),
            asked=len({(of, kind) for of, kind, _ in self.probes}),  # a member of a worst case may be a row too
            doubtful=frozenset(cell.key for evidence, group in found for cell in doubted(evidence, group)),
        )

    def finished(self, store: CellStore) -> int:
        """How many of the pending cells are stored by now, whichever process computed them."""
        keys = {key for _, key in self.rows} | {key for *_, key in self.probes} | set(self.members)
        return sum(store.path(key).exists() for key in keys) - (len(keys) - self.pending)


@cache
def _schema() -> TypeAdapter[SweepManifest]:
    return TypeAdapter(SweepManifest)


def sweeps_below(sweeps: Path) -> list[tuple[Path, SweepManifest]]:
    """Folder and manifest of every sweep under ``sweeps`` that can be read, newest first: by number, among equals by
    name, which is date and time. One that cannot be read is named in a warning and passed over."""
    pairs = []
    for path in sweeps.glob(f"*/{SweepManifest.FILE}"):
        try:
            pairs.append((path.parent, SweepManifest.load(path.parent)))
        except UserError as error:
            log.warning("%s", error)
    return sorted(pairs, key=lambda pair: (pair[1].number, pair[0]), reverse=True)


def latest_sweep(sweeps: Path) -> Path | None:
    """The folder of the newest sweep under ``sweeps``, or None."""
    return next((folder for folder, _ in sweeps_below(sweeps)), None)


def next_number(sweeps: Path) -> int:
    """The :attr:`SweepManifest.number` of a sweep that begins now."""
    return max((manifest.number for _, manifest in sweeps_below(sweeps)), default=0) + 1
