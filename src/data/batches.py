"""Batches straight out of tensors: no per-item loading, no worker processes."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class ImageTensors(Dataset[tuple[Tensor, Tensor]]):
    """Images uint8 (N, C, H, W) and labels (N,), indexed a batch at a time.

    Pixels stay bytes in memory, a quarter of float32, and become [0, 1] when a batch is taken (measured at
    batch 128: 90 microseconds, against 60 from float32; a training step takes 50,000). On a GPU, all of this
    happens there.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels.long()

    def to(self, device: torch.device) -> "ImageTensors":
        """The same images and labels on another device."""
        return ImageTensors(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images float32 (n, C, H, W) in [0, 1] and labels int64 (n,) for an index tensor (n,) or a slice."""
        if isinstance(index, Tensor):
            index = index.to(self.images.device)
        return self.images[index].to(torch.float32).div_(255), self.labels[index]


class BatchIndices(DistributedSampler[Tensor]):
    """The index tensors of an epoch's batches, the last one possibly short.

    With a seed the order is a function of (seed, epoch) alone, so that a resumed run sees what an
    uninterrupted one would have seen. Lightning calls `set_epoch`; a hand-written loop should too, or each
    epoch is the same.

    Of several processes that train together each takes every so-manieth index of that order, so that their
    k-th batches are together the k-th batch that one process would take if its batches were as large. All
    take equally many, as they must: up to `shards` - 1 images are seen twice in an epoch.
    """

    # A DistributedSampler, because that is what Lightning does not wrap into one of its own, which would
    # share out batches instead of images and keep `set_epoch` from this one.

    def __init__(self, size: int, batch_size: int, seed: int | None = None, shard: int = 0, shards: int = 1) -> None:
        """
        Args:
            size: of the data set.
            batch_size: of one process; at least 1.
            seed: not negative; None for the canonical order in every epoch.
            shard: which of the processes this is, from 0.
            shards: how many there are.
        """
        images: Any = range(size)  # of which it asks the length alone
        super().__init__(images, num_replicas=shards, rank=shard, shuffle=seed is not None, seed=seed or 0)
        self.size = size
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = np.arange(self.size)
        if self.shuffle:
            # Its own generator: neither reads nor moves torch's global one, which the model's noise draws
            # from. RandomState rather than default_rng, because NumPy has frozen its streams.
            np.random.RandomState((self.seed, self.epoch)).shuffle(order)
        indices = np.resize(order, self.total_size)[self.rank :: self.num_replicas]  # resize begins again at the end
        yield from torch.from_numpy(indices).split(self.batch_size)


def batch_loader(
    dataset: ImageTensors, batch_size: int, seed: int | None = None, shard: int = 0, shards: int = 1
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader of (images, labels) batches, shuffled by (seed, epoch), or in fixed order without a seed: all of
    them, or a process's share of them."""
    sampler = BatchIndices(len(dataset), batch_size, seed, shard, shards)
    # batch_size=None: the sampler's elements are batches, and are handed to the data set as they are.
    # generator: DataLoader draws a seed for its workers, even for none, and not from the global one then.
    return DataLoader(dataset, sampler=sampler, batch_size=None, collate_fn=_as_it_is, generator=torch.Generator())


def _as_it_is(batch: Any) -> Any:
    return batch
