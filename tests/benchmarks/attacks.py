"""Our gradient attacks against those of torchattacks, foolbox and ART: same classifier, images, eps and steps."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks import attack_libraries as libraries
from tests.benchmarks.attack_libraries import EPS, FGSM, IFGSM, PGD, RECIPES, Batched, Recipe
from tests.benchmarks.harness import Contender, Measurement, Task, compete
from tests.benchmarks.parts import CLASSIFIER, Settings, test_images

NEEDS = (CLASSIFIER,)
BATCH_SIZES = (50, 100, 250, 1000)
TRIES = 5  # the fastest of them counts: a busy machine makes single ones slower, never faster
ABOUT = (
    f"L∞ attacks on the trained classifier, eps {EPS}, steps of eps/10 (PGD: 2.5 eps/40, no random start), on the "
    f"first {FGSM.images} test images (10 steps: {IFGSM.images}; PGD: {PGD.images}), each side at the batch size of "
    f"{', '.join(map(str, BATCH_SIZES))} at which its FGSM was fastest (best of {TRIES} tries; named in the note: "
    "ours / theirs). Result: accuracy on the attacked images, percent. Ours as the evaluation runs it: parameters "
    "frozen, channels-last. Peers: the network as loaded, in `eval()`; foolbox by its attacks' `run`, which leaves out "
    "the success check of a plain call; ART by `PyTorchClassifier` with its `batch_size`. foolbox's MI-FGSM adds up "
    "gradients without dividing each by its L1 norm first, so it is another attack than the paper's."
)


@dataclass(frozen=True)
class Library:
    """A side: how it makes an attack of a recipe, given the classifier and a batch size."""

    name: str
    attack: Callable[[nn.Module, Recipe, int], Batched]


PEERS = (
    Library("torchattacks", libraries.torchattacks),
    Library("foolbox", libraries.foolbox),
    Library("ART", libraries.art),
)
OURS = Library("ours", libraries.ours)


def measure(settings: Settings) -> Iterator[Measurement]:
    """FGSM, I-FGSM, MI-FGSM and PGD, each against every library."""
    x, y = test_images(settings, settings.size(FGSM.images, 20))
    loaded = _classifier(settings)
    frozen = copy.deepcopy(loaded).requires_grad_(False).to(memory_format=torch.channels_last)
    networks = {library.name: frozen if library is OURS else loaded for library in (OURS, *PEERS)}
    sizes = _BatchSizes(networks, x, y, BATCH_SIZES if not settings.quick else (10, 20))
    for recipe in RECIPES:
        number = min(len(y), settings.size(recipe.images, 20))
        task = Task("attacks", recipe.name, "ms an image", 1e3 / number, _accuracy(loaded, y[:number]))
        sides = [_contender(library, networks, recipe, sizes, x[:number], y[:number]) for library in (OURS, *PEERS)]
        for measurement in compete(task, sides[0], sides[1:], settings.rounds):
            yield sizes.noted(measurement)


def _classifier(settings: Settings) -> nn.Module:
    from src.models import Classifier

    return Classifier.load_from_checkpoint(settings.checkpoint(CLASSIFIER), map_location="cpu").eval()


def _contender(
    library: Library, networks: dict[str, nn.Module], recipe: Recipe, sizes: "_BatchSizes", x: Tensor, y: Tensor
) -> Contender:
    def prepare() -> Callable[[], Tensor]:
        attack = library.attack(networks[library.name], recipe, sizes.best(library))
        return lambda: attack(x, y)

    return Contender(library.name, prepare)


def _accuracy(network: nn.Module, y: Tensor) -> Callable[[Any, float], str]:
    def describe(x_adv: Tensor, seconds: float) -> str:
        with torch.no_grad():
            right = torch.cat([network(batch).argmax(1) for batch in x_adv.split(250)]) == y
        return f"{right.double().mean().item():.1%}"

    return describe


class _BatchSizes:
    """The batch size at which each library's FGSM is fastest, found out once a library."""

    def __init__(self, networks: dict[str, nn.Module], x: Tensor, y: Tensor, sizes: Sequence[int]) -> None:
        self._networks, self._x, self._y, self._sizes = networks, x, y, sizes
        self._best: dict[str, int] = {}

    def best(self, library: Library) -> int:
        if library.name not in self._best:
            tries = [{size: self._seconds(library, size) for size in self._sizes} for _ in range(TRIES)]
            seconds = {size: min(one[size] for one in tries) for size in self._sizes}
            self._best[library.name] = min(seconds, key=lambda size: seconds[size])
        return self._best[library.name]

    def _seconds(self, library: Library, size: int) -> float:
        attack = library.attack(self._networks[library.name], RECIPES[0], size)
        attack(self._x[:size], self._y[:size])  # the first call of a shape also plans it
        begin = time.perf_counter()
        attack(self._x, self._y)
        return time.perf_counter() - begin

    def noted(self, measurement: Measurement) -> Measurement:
        """The measurement with both batch sizes in its note."""
        if measurement.peer not in self._best:
            return measurement
        note = f"batches of {self._best[OURS.name]} / {self._best[measurement.peer]}"
        return replace(measurement, note="; ".join(filter(None, (note, measurement.note))))
