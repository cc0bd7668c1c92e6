"""``bench.csv`` and ``bench.md``: what was measured, when, and on what machine."""

import csv
import io
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from src.files import write_text
from tests.benchmarks.harness import Measurement

PEERS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "scikit-learn", "torchvision")
OURS = ("torch", "lightning", "numpy")
SPREAD = (
    "Sides are timed in turn, A B A B, after a warm-up. Times are medians over the rounds; lower is better. A ratio is "
    "the peer's time over ours (above 1 we are faster): the median of the rounds' ratios and, in brackets, the "
    "smallest and the largest of them."
)
COLUMNS = (*(f.name for f in fields(Measurement)), "measured", "load", "quick", "weights")


@dataclass(frozen=True)
class Conditions:
    """Under what a measurement was taken; stored with each, because rows can be measured on different days."""

    measured: str  #: date and time
    load: float  #: load average of the last minute before the command began
    quick: bool  #: whether sizes and rounds were cut down to try things out
    weights: str = ""  #: which networks, in a sentence; empty if none are needed

    @classmethod
    def now(cls, quick: bool) -> "Conditions":
        return cls(time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0], quick)

    @property
    def warning(self) -> str:
        """What is wrong with a machine that was not quiet; empty if it was."""
        quiet = self.load <= 0.25 * (os.cpu_count() or 1)
        return "" if quiet else f"the machine was not quiet: load average {self.load:.2f} at the start"


def stored_row(measurement: Measurement, conditions: Conditions) -> dict[str, str]:
    """A line of ``bench.csv``; empty is what is not known."""
    values = asdict(measurement) | asdict(conditions)
    return {name: _plain(values[name]) for name in COLUMNS}


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def merged(
    stored: Sequence[Mapping[str, str]], row: str, fresh: Sequence[Mapping[str, str]], order: Sequence[str]
) -> list[Mapping[str, str]]:
    """``stored`` with all lines of ``row`` replaced by ``fresh``, rows in ``order``."""
    kept = [line for line in stored if line["row"] != row]
    places = {name: place for place, name in enumerate(order)}
    return sorted([*kept, *fresh], key=lambda line: places.get(line["row"], len(places)))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of an earlier run; none if there was none or it had other columns."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        return list(reader) if tuple(reader.fieldnames or ()) == COLUMNS else []


def write(folder: Path, lines: Sequence[Mapping[str, str]], about: Mapping[str, str]) -> None:
    """Write ``bench.csv`` and ``bench.md``.

    Args:
        about: what each row measures, by its name.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(folder / "bench.csv", text.getvalue())
    write_text(folder / "bench.md", markdown(lines, about, folder))


def markdown(lines: Sequence[Mapping[str, str]], about: Mapping[str, str], folder: Path) -> str:
    """The page: the machine, then a table a row."""
    parts = ["# Benchmarks", "\n".join(f"- {line}" for line in machine()), SPREAD]
    for row in dict.fromkeys(line["row"] for line in lines):
        parts.append(_section(row, [line for line in lines if line["row"] == row], about.get(row, "")))
        if (folder / f"{row}.png").exists():
            parts.append(f"![{row}]({row}.png)")
    return "\n\n".join(parts) + "\n"


def machine() -> list[str]:
    """The machine this runs on and the versions that are installed."""
    import torch

    threads = f"{torch.get_num_threads()} torch threads"
    known = [f"{os.cpu_count()} cores, {threads}, {torch.backends.cpu.get_cpu_capability()}, {platform.system()}"]
    if torch.cuda.is_available():
        known.append(torch.cuda.get_device_name())
    versions = ", ".join(f"{name} {_version(name)}" for name in (*OURS, *PEERS))
    written = time.strftime("written %Y-%m-%d %H:%M")
    return [cpu_model(), *known, f"Python {platform.python_version()}, {versions}", written]


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        described = []
    names = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _section(row: str, lines: Sequence[Mapping[str, str]], about: str) -> str:
    conditions = Conditions(lines[0]["measured"], float(lines[0]["load"]), lines[0]["quick"] == "True")
    said = [f"Measured {conditions.measured}, load average {conditions.load:.2f}.", lines[0]["weights"]]
    if conditions.warning:
        said.append(f"**Warning: {conditions.warning}.**")
    if conditions.quick:
        said.append("**Tried with `--quick`: tiny sizes, too few rounds. These numbers mean nothing.**")
    return f"## {row}\n\n{about}\n\n{' '.join(filter(None, said))}\n\n{_table(lines)}"


def _table(lines: Sequence[Mapping[str, str]]) -> str:
    header = "| what | ours | peer | theirs | ratio | result, ours | result, theirs | rounds | note |"
    rule = "| --- | --: | --- | --: | --: | --: | --: | --: | --- |"
    return "\n".join([header, rule, *(_table_line(line) for line in lines)])


def _table_line(line: Mapping[str, str]) -> str:
    cells = [line["what"], _quantity(line["ours"], line["unit"]), line["peer"], _quantity(line["theirs"], line["unit"])]
    rounds = line["rounds"] if line["rounds"] != "0" else ""
    cells += [ratio(line), line["our_result"], line["their_result"], rounds, line["note"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _quantity(value: str, unit: str) -> str:
    return f"{_short(value)} {unit}".rstrip() if value else ""


def ratio(line: Mapping[str, str]) -> str:
    """ "2.10 (1.95–2.20)", or nothing where there is nobody to compare with."""
    if not line["ratio"]:
        return ""
    return f"**{_short(line['ratio'])}** ({_short(line['ratio_low'])}–{_short(line['ratio_high'])})"


def _short(value: str) -> str:
    """Three digits, never in scientific notation."""
    number = float(value)
    if number == 0:
        return "0"
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}" if abs(number) >= 1e-3 else f"{number:.5f}"


def console_line(line: Mapping[str, str]) -> str:
    """A line for the terminal."""
    ours, theirs = _quantity(line["ours"], line["unit"]), _quantity(line["theirs"], line["unit"])
    peer = f"{line['peer']} {theirs}".rstrip() if line["peer"] else ""
    results = " / ".join(filter(None, (line["our_result"], line["their_result"])))
    said = [ours and f"ours {ours}", peer, ratio(line).replace("*", ""), results, line["note"]]
    return f"{line['row']} · {line['what']}: " + " · ".join(filter(None, said))
