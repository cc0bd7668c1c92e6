"""Times contenders in turn, A B A B, and says how many times faster one is than the others."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Fewer rounds make no spread worth printing; only ``--quick`` may go below.
MIN_ROUNDS = 5
QUICK_ROUNDS = 2

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timed:
    """What a run returns that measures itself, because not all of its time counts."""

    seconds: float
    result: Any = None


@dataclass(frozen=True)
class Contender:
    """One side of a comparison."""

    name: str
    #: Gets everything ready and returns what is timed. ``ModuleNotFoundError`` means that the peer is not installed.
    prepare: Callable[[], Callable[[], Any]]
    warm_up: Callable[[], object] | None = None  #: instead of one untimed run, where a run takes long
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """A line of the tables: two medians and their ratio, or a value of ours alone."""

    row: str  #: which benchmark it belongs to
    what: str
    unit: str
    ours: float | None  #: median over the rounds
    peer: str = ""
    theirs: float | None = None  #: the peer's median
    ratio: float | None = None  #: median of the rounds' ratios, theirs / ours: above 1 we are faster
    ratio_low: float | None = None  #: smallest of the rounds' ratios
    ratio_high: float | None = None  #: largest of them
    rounds: int = 0
    our_result: str = ""
    their_result: str = ""
    note: str = ""


@dataclass(frozen=True)
class Task:
    """What a comparison is about, and how its seconds become the numbers in the table."""

    row: str
    what: str
    unit: str = "s"
    scale: float = 1.0  #: seconds of a run × scale = the number in the table
    #: Says in a few words what a run came to: (its result, its median seconds) -> "12.3 %"
    describe: Callable[[Any, float], str] = lambda result, seconds: ""


def rounds_for(asked: int | None, quick: bool) -> int:
    """The number of rounds to time.

    Raises:
        ValueError: fewer than :data:`MIN_ROUNDS` are asked for, and not just to try things out.
    """
    least = 1 if quick else MIN_ROUNDS
    if asked is None:
        return QUICK_ROUNDS if quick else MIN_ROUNDS
    if asked < least:
        raise ValueError(f"{asked} rounds are too few for a spread: at least {least}, or try things out with --quick")
    return asked


def alternate(
    runs: Mapping[str, Callable[[], Any]], rounds: int, clock: Clock = time.perf_counter
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run all in turn, A B A B …, so that what slows the machine down for a while slows all of them.

    Args:
        runs: by name; one that returns :class:`Timed` has measured itself.

    Returns:
        the seconds of each round, and the result of the last, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = clock()
            outcome = run()
            spent = clock() - begin
            if isinstance(outcome, Timed):
                spent, outcome = outcome.seconds, outcome.result
            seconds[name].append(spent)
            results[name] = outcome
    return seconds, results


def compete(
    task: Task, ours: Contender, peers: Sequence[Contender], rounds: int, clock: Clock = time.perf_counter
) -> Iterator[Measurement]:
    """Time ``ours`` and every peer that is installed in turn; one measurement a peer, installed or not."""
    missing: dict[str, str] = {}
    runs: dict[str, Callable[[], Any]] = {}
    for contender in (ours, *peers):
        try:
            runs[contender.name] = run = contender.prepare()
        except ModuleNotFoundError as error:
            if contender is ours:
                raise
            missing[contender.name] = f"not installed (no module {error.name}): pip install '.[bench]'"
            continue
        (contender.warm_up or run)()
    seconds, results = alternate(runs, rounds, clock)
    for peer in peers:
        if peer.name in missing:
            yield Measurement(task.row, task.what, task.unit, None, peer.name, note=missing[peer.name])
        else:
            yield _compared(task, ours, peer, seconds, results)


def _compared(
    task: Task,
    ours: Contender,
    peer: Contender,
    seconds: Mapping[str, Sequence[float]],
    results: Mapping[str, Any],
) -> Measurement:
    our_median, their_median = (statistics.median(seconds[side.name]) for side in (ours, peer))
    ratios = ratios_of(seconds[ours.name], seconds[peer.name])
    return Measurement(
        task.row,
        task.what,
        task.unit,
        our_median * task.scale,
        peer.name,
        their_median * task.scale,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        task.describe(results[ours.name], our_median),
        task.describe(results[peer.name], their_median),
        note="; ".join(filter(None, (ours.note, peer.note))),
    )


def ratios_of(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times longer the peer took, round by round."""
    return [b / a for a, b in zip(ours, theirs, strict=True)]
