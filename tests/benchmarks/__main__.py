"""``python -m tests.benchmarks [ROW ...] [--rounds N] [--quick] [--output outputs/bench]``."""

import argparse
import importlib
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from tests.benchmarks import report
from tests.benchmarks.harness import rounds_for
from tests.benchmarks.parts import REPO, Settings, ensure_weights

#: Modules beside this one, in the order of the page. Each has NEEDS (checkpoints), ABOUT and measure(settings).
ROWS = ("attacks", "kmeans", "purification", "defenses", "training", "grid", "growth", "overhead")


def main(arguments: list[str] | None = None) -> int:
    asked = _parsed(arguments)
    modules = {name: importlib.import_module(f"tests.benchmarks.{name}") for name in ROWS}
    failed, conditions = [], report.Conditions.now(asked.quick)  # once: a row leaves load behind for the next
    if conditions.warning:
        print(f"warning: {conditions.warning}", file=sys.stderr, flush=True)
    for name in asked.rows or ROWS:
        try:
            _run(name, modules, asked, conditions)
        except Exception as error:  # a row that fails must not cost the others their numbers
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    print(f"-> {asked.output / 'bench.md'}")
    return 1 if failed else 0


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Side-by-side timings.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--rounds", type=int, help="timed rounds, at least 5, the default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and 2 rounds, to see that everything runs")
    parser.add_argument("--output", type=Path, default=REPO / "outputs" / "bench", help="where the results go")
    parser.add_argument("--outputs", type=Path, default=REPO / "outputs", help="where data and checkpoints are")
    asked = parser.parse_args(arguments)
    if unknown := [row for row in asked.rows if row not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    try:
        asked.rounds = rounds_for(asked.rounds, asked.quick)
    except ValueError as error:
        parser.error(str(error))
    asked.output, asked.outputs = asked.output.resolve(), asked.outputs.resolve()
    return asked


def _run(name: str, modules: dict[str, ModuleType], asked: argparse.Namespace, conditions: report.Conditions) -> None:
    """Measure one row, saying each line as it comes, and merge it into what is stored."""
    row, begin = modules[name], time.perf_counter()
    checkpoints, weights = ensure_weights(row.NEEDS, asked.outputs, asked.output) if row.NEEDS else (asked.outputs, "")
    settings = Settings(asked.rounds, asked.quick, asked.output, checkpoints, asked.outputs / "data")
    lines = []
    for measurement in row.measure(settings):
        lines.append(report.stored_row(measurement, replace(conditions, weights=weights)))
        print(report.console_line(lines[-1]), flush=True)
    stored = report.read_csv(asked.output / "bench.csv")
    about = {each: module.ABOUT for each, module in modules.items()}
    report.write(asked.output, report.merged(stored, name, lines, ROWS), about)
    print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that what was started is stopped
    sys.exit(main())
