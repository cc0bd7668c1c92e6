"""Batches of several processes that train together."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DistributedSampler

from src.data import ImageDataModule
from src.data.batches import BatchIndices


def epoch_of(shard: int, shards: int, size: int, batch_size: int, epoch: int = 3) -> list[torch.Tensor]:
    sampler = BatchIndices(size, batch_size, seed=5, shard=shard, shards=shards)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


@pytest.mark.parametrize(("size", "shards"), [(60, 2), (61, 2), (61, 3), (2, 3)])
def test_together_they_take_the_batches_of_one_process(size, shards):
    parts = [epoch_of(shard, shards, size, batch_size=8) for shard in range(shards)]
    whole = epoch_of(0, 1, size, batch_size=8 * shards)
    assert [[len(batch) for batch in part] for part in parts] == [[len(batch) for batch in parts[0]]] * shards
    for number, batch in enumerate(whole):
        together = torch.stack([part[number] for part in parts], 1).flatten()
        assert torch.equal(together[: len(batch)], batch)
    seen = torch.cat([batch for part in parts for batch in part]).bincount(minlength=size)
    assert seen.min() == 1
    assert seen.sum() - size < shards


def test_epochs_differ_and_canonical_order_is_kept():
    assert not torch.equal(epoch_of(1, 2, 60, 8, epoch=0)[0], epoch_of(1, 2, 60, 8, epoch=1)[0])
    assert torch.cat(list(BatchIndices(7, 2, shard=1, shards=2))).tolist() == [1, 3, 5, 0]


def test_a_data_module_shares_its_images_out_among_its_trainers_processes(tiny, tmp_path):
    data = ImageDataModule("tiny", tiny.write(tmp_path), batch_size=16, val_size=10)
    everything = torch.cat([labels for _, labels in data.train_dataloader()])
    parts = []
    for rank in (0, 1):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=strategy)
        loader = data.train_dataloader()
        assert isinstance(loader.sampler, DistributedSampler)  # else Lightning would share out the shares again
        parts.append(torch.cat([labels for _, labels in loader]))
    assert torch.equal(torch.stack(parts, 1).flatten(), everything)
