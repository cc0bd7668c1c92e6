"""The data module that training, evaluation and sweeps share."""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from src.data.batches import ImageTensors, batch_loader
from src.data.files import ROLES
from src.data.idx import idx_shape, read_idx
from src.data.labelled import check_range, shown_size
from src.data.sources import GoodFile, IdxSource
from src.errors import UserError

Loader = DataLoader[tuple[Tensor, Tensor]]

#: The images that no training sees, and what they are called: "test" to report on, "val" to choose by.
HELD_OUT = {"test": "test", "val": "validation"}

#: Images whose order has a lower chance than this, if it were random, are taken for sorted.
RANDOM_ORDER = 1e-6

#: Which of Lightning's stages loads a part.
STAGES = {"fit": "fit", "val": "validate", "test": "test"}


class ImageDataModule(LightningDataModule):
    """A labelled image set held in memory, in pixel units: float32 (N, C, H, W) in [0, 1], labels int64 (N,).

    The canonical training set is split into training and validation images by `split_seed` alone; the test
    set is used as it is, in its canonical order. A trainer's loaders hold the images on its device; of its
    processes each gets its share of them, as `BatchIndices` says, in batches of `batch_size`.
    """

    def __init__(
        self,
        name: str,
        root: str | os.PathLike[str],
        source: Callable[[Path], Mapping[str, GoodFile]] | None = None,
        num_classes: int | None = 10,
        image_shape: Sequence[int] | None = (1, 28, 28),
        batch_size: int = 128,
        val_size: int | float = 10_000,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            name: of the set; part of `fingerprint`, and of the names of everything made from this data.
            root: the folder where the files are or shall be; see `IdxSource` for the layouts.
            source: finds, verifies and fetches the files below `root`, as `IdxSource` does. None: the four
                files must be there already, under MNIST's names, and are only checked to be sound IDX.
            num_classes: labels are 0 to num_classes - 1; None: found by looking into the files.
            image_shape: (C, H, W); None: found by looking.
            batch_size: for all three loaders.
            val_size: how many of the training images are set aside for validation; below 1, a share of them.
            split_seed: decides which ones; 0 to 2**32 - 1.
            seed: decides, together with the epoch, the order of the training batches; 0 to 2**32 - 1.

        Raises:
            UserError: an argument out of its range, or `source` gets another set than `name` says.
        """
        super().__init__()
        self.name: str = name
        self.root = Path(root).expanduser()
        self._num_classes = num_classes
        self._image_shape = None if image_shape is None else tuple(int(size) for size in image_shape)
        self.batch_size = batch_size
        self._val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self._source = source if source is not None else IdxSource()
        self._good_files: Mapping[str, GoodFile] = {}
        self._sets: dict[str, ImageTensors] = {}
        shape = self._image_shape
        chw = shape is None or (len(shape) == 3 and min(shape) >= 1)
        _require(chw, "image_shape", shape, "three sizes: C, H and W")
        _require(num_classes is None or num_classes >= 1, "num_classes", num_classes, "at least 1")
        _require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        whole = isinstance(val_size, int) and val_size >= 1
        _require(whole or 0 < val_size < 1, "val_size", val_size, "a number from 1, or a share below 1")
        _require(0 <= split_seed < 2**32, "split_seed", split_seed, "from 0 to 2**32 - 1")
        _require(0 <= seed < 2**32, "seed", seed, "from 0 to 2**32 - 1")
        other = getattr(self._source, "of", "")
        if other and name != other:
            raise UserError(
                f"data.name={name} contradicts the files that are asked for, which are {other}'s: leave data.name out; "
                f"or, for your own data, say data=folder data.name={name} data.root={self.root}"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W). Raises UserError as `prepare_data`, if it has to be found."""
        if self._image_shape is None:
            path = self._files()["train_images"].path
            _, *sizes = idx_shape(path)
            if len(sizes) not in (2, 3):
                raise UserError(f"{path} holds arrays of {len(sizes)} dimensions, not images (H, W) or (C, H, W)")
            if len(sizes) == 3 and sizes[0] not in (1, 3) and sizes[2] in (1, 3):
                raise UserError(f"{path} holds images {tuple(sizes)}, colours last; they must be (C, H, W)")
            self._image_shape = (1, *sizes) if len(sizes) == 2 else tuple(sizes)
        return self._image_shape

    @property
    def num_classes(self) -> int:
        """K. Raises UserError as `prepare_data`, if it has to be found."""
        if self._num_classes is None:
            labels = read_idx(self._files()["train_labels"].path)
            self._num_classes = int(labels.max()) + 1 if len(labels) else 1
        return self._num_classes

    @property
    def val_size(self) -> int:
        """How many training images are set aside for validation. Raises UserError as `prepare_data`, if it was given as
        a share."""
        if self._val_size < 1:
            (size, *_) = idx_shape(self._files()["train_labels"].path)
            self._val_size = max(1, round(self._val_size * size))
        return int(self._val_size)

    def __str__(self) -> str:
        """What it is, in a line. Raises UserError as `prepare_data`."""
        train, test = (idx_shape(self._files()[f"{part}_labels"].path)[0] for part in ("train", "test"))
        pixels = (train + test) * math.prod(self.image_shape)
        return (
            f"{train - self.val_size:,} training, {self.val_size:,} validation and {test:,} test images, "
            f"{shown_size(self.image_shape)}, {self.num_classes} classes, {pixels / 1e6:.1f} MB in memory"
        )

    def prepare_data(self) -> None:
        """Verify the files on disk and fetch what is missing or altered; quick when all is well.

        Raises:
            UserError: they are not to be had, or `root` cannot be used; the message says what would help.
        """
        self._good_files = self._source(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Load what a stage needs and is not loaded yet.

        Args:
            stage: "fit" or "validate": the canonical training set; "test": the test set; otherwise both.

        Raises:
            UserError: as `prepare_data`, or the files' content does not fit `image_shape`, `num_classes` or
            `val_size`.
        """
        if stage != "test" and "fit" not in self._sets:
            images, labels = self._load("train")
            fit, val = self._split(len(labels))
            self._sets["fit"] = ImageTensors(images[fit], labels[fit])
            self._sets["val"] = ImageTensors(images[val], labels[val])
        if stage not in ("fit", "validate") and "test" not in self._sets:
            self._sets["test"] = ImageTensors(*self._load("test"))

    def train_dataloader(self) -> Loader:
        """Batches of the training images, in an order set by `seed` and the epoch: see `BatchIndices`."""
        return self._loader("fit", self.seed)

    def val_dataloader(self) -> Loader:
        """Batches of the validation images, always in the same order."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Batches of the test images in canonical order."""
        return self._loader("test")

    def test_set(self, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """The first `limit` test images: `held_out` of "test"."""
        return self.held_out("test", limit)

    def held_out(self, split: str, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """The first `limit` images, or all, that no training has seen: in canonical order.

        Args:
            split: "test", or "val" for the validation images.
            limit: how many.

        Returns:
            images, float32 (limit, C, H, W) in [0, 1], and labels, int64 (limit,); the caller's to change.

        Raises:
            UserError: no such split, `limit` is not in 1 to the number of its images, or these are sorted by class, so
            that the first of them are no sample; and as `setup`.
        """
        self.check_limit(split, limit)
        images, labels = self._sets[split][slice(0, limit)]
        # The images are fresh, converted from bytes; the labels would still be the set's own memory.
        return images, labels.clone()

    def check_limit(self, split: str, limit: int | None) -> None:
        """Check that `held_out` of these can be had. Raises UserError as it does."""
        if split not in HELD_OUT:
            raise UserError(f"split={split} is not one of {', '.join(HELD_OUT)}")
        self.setup(STAGES[split])
        dataset = self._sets[split]
        if limit is None:
            return
        if not 1 <= limit <= len(dataset):
            right = f"from 1 to {len(dataset)}, the number of {self.name}'s {HELD_OUT[split]} images, or null for all"
            raise UserError(f"limit={limit} is out of range: it must be {right}")
        self._refuse_sorted(split, dataset.labels, limit)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 in hex that stands for the set's name and its four files' content; loads no images.

        Prepares the data if that has not been done. Raises UserError as `prepare_data`.
        """
        lines = [self.name, *(f"{role} {self._files()[role].md5}" for role in ROLES)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _refuse_sorted(self, split: str, labels: Tensor, limit: int) -> None:
        """UserError if the first `limit` images lack classes that no random order would leave out."""
        is_mixed = getattr(self._source, "is_mixed", None)
        if is_mixed and is_mixed(self.root):  # class folders are, when they are decoded
            return
        counts, first = (part.bincount(minlength=self.num_classes).tolist() for part in (labels, labels[:limit]))
        if _chance(counts, first) < RANDOM_ORDER or (_are_sorted(labels, counts) and first.count(0) > counts.count(0)):
            classes, there = (sum(number > 0 for number in part) for part in (counts, first))
            is_published = bool(getattr(self._source, "of", ""))
            remedy = "leave limit out" if is_published else "shuffle them there, labels alike, or leave limit out"
            raise UserError(
                f"limit={limit} takes images of {there} of {classes} classes: {self.name}'s {HELD_OUT[split]} images "
                f"are sorted by class in {self.root}; {remedy}"
            )

    def _files(self) -> Mapping[str, GoodFile]:
        # Lightning calls prepare_data in one process a machine only; the others find the files here.
        if not self._good_files:
            self.prepare_data()
        return self._good_files

    def _load(self, part: str) -> tuple[Tensor, Tensor]:
        """One part's images, uint8 (N, C, H, W), and labels, uint8 (N,), checked against the config."""
        image_file, label_file = (self._files()[f"{part}_{kind}"].path for kind in ("images", "labels"))
        images, labels = read_idx(image_file), read_idx(label_file)
        check_range(images, str(image_file))
        channels, height, width = self.image_shape
        if images.dim() == 3 and channels == 1:
            images = images.unsqueeze(1)
        if images.shape[1:] != (channels, height, width):
            fault = f"image_shape={self.image_shape}, and {image_file} is of shape {tuple(images.shape)}"
        elif labels.shape != images.shape[:1]:
            fault = f"root={self.root} holds {len(images)} {part} images and {tuple(labels.shape)} labels"
        elif len(labels) and int(labels.max()) >= self.num_classes:
            fault = f"num_classes={self.num_classes}, and {label_file} has labels up to {int(labels.max())}"
        else:
            return images, labels
        raise UserError(f"data.{fault}: they do not fit together")

    def _split(self, size: int) -> tuple[Tensor, Tensor]:
        """The training and the validation images' indices, each in ascending order."""
        if self.val_size >= size:
            raise UserError(f"data.val_size={self.val_size} is out of range: it must be below {size}, all images")
        # RandomState, because NumPy has frozen its streams: the same split with every version, for ever.
        order = np.random.RandomState(self.split_seed).permutation(size)
        train, val = np.sort(order[self.val_size :]), np.sort(order[: self.val_size])
        return torch.from_numpy(train), torch.from_numpy(val)

    def _loader(self, part: str, seed: int | None = None) -> Loader:
        self.setup(STAGES[part])
        # Lightning recommends worker processes to every loader; one that indexes tensors would wait for them.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        shard, shards = 0, 1
        if self.trainer:
            shard, shards = self.trainer.global_rank, self.trainer.world_size
            self._sets[part] = self._sets[part].to(self.trainer.strategy.root_device)
        return batch_loader(self._sets[part], self.batch_size, seed, shard, shards)


def _are_sorted(labels: Tensor, counts: Sequence[int]) -> bool:
    """Whether labels stand in order, and not by chance: of N!/∏ counts! orders that tell their classes, one does."""
    orders = math.lgamma(sum(counts) + 1) - sum(math.lgamma(count + 1) for count in counts)
    return bool((labels.int().diff() >= 0).all()) and -orders < math.log(RANDOM_ORDER)


def _chance(counts: Sequence[int], first: Sequence[int]) -> float:
    """An upper bound of the chance that the first images of a random order lack as much as these; 1 if they lack none.

    Two things are unlikely: that a certain class of share p is not among N images, (1 − p)^N; and that so few classes
    are, which is at most the number of ways to choose them times (their share)^N, for those of the highest shares.

    Args:
        counts: images of each class.
        first: those of them that come first, by class.
    """
    size, drawn = sum(counts), sum(first)
    lacking = [count for count, number in zip(counts, first, strict=True) if count and not number]
    if not lacking:
        return 1.0
    classes, there = sum(count > 0 for count in counts), sum(number > 0 for number in first)
    highest = sum(sorted(counts)[-there:]) / size
    return min((1 - max(lacking) / size) ** drawn, math.comb(classes, there) * highest**drawn)


def _require(holds: bool, name: str, value: object, right: str) -> None:
    if not holds:
        raise UserError(f"data.{name}={value} is out of range: it must be {right}")
