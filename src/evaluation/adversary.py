"""What attacks have in common, computed once: the gradient at the clean images, and the attacked images."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from src.attacks import check_adversarial, input_gradient, within_budget
from src.attacks.gradient import KnowsGradient
from src.evaluation.cell import CellSpec
from src.evaluation.randomness import seeded
from src.evaluation.tensors import TensorStore

log = logging.getLogger(__name__)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]  #: (model, x, y) -> x_adv, its eps bound


@dataclass(frozen=True)
class CleanSet:
    """All images (N, C, H, W) and labels (N,) that are to be attacked, on the device that attacks them."""

    images: Tensor
    labels: Tensor


class AdversarialStore:
    """Attacked test sets, and the gradients at the clean images that many attacks begin with.

    Attacks and their callers get copies: whatever they write into, what others read stays as it is.

    A set serves every defense of which the attacker knows nothing; a gradient serves every attack and eps. Both are
    found by the content of what they were made from, so cells may come in any order and in several processes.

    Args:
        folder: of the sets, usually ``outputs/adversarial``; None keeps nothing on disk.
        gradients: of the gradients, usually ``outputs/gradients``; None keeps nothing on disk.
    """

    def __init__(self, folder: Path | None, gradients: Path | None = None) -> None:
        self.sets = TensorStore(folder, "x_adv")
        self.gradients = TensorStore(gradients, "gradient")

    @contextmanager
    def share(self, spec: CellSpec, clean: CleanSet) -> Iterator[Attack]:
        """An attack that makes each set once: the set that ``spec`` asks for if there is one, else ``spec.attack``,
        recorded.

        Yields a function to be called on consecutive batches that together are ``clean``. What it returns is verified
        against eps whatever its source. A damaged file is named in a warning and made again. Of several processes
        that want one set, one makes it while the others wait.

        Raises:
            UserError: a folder cannot be written.
        """
        key, eps = spec.adversarial_key, spec.coordinates.eps

        def verify(stored: Tensor) -> Tensor:
            return check_adversarial(stored.to(clean.images.device), clean.images, eps)

        if (stored := self.sets.find(key, verify)) is not None:
            yield Replay(stored)
            return
        with self.sets.lock(key):
            stored = self.sets.find(key, verify)
            if stored is None:
                recording = Recording(self._bound(spec, clean), eps, spec.coordinates.seed)
                yield recording
                self.sets.keep(key, torch.cat(recording.batches))
                return
        yield Replay(stored)  # made by another process while this one waited

    def _bound(self, spec: CellSpec, clean: CleanSet) -> Attack:
        """``spec.attack`` with its eps, shown the gradient at the clean images if attacks may share it."""
        attack: Attack = partial(spec.attack, eps=spec.coordinates.eps)
        if spec.gradient_key is None:
            return attack
        return SharedGradient(attack, spec.gradient_key, clean, self.gradients)


class Replay:
    """Hands out copies of a stored set batch by batch."""

    def __init__(self, stored: Tensor) -> None:
        self.stored, self.position = stored, 0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        begin, self.position = self.position, self.position + len(x)
        return self.stored[begin : self.position].to(x.device, copy=True)


class Recording:
    """Runs an attack batch by batch on copies of the images, verifies what it returns and keeps a copy.

    The attack draws from a random stream of its own: what a purifier draws between two batches, or whether the set
    was replayed, changes nothing for the other.
    """

    def __init__(self, attack: Attack, eps: float, seed: int) -> None:
        self.attack, self.eps = attack, eps
        self.batches: list[Tensor] = []
        self._states: list[Tensor] | None = None
        self._seed = seed

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices):
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                for device, state in zip(devices, self._states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            x_adv = within_budget(self.attack, model, x, y, self.eps)
            self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]
        self.batches.append(x_adv.clone())
        return x_adv


class SharedGradient:
    """An attack on a model that knows its gradient at the clean images.

    The gradient of all images is looked up, or computed and stored, when the attack first asks for that of a clean
    batch. An attack that never asks, because it starts elsewhere or needs no gradient, costs nothing more.
    """

    def __init__(self, attack: Attack, key: str, clean: CleanSet, store: TensorStore) -> None:
        self.attack, self.key, self.clean, self.store = attack, key, clean, store
        self.position = 0
        self._gradient: Tensor | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        begin, self.position = self.position, self.position + len(x)

        def gradient() -> Tensor:
            if self._gradient is None:
                self._gradient = self._obtain(model, batch_size=len(x))
            return self._gradient[begin : begin + len(x)].clone()

        return self.attack(KnowsGradient(model, x, y, gradient), x, y)

    def _obtain(self, model: nn.Module, batch_size: int) -> Tensor:
        """The gradient at all clean images; computed in batches of the size that the attack sees, so that sharing it
        does not change a bit of the outcome."""

        def verify(stored: Tensor) -> Tensor:
            if stored.shape != self.clean.images.shape:
                raise ValueError(f"its shape is {tuple(stored.shape)}")
            return stored.to(self.clean.images.device)

        if (stored := self.store.find(self.key, verify)) is not None:
            return stored
        with self.store.lock(self.key):
            if (stored := self.store.find(self.key, verify)) is not None:
                return stored
            pairs = zip(self.clean.images.split(batch_size), self.clean.labels.split(batch_size), strict=True)
            with seeded(0, self.clean.images.device):  # of a random model: whichever attack asks first, the same
                gradient = torch.cat([input_gradient(model, x.clone(), y) for x, y in pairs])
            self.store.keep(self.key, gradient)
            return gradient
