"""``python -m tests.benchmarks.gpu_limits``: attacks and certificates on one GPU, and its own limits."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import attack_libraries as libraries
from tests.benchmarks.attack_libraries import EPS, PGD, RECIPES
from tests.benchmarks.parts import REPO, compose

PGD_STEPS = 100
SIGMA, SAMPLES = 0.5, 100_000
Result = TypeVar("Result")
BATCH = 2000
ABOUT = (
    "The trained classifier, frozen, channels-last; seconds are the best of three, after one warm-up. A gradient of an "
    "image counts as one forward pass and the part of a backward pass that leads to the image. Share: of the measured "
    "rate of a bfloat16 product of two 8192 × 8192 matrices."
)


@dataclass(frozen=True)
class Row:
    """One measurement."""

    task: str
    side: str
    images: int
    seconds: float
    result: str  #: accuracy on the attacked images, or what else came of it
    operations: float  #: floating-point operations of the networks' layers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_limits", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--checkpoint", type=Path, default=REPO / "outputs/bench/gpu/checkpoints/mnist/classifier.ckpt")
    parser.add_argument("--limit", type=int, default=10_000, help="test images")
    parser.add_argument("--certified", type=int, default=20, help="images that get a certificate by smoothing")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="noisy copies of each")
    parser.add_argument("--output", type=Path, default=REPO / "outputs" / "bench")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no CUDA device here; to try it out: --device cpu --limit 50", file=sys.stderr)
        return 1
    device = torch.device(asked.device)
    network, x, y = _loaded(asked.checkpoint, asked.limit, device)
    rate, bandwidth = _limits(device)
    rows = [*_attacks(network, x, y), _certificates(network, x, asked.certified, asked.samples)]
    card = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    lines = ["# Attacks and certificates on one GPU", ABOUT]
    lines += [
        f"{card}, torch {torch.__version__}: {rate / 1e12:.0f} TFLOP/s bfloat16, {bandwidth / 1e12:.2f} TB/s copied"
    ]
    lines += [_table(rows, rate)]
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "gpu_limits.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print("\n\n".join(lines))
    return 0


def _loaded(checkpoint: Path, limit: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    from src.models import Classifier
    from src.workflows.configured import data_from_config

    data = data_from_config(compose("train", ["model=classifier", f"paths.data={REPO / 'outputs' / 'data'}"]).data)
    data.prepare_data()
    x, y = data.test_set(limit)
    network = Classifier.load_from_checkpoint(checkpoint, map_location="cpu").eval().requires_grad_(False)
    return network.to(device, memory_format=torch.channels_last), x.to(device), y.to(device)


def _limits(device: torch.device) -> tuple[float, float]:
    """Operations a second of a bfloat16 matrix product, bytes a second read and written by a copy."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(size * size * 4, device=device)
    target = torch.empty_like(source)
    (product, _), (copied, _) = _best(lambda: a @ b, 10), _best(lambda: target.copy_(source), 10)
    return 2 * size**3 / product, 8 * source.numel() / copied


def _best(run: Callable[[], Result], repeats: int = 3) -> tuple[float, Result]:
    """Seconds of the fastest of ``repeats`` runs, after one that is not counted, and what the last one returned."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        _wait()
        begin = time.perf_counter()
        result = run()
        _wait()
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]), result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gradient_operations(network: nn.Module, x: Tensor) -> float:
    """Of one image: forward, and backward to the image."""
    some = x[:8].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        network(some).sum().backward()
    return counter.get_total_flops() / len(some)


def _attacks(network: nn.Module, x: Tensor, y: Tensor) -> list[Row]:
    from src import attacks

    operations, rows = _gradient_operations(network, x), []

    def add(task: str, side: str, steps: int, run: Callable[[], Tensor]) -> None:
        seconds, x_adv = _best(run)
        with torch.no_grad():
            left = (torch.cat([network(part).argmax(1) for part in x_adv.split(BATCH)]) == y).float().mean().item()
        rows.append(Row(task, side, len(x), seconds, f"{left:.2%}", operations * steps * len(x)))
        print(rows[-1], flush=True)

    for recipe in RECIPES:
        for side, make in (("ours", libraries.ours), ("torchattacks", libraries.torchattacks)):
            add(recipe.name, side, recipe.steps, partial(make(network, recipe, BATCH), x, y))
    for precision in ("float32", "bfloat16"):
        for steps in (PGD.steps, PGD_STEPS):
            options = {"eps": EPS, "rel_step": 2.5 / steps, "random_start": False, "precision": precision}
            attack = libraries.in_batches(partial(attacks.pgd, network, steps=steps, **options), BATCH)
            add(f"PGD, {steps} steps", f"ours, {precision}", steps, partial(attack, x, y))
    return rows


def _certificates(network: nn.Module, x: Tensor, images: int, samples: int) -> Row:
    from src.evaluation.smoothing import certify, image_stream

    def run() -> float:
        radii = [
            certify(network, x[i], SIGMA, n=samples, batch=10_000, generator=image_stream(0, i, x.device)).radius
            for i in range(images)
        ]
        return sum(radii) / len(radii)

    with FlopCounterMode(display=False) as counter:
        network(x[:1])
    with torch.no_grad():
        seconds, radius = _best(run, 1)
    operations = counter.get_total_flops() * (samples + 100) * images
    return Row(
        f"smoothing, σ {SIGMA}, n = {samples:,}", "ours", images, seconds, f"average radius {radius:.2f}", operations
    )


def _table(rows: Sequence[Row], rate: float) -> str:
    lines = [
        "| task | side | images | seconds | images a second | result | share |",
        "| --- | --- " + "| --: " * 5 + "|",
    ]
    for row in rows:
        share, speed = row.operations / row.seconds / rate, row.images / row.seconds
        measured = f"{row.images:,} | {row.seconds:.3f} | {speed:,.0f} | {row.result} | {share:.1%}"
        lines.append(f"| {row.task} | {row.side} | {measured} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
