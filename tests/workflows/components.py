"""What a user might add, what breaks, and what keeps books for a test."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from src.evaluation.model_checks import PROBED
from src.models import VQVAE


class Watched(VQVAE):
    """Leaves its codebook beside the checkpoint, from every process that trains it."""

    def on_train_end(self) -> None:
        torch.save(self.quantizer.state_dict(), f"{self.trainer.checkpoint_callback.dirpath}/rank{self.global_rank}.pt")


class Crashing(VQVAE):
    """Fails in the middle of an epoch, as a bug would, or as Ctrl-C where its noise is 0.25."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if batch_idx == 2:
            raise KeyboardInterrupt if self.noise == 0.25 else ZeroDivisionError("a bug")
        return super().training_step(batch, batch_idx)


class Blur(nn.Module):
    """Mean of each pixel's 3×3 neighbourhood."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


class Normalize(nn.Module):
    """What a classifier wants of its images, as its first layer."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def linear_classifier() -> nn.Module:
    """Somebody's classifier, whose weights are drawn from OWN_SEED."""
    torch.manual_seed(int(os.environ.get("OWN_SEED", "1")))
    return nn.Sequential(Normalize(0.1307, 0.3081), nn.Flatten(), nn.Linear(784, 10))


def the_same_by_another_name() -> nn.Module:
    return linear_classifier()


class Shaken(nn.Module):
    """Adds noise to what it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def random_classifier() -> nn.Module:
    """The linear one, which sees its images through noise."""
    return nn.Sequential(Shaken(), linear_classifier())


def drawn_classifier() -> nn.Module:
    """Leaves its weights to chance."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def five_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 5))


class NotANumber(nn.Module):
    """A network whose training failed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 10), torch.nan)


def nan_everywhere() -> nn.Module:
    return NotANumber()


class BatchStandardized(nn.Module):
    """Standardizes by the statistics of the batch, which it should have learned in training."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean()) / x.std()


def of_batch_statistics() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(BatchStandardized(), nn.Flatten(), nn.Linear(784, 10))


class BlackensInPlace(nn.Module):
    """Sets dark pixels to 0, in the very images that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        x[x < 0.35] = 0
        return x


class WritesIntoDark(nn.Module):
    """Spoils its caller's images, but not where they are grey."""

    def forward(self, x: Tensor) -> Tensor:
        x[x < 0.35] = 0
        return x.flatten(1)[:, :10]


class Rounded(nn.Module):
    """Eight shades of grey. Its gradient is there, and it is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (7 * x).round() / 7


def no_module() -> dict[str, int]:
    return {}


def in_need(n: int) -> nn.Module:
    return nn.Linear(n, n)


class InPlace(nn.Module):
    """Spoils its caller's images."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.1).flatten(1)[:, :10]


#: A module instead of a factory, and one without weights.
POOLED = nn.Sequential(nn.Flatten(), nn.AvgPool1d(78))


class Broken(nn.Module):
    """Works on clean images and on a single one, and fails on a batch with grey values that no 8-bit image has."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 and (x * 255 - (x * 255).round()).abs().max() > 0.1:
            raise RuntimeError("this defense is broken")
        return x


class AwkwardError(Exception):
    """Cannot be unpickled: its arguments are not those it passes on."""

    def __init__(self, threads: int, process: int) -> None:
        super().__init__(f"{threads} threads in process {process}")


class Fragile(nn.Module):
    """Works on a single image and on clean digits, which are mostly black, and fails on a batch of attacked ones: with
    an error that cannot be sent to another process, and that says where it was raised."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 and (x == 0).float().mean() < 0.7:
            raise AwkwardError(torch.get_num_threads(), os.getpid())
        return x


class FailsOnThree(nn.Module):
    """The identity, but not for three images at once."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 3:
            raise RuntimeError("three")
        return x


def random_signs(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    """Noise of ± eps."""
    return (x + eps * torch.randn_like(x).sign()).clamp(0, 1)


class Noted(nn.Module):
    """The identity, which writes a line into ``file`` for every batch, but not in a rehearsal."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = Path(file)

    def forward(self, x: Tensor) -> Tensor:
        note(self.file, x)
        return x


def noted(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, file: str) -> Tensor:
    """Shifts grey values by eps, and writes a line as :class:`Noted` does."""
    note(Path(file), x)
    return (x + eps).clamp(0, 1)


def note(file: Path, x: Tensor) -> None:
    if len(x) > PROBED:  # fewer images: a rehearsal
        with file.open("a") as lines:
            lines.write(f"{len(x)}\n")
