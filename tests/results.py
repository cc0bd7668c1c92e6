"""``python -m tests.results``: the tables of README and docs, made from the numbers in ``docs/results``.

A table stands between two comments. The first names the function that makes it and the CSV files it is made of, none if
these are the certificates of ``docs/certified``::

    <!-- table: verdicts of verdicts -->
    <!-- end of table -->

Beside each CSV stands a manifest of the same name, a JSON file of :class:`Manifest`: how it was measured. The functions
are in ``tests/result_tables.py``.
"""

import argparse
import csv
import io
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from src.errors import UserError
from src.files import write_text
from src.stored import DamagedError, read

REPO = Path(__file__).resolve().parents[1]
NOT_RECORDED = "not recorded"
TABLE = re.compile(r"<!-- table: ([^\n]+?)(?: of ([\w-]+(?:, [\w-]+)*))? -->\n(.*?)<!-- end of table -->", re.DOTALL)
BEGINNING = re.compile(r"<!-- table\b")


class Manifest(TypedDict):
    """How the numbers of a CSV were measured."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    about: str  #: what was measured, in a sentence
    prepare: list[str]  #: commands that train what is measured, in order
    commands: list[str]  #: what measures it, in order; empty where today's code does not train these networks
    #: of the code that measured it, or "not recorded"
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{7,40}|not recorded)$")]
    #: commits that brought the numbers into this repository, oldest first
    stored_by: list[Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]]
    date: Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\d|not recorded)$")]
    machine: str
    versions: dict[str, str | None]
    seeds: list[int]
    networks: str  #: which training of the networks; CSVs of one training say the same
    weights: dict[str, str | None]  #: by name of a network, the hash of its weights; None where it is not recorded


@cache
def _schema() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


@dataclass(frozen=True)
class Measured:
    """A CSV and its manifest."""

    path: Path
    rows: tuple[dict[str, str], ...]
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.path.stem

    @staticmethod
    def load(name: str, folder: Path) -> "Measured":
        """Read ``NAME.csv`` and ``NAME.json``.

        Raises:
            UserError: one of them is missing or damaged.
        """
        path = folder / f"{name}.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = tuple(csv.DictReader(file))
        except FileNotFoundError as error:
            raise UserError(f"there is no {_shown(path)}") from error
        return Measured(path, rows, manifest_of(path))

    def where(self, **values: str | float) -> list[dict[str, str]]:
        """The rows with these values in these columns."""
        return [row for row in self.rows if all(_equal(row[name], value) for name, value in values.items())]

    def row(self, **values: str | float) -> dict[str, str]:
        """The one row with these values.

        Raises:
            UserError: there is none, or there are several.
        """
        found = self.where(**values)
        if len(found) != 1:
            raise UserError(f"{_shown(self.path)} has {len(found)} rows where {values}, and not one")
        return found[0]


def _equal(stored: str, value: str | float) -> bool:
    return stored == value if isinstance(value, str) else stored != "" and float(stored) == value


def _shown(path: Path) -> str:
    return path.relative_to(REPO).as_posix() if path.is_relative_to(REPO) else str(path)


def manifest_of(path: Path) -> Manifest:
    """The manifest beside a CSV.

    Raises:
        UserError: it is missing or does not fit :class:`Manifest`.
    """
    beside = path.with_suffix(".json")
    try:
        return read(_schema(), beside)
    except FileNotFoundError as error:
        raise UserError(f"{_shown(path)} has no manifest {beside.name}") from error
    except DamagedError as error:
        raise UserError(f"{_shown(beside)}: {error}") from error


def results(repo: Path) -> Path:
    return repo / "docs" / "results"


def pages(repo: Path = REPO) -> list[Path]:
    """The pages whose tables are made: README and docs."""
    return [repo / "README.md", *sorted((repo / "docs").rglob("*.md"))]


def sources(page: Path) -> list[str]:
    """The names of the CSV files that tables of the page are made of."""
    found = TABLE.finditer(page.read_text(encoding="utf-8"))
    return list(dict.fromkeys(name for table in found for name in _named(table)))


def _named(table: re.Match[str]) -> list[str]:
    """The CSV files of a table's comment."""
    return table[2].split(", ") if table[2] else []


def filled(page: Path, repo: Path = REPO) -> Iterator[tuple[str, str, str]]:
    """For each table of a page, in order: its comment, what stands there, and what its CSV gives.

    Raises:
        UserError: there is no such table or CSV, or a comment lacks its end.
    """
    from tests.result_tables import TABLES  # it imports this module

    text = page.read_text(encoding="utf-8")
    found = list(TABLE.finditer(text))
    if len(found) != len(BEGINNING.findall(text)):
        raise UserError(f"{_shown(page)}: a table's comment is not of the form <!-- table: NAME of CSV --> … its end")
    for table in found:
        name, stands = table[1], table[3]
        if name not in TABLES:
            known = ", ".join(sorted(TABLES))
            raise UserError(f"{_shown(page)}: there is no table '{name}'; there are {known}")
        measured = [Measured.load(each, results(repo)) for each in _named(table)]
        parts = [TABLES[name](*measured), *([_origin(measured, page)] if measured else [])]
        yield table[0], stands, "".join(f"\n{part}\n" for part in parts) + "\n"


def _origin(measured: Sequence[Measured], page: Path) -> str:
    """The line below a table: its files, and the networks they are of."""
    files = []
    for each in measured:
        path = os.path.relpath(each.path, page.parent)
        files.append(f"[{each.path.name}]({path}) ([manifest]({Path(path).with_suffix('.json').as_posix()}))")
    networks = dict.fromkeys(map(_networks, measured))
    return f"Data: {', '.join(files)}. Networks: {'; '.join(networks)}."


def _networks(measured: Measured) -> str:
    """What the networks are, and which classifier is among them."""
    weights = measured.manifest["weights"]
    if "classifier" not in weights:
        return measured.manifest["networks"]
    return f"{measured.manifest['networks']} (classifier {(weights['classifier'] or NOT_RECORDED)[:12]})"


def contradictions(page: Path, repo: Path = REPO) -> list[str]:
    """Where two CSV files of a page say that they are of the same networks, and are not."""
    found = []
    measured = [Measured.load(name, results(repo)) for name in sources(page)]
    for one, other in combinations(measured, 2):
        if one.manifest["networks"] != other.manifest["networks"]:
            continue
        for network in one.manifest["weights"].keys() & other.manifest["weights"].keys():
            ours, theirs = one.manifest["weights"][network], other.manifest["weights"][network]
            if None not in (ours, theirs) and ours != theirs:
                found.append(f"{_shown(page)}: {network} has other weights in {one.name} than in {other.name}")
    return sorted(found)


def write(repo: Path = REPO) -> list[Path]:
    """Write all tables; returns the pages that changed."""
    changed = []
    for page in pages(repo):
        text = page.read_text(encoding="utf-8")
        for whole, stands, made in filled(page, repo):
            text = text.replace(whole, whole.replace(f"-->\n{stands}<!--", f"-->\n{made}<!--"))
        if text != page.read_text(encoding="utf-8"):
            write_text(page, text)
            changed.append(page)
    return changed


def check(repo: Path = REPO) -> None:
    """Compare all tables with their CSV files, and those with one another.

    Raises:
        UserError: a table differs, or two files of a page are of different networks under one name.
    """
    for page in pages(repo):
        for whole, stands, made in filled(page, repo):
            if stands != made:
                name = whole.partition("-->")[0].removeprefix("<!-- table: ").strip()
                raise UserError(f"{_shown(page)}: the table '{name}' is not what its CSV gives; make results writes it")
        for contradiction in contradictions(page, repo):
            raise UserError(contradiction)


# Measuring.


def sweeps_of(command: str) -> list[str]:
    """The sweeps that a command starts: itself, or those of a target of the Makefile."""
    if command.startswith("make "):
        dry = subprocess.run(
            [*shlex.split(command), "--dry-run"], cwd=REPO, capture_output=True, text=True, check=True
        ).stdout
        return [line for line in dry.splitlines() if " src.sweep " in line]
    return [command] if " src.sweep " in command else []


def _asked(command: str) -> frozenset[str]:
    """What a sweep's command asks to be computed: its words, without where it writes."""
    words = shlex.split(command)
    words = words[words.index("src.sweep") + 1 :]
    return frozenset(word for word in words if not re.match(r"(-m|--multirun|logger=.*|paths\.\w+=.*)$", word))


def collect(name: str, outputs: Path, folder: Path, commit: str = NOT_RECORDED) -> None:
    """Write ``NAME.csv`` from the stored cells of the sweeps that its manifest names: the rows of their grids, then the
    attacks of which rows are the worst case. Its manifest gets their weights, versions and date.

    Args:
        outputs: the folder with ``cells`` and ``sweeps``.
        folder: where the manifest is and the CSV goes.
        commit: of the code that measured them.

    Raises:
        UserError: a sweep is not there, or two cells are of different networks of one name.
    """
    from src.evaluation import CellStore, Grid, GridRow
    from src.evaluation.grid import COLUMNS, sweeps_below

    path = folder / f"{name}.csv"
    manifest = manifest_of(path)
    store, stored = CellStore(outputs / "cells"), sweeps_below(outputs / "sweeps")
    rows: dict[Any, GridRow] = {}
    started: list[float] = []
    for command in (sweep for each in manifest["commands"] for sweep in sweeps_of(each)):
        found = next((sweep for _, sweep in stored if _asked(sweep.command) == _asked(command)), None)
        if found is None:
            raise UserError(f"{outputs} has no sweep of: {command}")
        started.append(found.started)
        grid = [row for row in found.grid(store) if row.cell]
        inside = (store.get(member["key"]) for row in grid if row.cell for member in row.cell.members.values())
        members = [GridRow(cell.coordinates, cell.key, cell) for cell in inside if cell]
        for row in [*grid, *members]:
            rows.setdefault((row.coordinates, row.cell.n if row.cell else 0), row)
    if not rows:
        raise UserError(f"the manifest of {name} names no sweep with a stored cell")
    cells = [row.cell for row in rows.values() if row.cell]
    lines = list(csv.DictReader(Grid(tuple(rows.values())).to_csv().splitlines()))
    for line, cell in zip(lines, cells, strict=True):
        line |= {side: str(count) for side, count in cell.propagations.items()}
        line |= {count: str(cell.attacker[count]) for count in PROVED if cell.is_proof and count in cell.attacker}
        line |= {"reconstruction_mse": f"{cell.reconstruction_mse:.4g}"}
    columns = [*COLUMNS, *(extra for extra in EXTRAS if any(extra in line for line in lines))]
    _write_rows(path, columns, lines)
    versions = {package: {cell.environment.get(package) for cell in cells} for package in ("torch", "python")}
    manifest |= {
        "weights": weights_of(cells),
        "versions": {package: _only(values) for package, values in versions.items()},
        "seeds": sorted({cell.coordinates.seed for cell in cells}),
        "date": time.strftime("%Y-%m-%d", time.gmtime(max(started))),
        "commit": commit,
    }
    save(path, manifest)


#: What a proof counts beside the images that are proved.
PROVED = ("refuted", "open", "boxes")

#: Columns of a CSV after those of ``grid.csv``: propagations, what a proof counts, and the mean squared error of the
#: purified to the clean images.
EXTRAS = ("forward", "backward", *PROVED, "reconstruction_mse")


def _only(values: set[str | None]) -> str | None:
    """The one value, all of them, or None where one is not known."""
    known = [value for value in values if value is not None]
    return ", ".join(sorted(known)) if len(known) == len(values) else None


def _write_rows(path: Path, columns: Sequence[str], lines: Iterable[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def save(path: Path, manifest: Manifest) -> None:
    write_text(path.with_suffix(".json"), dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def weights_of(cells: Iterable[Any]) -> dict[str, str | None]:
    """By name of a network, the hash of its weights, as the cells' identities say it.

    Raises:
        UserError: two cells name different weights the same.
    """
    from src.reporting.analysis.labels import column_label

    found: dict[str, str | None] = {}
    for cell in cells:
        where = cell.coordinates
        seed = f", seed {where.seed}" if where.seed else ""
        purifier = column_label(where.defense.partition(" (")[0], where.noise)
        classifier = cell.identity["classifier"]  # a user's own: its factory, and the hash of its weights
        named = [("classifier", [str(classifier["weights"] if isinstance(classifier, dict) else classifier)])]
        named.append(("classifier of the transfer attack", list(_checkpoints(cell.identity["attack"]))))
        named.append((purifier, list(_checkpoints(cell.identity["defense"]))))
        for name, weights in ((f"{name}{seed}", each) for name, every in named for each in every):
            if found.setdefault(name, weights) != weights:
                raise UserError(f"{name} has other weights in cell {cell.key} than in cells before it")
    return found


def _checkpoints(identity: Any) -> Iterator[str]:
    """The hashes of weights that an identity holds, at any depth."""
    if isinstance(identity, dict):
        if isinstance(identity.get("checkpoint"), str):
            yield identity["checkpoint"]
        for part in identity.values():
            yield from _checkpoints(part)
    elif isinstance(identity, list):
        for part in identity:
            yield from _checkpoints(part)


def run(names: Sequence[str], start: Callable[[str], None]) -> None:
    """Print and run the commands of manifests one after the other, and write the CSV of each from what they stored.

    Args:
        names: of CSV files; all of them if there are none.
        start: runs a command.
    """
    folder = results(REPO)
    for path in sorted(folder.glob("*.csv")):
        if names and path.stem not in names:
            continue
        manifest = manifest_of(path)
        if not manifest["commands"]:
            print(f"{path.stem}: not measured again, its networks are of older code", flush=True)
            continue
        for command in manifest["prepare"] + manifest["commands"]:
            print(f"{path.stem}: {command}", flush=True)
            start(command)
        if any(sweeps_of(command) for command in manifest["commands"]):
            collect(path.stem, REPO / "outputs", folder, _commit())
            manifest = manifest_of(path)
        else:
            manifest |= {"commit": _commit(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        save(path, manifest | {"machine": f"{os.cpu_count()} cores, {platform.machine()}", "stored_by": []})


def _commit() -> str:
    """The commit that is checked out, or "not recorded" where files differ from it."""
    changed, commit = (
        subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=False).stdout.strip()
        for words in (["status", "--porcelain", "src", "conf"], ["rev-parse", "--short=10", "HEAD"])
    )
    return NOT_RECORDED if changed or not commit else commit


def _start(command: str) -> None:
    """Run a command with the Python that runs this."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if subprocess.run(command, shell=True, cwd=REPO, env=os.environ | {"PATH": path}, check=False).returncode:
        raise UserError(f"this command failed: {command}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.results", description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; name the first table that differs")
    what.add_argument("--run", nargs="*", metavar="CSV", help="measure these again, or all, and then write the tables")
    what.add_argument("--collect", metavar="CSV", help="write this CSV from stored cells, and then the tables")
    parser.add_argument("--outputs", type=Path, default=REPO / "outputs", help="where the cells and sweeps are")
    asked = parser.parse_args(arguments)
    try:
        if asked.check:
            check()
            return 0
        if asked.run is not None:
            run(asked.run, _start)
        if asked.collect:
            collect(asked.collect, asked.outputs, results(REPO))
        for page in write():
            print(_shown(page))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
