"""How fast the VQ-VAE purifies, beside the same network run the ordinary way and beside what the machine can do."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.harness import Contender, Measurement, Task, compete
from tests.benchmarks.parts import Settings, test_images, vqvae_name

NOISE = 0.25
MODEL = vqvae_name(NOISE)
NEEDS = (MODEL,)
ORDINARY_BATCHES = (128, 1000)
CEILING_BATCHES = (25, 50, 100, 250, 1000)
REPEATS = 5
ABOUT = (
    "The VQ-VAE (noise 0.25, no noise at inference, clipped) on 2,000 clean test images. Ours: `VQVAEPurifier`, "
    "frozen, channels-last, batches as in the evaluation. Theirs: the same network as loaded (float32, contiguous, "
    "`torch.no_grad()`), in batches of 128 and of 1,000, so the better of the two is what to compare with. Result: "
    "images a second. The ceiling is what this machine can do on this network at best: each of its convolutions "
    f"timed alone, the fastest of {REPEATS} repetitions over both memory layouts and batches of "
    f"{', '.join(map(str, CEILING_BATCHES))}; the FLOPs of all, divided by the sum of those times. A multiply-add "
    "counts as two FLOPs."
)


def measure(settings: Settings) -> Iterator[Measurement]:
    """The comparison, then our share of the ceiling and what it is made of."""
    number = settings.size(2000, 60)
    x, _ = test_images(settings, number)
    task = Task("purification", "VQ-VAE", "ms an image", 1e3 / number, lambda _, s: f"{number / s:.0f} images/s")
    peers = [_ordinary(settings, x, size) for size in ORDINARY_BATCHES]
    milliseconds = 0.0
    for measurement in compete(task, _ours(settings, x), peers, settings.rounds):
        milliseconds = measurement.ours or milliseconds
        yield measurement
    yield from _share(settings, x, milliseconds / 1e3)


def _load(settings: Settings) -> Any:
    from src.models import VQVAE

    return VQVAE.load_from_checkpoint(settings.checkpoint(MODEL), map_location="cpu").eval()


def _ours(settings: Settings, x: Tensor) -> Contender:
    from src.defenses import VQVAEPurifier
    from src.evaluation.evaluator import BATCH_SIZE

    def prepare() -> Callable[[], Tensor]:
        purifier = VQVAEPurifier(_load(settings)).to(memory_format=torch.channels_last)
        return lambda: _in_batches(purifier, x, BATCH_SIZE["cpu"])

    return Contender("ours", prepare, note=f"ours in batches of {BATCH_SIZE['cpu']}")


def _ordinary(settings: Settings, x: Tensor, size: int) -> Contender:
    def prepare() -> Callable[[], Tensor]:
        network = _load(settings)
        return lambda: _in_batches(lambda batch: network(batch).clamp(0, 1), x, size)

    return Contender(f"ordinary, batches of {size}", prepare)


@torch.no_grad()
def _in_batches(purify: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    return torch.cat([purify(batch) for batch in x.split(size)])


def _share(settings: Settings, x: Tensor, seconds_an_image: float) -> Iterator[Measurement]:
    """Our FLOPs a second as a percentage of the ceiling."""
    network = _load(settings)
    flops = _flops(network, x[:1])
    layers = _convolutions(network, x[:1])
    batches = CEILING_BATCHES if not settings.quick else (10, 20)
    ceiling = sum(layer.flops for layer in layers) / sum(layer.best_seconds(batches) for layer in layers)
    reached = flops / seconds_an_image
    of_convolutions = sum(layer.flops for layer in layers) / flops
    work = f"{flops / 2e6:.2f} million multiply-adds an image, {of_convolutions:.0%} of them in convolutions"
    yield _value("share of the ceiling", "%", 100 * reached / ceiling, "")
    yield _value("reached", "GFLOP/s", reached / 1e9, work)
    yield _value("ceiling", "GFLOP/s", ceiling / 1e9, f"{len(layers)} convolutions, each alone at its best")
    yield _value("sgemm", "GFLOP/s", _sgemm(settings.size(2048, 256)) / 1e9, "a plain product of square matrices")


def _value(what: str, unit: str, value: float, note: str) -> Measurement:
    return Measurement("purification", what, unit, value, note=note)


def _flops(network: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops()


@dataclass(frozen=True)
class _Convolution:
    """A convolution of the network and the shape (C, H, W) that it is given."""

    module: nn.Module
    shape: tuple[int, ...]
    flops: int  #: an image

    @torch.no_grad()
    def best_seconds(self, batches: Sequence[int]) -> float:
        """Seconds an image at the best layout and batch size."""
        best = float("inf")
        for layout in (torch.contiguous_format, torch.channels_last):
            module = self.module.to(memory_format=layout)
            for size in batches:
                x = torch.rand(size, *self.shape).to(memory_format=layout)
                best = min(best, _fastest(lambda module=module, x=x: module(x)) / size)
        return best


def _convolutions(network: nn.Module, x: Tensor) -> list[_Convolution]:
    found: list[_Convolution] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes.append((module, tuple(inputs[0].shape[1:])))

    shapes: list[tuple[nn.Module, tuple[int, ...]]] = []
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [each.register_forward_pre_hook(note) for each in network.modules() if isinstance(each, kinds)]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    for module, shape in shapes:
        found.append(_Convolution(module, shape, _flops(module, torch.rand(1, *shape))))
    return found


def _sgemm(size: int) -> float:
    """FLOPs a second of a float32 matrix product."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / _fastest(lambda: a @ b)


def _fastest(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
