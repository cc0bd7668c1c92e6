"""``python -m tests.benchmarks.gpu``: the whole report on one GPU, from raw data to 90 cells, against the clock."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.parts import CLASSIFIER, NOISES, REPO, compose, vqvae_name

GOAL = 60  #: seconds, on one H100
ATTACKS, EPS = ("fgsm", "ifgsm", "mifgsm"), (0, 0.001, 0.005, 0.2, 0.3)
DEFENSES = (
    *(("defense=none",), ("defense=kmeans",)),
    *(("defense=vqvae", f"noise={noise:g}") for noise in NOISES),
)
COUNTED = (
    "Counted: everything from the start of the process to the last stored cell, in an empty folder, data files "
    "present. Python calls what `src.train` and `src.sweep` call, with Hydra's compose API and without W&B, "
    "reports and figures; its start and imports are a phase of their own."
)


@dataclass(frozen=True)
class Run:
    """What is to be run, and where."""

    device: str  #: "cuda" or "cpu"
    budget: str  #: "full" or "demo"
    limit: int | None  #: test images; None is all
    batches: int | None  #: training batches an epoch; None is as budgeted
    workers: int  #: networks trained at a time, each in a process of its own if more than one
    outputs: Path  #: emptied first
    data: Path

    @property
    def shared(self) -> list[str]:
        """Overrides of every command."""
        trainer = "gpu" if self.device == "cuda" else "cpu"
        return [f"trainer={trainer}", "logger=none", f"paths.outputs={self.outputs}", f"paths.data={self.data}"]


@dataclass(frozen=True)
class Phase:
    """A part of the whole, and what it took."""

    name: str
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    asked = _parsed(arguments)
    if asked.device == "cuda" and not _has_cuda():
        hint = "to try it out: --device cpu --limit 50 --budget demo --batches 5"
        print(f"error: PyTorch sees no CUDA device here; {hint}", file=sys.stderr)
        return 1
    from src.workflows import cells, training  # noqa: F401  # what the phases would otherwise import
    from src.workflows.quiet import quiet_libraries

    quiet_libraries()
    phases = [Phase("start of Python and imports", _age())]
    shutil.rmtree(asked.outputs, ignore_errors=True)
    for phase in (*_training(asked), *_cells(asked)):
        phases.append(phase)
        print(f"{phase.name}: {phase.seconds:.1f} s", flush=True)
    _write(asked, phases)
    return 0


def _parsed(arguments: list[str] | None) -> Run:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description="The report against the clock.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=int, help="test images; all if not given")
    parser.add_argument("--budget", choices=("full", "demo"), default="full", help="of training; full is the report's")
    parser.add_argument("--batches", type=int, help="training batches an epoch, to try things out")
    parser.add_argument("--workers", type=int, default=5, help="networks trained at a time, in processes of their own")
    parser.add_argument("--output", type=Path, default=REPO / "outputs" / "bench", help="where gpu.md and gpu/ go")
    asked = vars(parser.parse_args(arguments))
    return Run(outputs=asked.pop("output").resolve() / "gpu", data=REPO / "outputs" / "data", **asked)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _age() -> float:
    """Seconds since this process was started; its processor time where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except OSError:
        return time.process_time()
    return uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _training(run: Run) -> Iterator[Phase]:
    """The classifier and the VQ-VAEs, one after the other or several at a time."""
    models = {CLASSIFIER: ("model=classifier",)}
    models |= {vqvae_name(noise): ("model=vqvae", f"noise={noise:g}") for noise in NOISES}
    if run.workers == 1:
        for name, overrides in models.items():
            begin = time.perf_counter()
            train(run, overrides)
            yield Phase(f"training {name}", time.perf_counter() - begin)
        return
    begin = time.perf_counter()
    with ProcessPoolExecutor(run.workers, mp_context=get_context("spawn")) as pool:  # CUDA does not survive a fork
        list(pool.map(train, [run] * len(models), models.values()))
    yield Phase(f"training all {len(models)} networks, {run.workers} at a time", time.perf_counter() - begin)


def train(run: Run, model: Sequence[str]) -> None:
    """What ``python -m src.train`` does."""
    from src.workflows.configured import train_from_config
    from src.workflows.quiet import quiet_libraries

    quiet_libraries()  # here, because this may be a process of its own
    limits = [] if run.batches is None else [f"trainer.limit_train_batches={run.batches}"]
    train_from_config(compose("train", [*model, f"budget={run.budget}", *limits, *run.shared]))


def _cells(run: Run) -> Iterator[Phase]:
    """The report's 90 cells, all defenses of an attacked set one after the other; a phase an attack."""
    from omegaconf import OmegaConf

    from src.workflows.cells import cell_spec, components_for, evaluator_for

    limit = "null" if run.limit is None else run.limit
    for attack in ATTACKS:
        begin, computed = time.perf_counter(), 0
        common = ["+experiment=report", f"attack={attack}", f"limit={limit}", *run.shared]
        configs = [compose("sweep", [*common, *defense]) for defense in DEFENSES]
        for eps in EPS:
            for config in configs:
                OmegaConf.update(config, "eps", eps)
                evaluator_for(config)(cell_spec(config, components_for(config)))
                computed += 1
        yield Phase(f"{computed} cells of {attack}", time.perf_counter() - begin)


def _write(run: Run, phases: Sequence[Phase]) -> None:
    """``gpu.md`` beside the folder that was filled."""
    import torch

    from src.files import write_text
    from tests.benchmarks.report import cpu_model

    card = torch.cuda.get_device_name() if run.device == "cuda" else f"no GPU: {cpu_model()}"
    total = sum(phase.seconds for phase in phases)
    images = "all test images" if run.limit is None else f"{run.limit} test images"
    work = f"{run.budget} training budget, {images}" + (f", {run.batches} batches an epoch" if run.batches else "")
    reduced = run.device != "cuda" or run.limit is not None or run.budget != "full" or run.batches is not None
    verdict = f"goal, on one H100: under {GOAL} s" + ("; cut down, so this says nothing of it" if reduced else "")
    rows = [f"| {phase.name} | {phase.seconds:.1f} |" for phase in phases] + [f"| **all** | **{total:.1f}** |"]
    software = f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}, {os.cpu_count()} CPU cores"
    parts = ["# The report on one GPU", f"- {card}\n- {software}\n- {work}\n- {time.strftime('%Y-%m-%d %H:%M')}"]
    parts += [COUNTED, "\n".join(["| phase | seconds |", "| --- | --: |", *rows]), f"**{total:.1f} s** ({verdict})"]
    path = run.outputs.parent / "gpu.md"
    write_text(path, "\n\n".join(parts) + "\n")
    print(f"all: {total:.1f} s ({verdict}) -> {path}")


if __name__ == "__main__":
    sys.exit(main())
