"""The harness itself: who runs when, what a ratio is, and what becomes of results."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks import growth, report
from tests.benchmarks.harness import MIN_ROUNDS, Contender, Measurement, Task, Timed, alternate, compete, rounds_for
from tests.benchmarks.parts import ensure_weights, run_process

QUIET = report.Conditions("2026-01-01 00:00", 0.0, False)


class Clock:
    """Stands still unless somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def worker(self, *seconds: float) -> Callable[[], None]:
        """Something that takes so long at its first call, at its second, …"""
        durations: Iterator[float] = iter(seconds)

        def work() -> None:
            self.now += next(durations)

        return work


def contender(name: str, run: Callable[[], object]) -> Contender:
    return Contender(name, lambda: run)


def test_sides_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    sides = [contender(name, lambda name=name: calls.append(name)) for name in "AB"]
    list(compete(Task("row", "what"), sides[0], sides[1:], rounds=3))
    assert calls == ["A", "B"] + ["A", "B"] * 3


def test_a_warm_up_of_its_own_replaces_the_untimed_run() -> None:
    calls: list[str] = []
    ours = Contender("ours", lambda: lambda: calls.append("run"), warm_up=lambda: calls.append("warm-up"))
    list(compete(Task("row", "what"), ours, [], rounds=2))
    assert calls == ["warm-up", "run", "run"]


def test_medians_ratio_and_spread_come_from_the_rounds() -> None:
    clock = Clock()
    ours = contender("ours", clock.worker(100, 1, 2, 4))  # the first of each is the warm-up
    peer = contender("peer", clock.worker(100, 3, 4, 16))
    (measured,) = compete(Task("row", "what", "ms", 1000), ours, [peer], 3, clock)
    assert (measured.ours, measured.theirs, measured.rounds) == (2000, 4000, 3)
    assert (measured.ratio, measured.ratio_low, measured.ratio_high) == (3, 2, 4)  # of 3/1, 4/2, 16/4


def test_a_run_that_times_itself_is_believed() -> None:
    seconds, results = alternate({"A": lambda: Timed(7.0, "result")}, 2, Clock())
    assert seconds == {"A": [7.0, 7.0]} and results == {"A": "result"}


def test_results_are_described_beside_the_times() -> None:
    clock = Clock()

    def work() -> str:
        clock.now += 2
        return "97 %"

    task = Task("row", "what", describe=lambda result, seconds: f"{result} in {seconds:g} s")
    (measured,) = compete(task, contender("ours", work), [contender("peer", work)], 2, clock)
    assert measured.our_result == measured.their_result == "97 % in 2 s"


def test_a_missing_peer_is_said_and_the_others_go_on() -> None:
    clock = Clock()

    def absent() -> Callable[[], None]:
        import no_such_library  # noqa: F401  # pyright: ignore

        raise AssertionError

    ours = contender("ours", clock.worker(1, 1, 1))
    peers = [Contender("absent", absent), contender("present", clock.worker(2, 2, 2))]
    missing, compared = compete(Task("row", "what"), ours, peers, 2, clock)
    assert missing.peer == "absent" and missing.ratio is None
    assert "not installed" in missing.note and "no_such_library" in missing.note
    assert compared.peer == "present" and compared.ratio == 2
    page = report.markdown([report.stored_row(each, QUIET) for each in (missing, compared)], {}, Path())
    assert "absent" in page and "not installed" in page


def test_our_own_side_must_be_there() -> None:
    def absent() -> Callable[[], None]:
        raise ModuleNotFoundError("no module", name="src")

    with pytest.raises(ModuleNotFoundError):
        list(compete(Task("row", "what"), Contender("ours", absent), [], 2))


def test_five_rounds_are_the_least_unless_things_are_only_tried() -> None:
    assert MIN_ROUNDS == 5
    assert rounds_for(None, quick=False) == 5
    assert rounds_for(9, quick=False) == 9
    assert rounds_for(None, quick=True) == rounds_for(2, quick=True) == 2
    for asked, quick in ((4, False), (0, True)):
        with pytest.raises(ValueError, match="too few"):
            rounds_for(asked, quick)


class Row:
    """Stands in for a row's module."""

    NEEDS = ()

    def __init__(self, name: str, *ratios: float, fails: bool = False) -> None:
        self.name, self.ratios, self.fails, self.ABOUT = name, ratios, fails, f"About {name}."
        self.rounds: list[int] = []

    def measure(self, settings: object) -> Iterator[Measurement]:
        self.rounds.append(settings.rounds)  # type: ignore[attr-defined]
        for i, ratio in enumerate(self.ratios):
            yield Measurement(self.name, f"line {i}", "s", 1.0, "peer", ratio, ratio, ratio, ratio, 5)
        if self.fails:
            raise RuntimeError("broken")


@pytest.fixture
def run_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """``run_rows([Row(...)], "name", ...)``: the command's exit code, with these rows instead of the real ones."""

    def run(rows: list[Row], *arguments: str) -> int:
        known = {f"tests.benchmarks.{row.name}": row for row in rows}
        monkeypatch.setattr(command, "ROWS", tuple(row.name for row in rows))
        monkeypatch.setattr(command.importlib, "import_module", known.__getitem__)
        return command.main([*arguments, "--output", str(tmp_path / "bench")])

    return run


def test_a_row_run_alone_replaces_its_own_lines_only(run_rows: Callable[..., int], tmp_path: Path) -> None:
    assert run_rows([Row("first", 1.5, 2.5), Row("second", 3.5)]) == 0
    assert run_rows([Row("first", 7.5), Row("second", 9.5)], "first") == 0
    stored = report.read_csv(tmp_path / "bench" / "bench.csv")
    assert [(line["row"], line["ratio"]) for line in stored] == [("first", "7.5"), ("second", "3.5")]
    page = (tmp_path / "bench" / "bench.md").read_text()
    assert page.index("## first") < page.index("## second") and "About second." in page
    assert "**7.5** (7.5–7.5)" in page and "**2.5**" not in page


def test_rows_are_in_one_order_whichever_ran_last(run_rows: Callable[..., int], tmp_path: Path) -> None:
    rows = [Row("first", 1.0), Row("second", 2.0)]
    for name in ("second", "first"):
        run_rows(rows, name)
    assert [line["row"] for line in report.read_csv(tmp_path / "bench" / "bench.csv")] == ["first", "second"]


def test_a_failing_row_costs_the_others_nothing(
    run_rows: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_rows([Row("good", 2.0)]) == 0
    assert run_rows([Row("good", 4.0, fails=True), Row("other", 3.0)]) == 1
    stored = report.read_csv(tmp_path / "bench" / "bench.csv")
    assert [(line["row"], line["ratio"]) for line in stored] == [("good", "2"), ("other", "3")]
    assert "good failed: RuntimeError: broken" in capsys.readouterr().err


def test_the_command_times_five_rounds_and_refuses_fewer(run_rows: Callable[..., int]) -> None:
    row = Row("row", 1.0)
    run_rows([row])
    run_rows([row], "--quick")
    run_rows([row], "--rounds", "6")
    assert row.rounds == [5, 2, 6]
    with pytest.raises(SystemExit):
        run_rows([row], "--rounds", "4")
    with pytest.raises(SystemExit):
        run_rows([row], "unknown")


def test_the_page_tells_of_the_machine_and_of_unquiet_and_quick_runs(tmp_path: Path) -> None:
    line = Measurement("row", "what", "s", 1.0)
    loud = report.stored_row(line, report.Conditions("2026-01-01 00:00", 99.0, True, "Weights: small."))
    page = report.markdown([loud], {"row": "What it is."}, tmp_path)
    for said in (
        "cores",
        "torch threads",
        "scikit-learn",
        "not quiet: load average 99.00",
        "--quick",
        "Weights: small.",
    ):
        assert said in page
    assert "Warning" not in report.markdown([report.stored_row(line, QUIET)], {}, tmp_path)


def test_trained_weights_are_preferred_and_named(tmp_path: Path) -> None:
    trained = tmp_path / "checkpoints" / "mnist"
    trained.mkdir(parents=True)
    (trained / "classifier.ckpt").touch()
    assert ensure_weights(["classifier"], tmp_path, tmp_path / "bench")[0] == tmp_path / "checkpoints"
    small = tmp_path / "bench" / "checkpoints" / "mnist"
    small.mkdir(parents=True)
    for model in ("classifier", "vqvae-noise0.5"):
        (small / f"{model}.ckpt").touch()
    folder, said = ensure_weights(["classifier", "vqvae-noise0.5"], tmp_path, tmp_path / "bench")
    assert folder == tmp_path / "bench" / "checkpoints" and "demo budget" in said


def test_a_process_is_measured_from_start_to_exit_with_its_own_memory() -> None:
    idle = run_process(["-c", "import time; time.sleep(0.3)"])
    large = run_process(["-c", "import time; held = bytes(b'1' * 200 * 2**20)"])
    assert 0.3 <= idle.seconds < 30
    assert idle.peak_mib < 100 and 150 <= large.peak_mib - idle.peak_mib < 500  # this process has PyTorch in it


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="wrong turn"):
        run_process(["-c", "raise SystemExit('wrong turn')"])


@pytest.mark.slow
def test_an_interrupted_measurement_leaves_no_process_behind(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    sleeper = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_process(["-c", sleeper])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not _alive(int(started.read_text()))


def _alive(pid: int) -> bool:
    for _ in range(100):  # a killed process goes within moments
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_growth_is_the_slope_between_logarithms(power: float) -> None:
    assert growth.exponent({size: 3 * size**power for size in (10, 20, 40)}) == pytest.approx(power)


@pytest.mark.slow
def test_attacks_and_certificates_are_measured_beside_the_limits(tmp_path, monkeypatch, capsys) -> None:
    import torch

    from src.models import Classifier
    from tests.benchmarks import gpu_limits

    network, x = Classifier(widths=(4, 8), hidden=16).eval().requires_grad_(False), torch.rand(4, 1, 28, 28)
    monkeypatch.setattr(gpu_limits, "_loaded", lambda *_: (network, x, network(x).argmax(1)))
    asked = ("--device=cpu", "--certified=1", "--samples=20", f"--output={tmp_path}")
    assert gpu_limits.main(asked) == 0
    written = (tmp_path / "gpu_limits.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if line.startswith("| ")][2:]
    assert written.strip() in capsys.readouterr().out
    assert [row[:2] for row in rows[:2]] == [["FGSM", "ours"], ["FGSM", "torchattacks"]]
    assert rows[-1][0] == "smoothing, σ 0.5, n = 20"
    strong = [row for row in rows if row[0].startswith("PGD")]
    assert len(strong) == 6 and all(row[5] == "0.00%" for row in strong)
    assert all(float(row[6].rstrip("%")) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["gpu", "gpu_limits"])
def test_without_a_gpu_one_line_says_so(module: str) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", f"tests.benchmarks.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1 and "no CUDA device" in done.stdout + done.stderr
