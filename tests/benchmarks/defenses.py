"""What each defense costs at inference: the VQ-VAE behind a threshold beside the others."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tests.benchmarks.harness import Contender, Measurement, Task, compete
from tests.benchmarks.parts import Settings, compose, test_images

NEEDS = ()
ABOUT = (
    "Each defense on 2,000 clean test images, as the evaluation has it: frozen, channels-last, in its batches. "
    "Ours: `defense=vqvae_robust`. Beside it the report's VQ-VAE, K-means (k = 20) and thresholding. Weights are fresh "
    "ones, which cost what trained ones do. Result: images a second. A ratio below 1 means that the other is cheaper."
)


def measure(settings: Settings) -> Iterator[Measurement]:
    number = settings.size(2000, 60)
    x, _ = test_images(settings, number)
    task = Task("defenses", "purification", "ms an image", 1e3 / number, lambda _, s: f"{number / s:,.0f} images/s")
    ours, *peers = (_contender(name, make, settings, x) for name, make in DEFENSES.items())
    yield from compete(task, ours, peers, settings.rounds)


def _contender(name: str, make: Callable[[Settings], nn.Module], settings: Settings, x: Tensor) -> Contender:
    from src.evaluation.evaluator import BATCH_SIZE

    def prepare() -> Callable[[], Tensor]:
        purifier = make(settings).eval().to(memory_format=torch.channels_last)
        return lambda: _purify(purifier, x, BATCH_SIZE["cpu"])

    return Contender(name, prepare)


@torch.no_grad()
def _purify(purifier: nn.Module, x: Tensor, size: int) -> Tensor:
    return torch.cat([purifier(batch) for batch in x.split(size)])


def _robust(settings: Settings) -> nn.Module:
    from src.defenses import Binarize, Chain, VQVAEPurifier
    from src.models import RobustVQVAE

    return Chain(Binarize(), VQVAEPurifier(RobustVQVAE(**_arguments("vqvae_robust", settings))))


def _vqvae(settings: Settings) -> nn.Module:
    from src.defenses import VQVAEPurifier
    from src.models import VQVAE

    return VQVAEPurifier(VQVAE(**_arguments("vqvae", settings)))


def _arguments(model: str, settings: Settings) -> dict[str, object]:
    """What the network of this model is built with."""
    from src.workflows.building import plain

    module = compose("train", [f"model={model}", *settings.overrides(settings.output)]).model.module
    return {name: value for name, value in plain(module).items() if name not in ("_target_", "classifier")}


def _kmeans(settings: Settings) -> nn.Module:
    from src.defenses import KMeansCompression

    return KMeansCompression()


def _thresholding(settings: Settings) -> nn.Module:
    from src.defenses import Binarize

    return Binarize()


DEFENSES = {"vqvae_robust": _robust, "vqvae": _vqvae, "kmeans": _kmeans, "binarize": _thresholding}
