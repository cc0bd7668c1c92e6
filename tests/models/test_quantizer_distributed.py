"""The codebook of several processes that train together, in two real ones."""

import json
from pathlib import Path

import pytest
import torch
from torch import distributed

from src.models.quantizer import EMAQuantizer
from tests.command_server import CommandServer

CODES, DIMENSION = 16, 4


def make_quantizer(dead_code_threshold: float) -> EMAQuantizer:
    """A quantizer whose first three codes are near the data and alive, the others far from it."""
    torch.manual_seed(0)
    quantizer = EMAQuantizer(CODES, DIMENSION, decay=0.9, dead_code_threshold=dead_code_threshold).train()
    quantizer.initialized.fill_(True)
    quantizer.codebook[3:] += 100
    quantizer.cluster_sum.copy_(quantizer.codebook)
    quantizer.cluster_size[3:] = 0.01
    return quantizer


def batches() -> torch.Tensor:
    """Two steps' batches, (2, 6, D, 5, 5); the second half of each is of another distribution."""
    drawn = torch.randn(2, 6, DIMENSION, 5, 5, generator=torch.Generator().manual_seed(1))
    drawn[:, 3:] = drawn[:, 3:] * 2 + 1
    return drawn


def train_half(rank: int, folder: str) -> None:
    """What one of two processes does: train three quantizers on its half of every batch."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    half = batches()[:, :3] if rank == 0 else batches()[:, 3:]
    quantizers = {
        "averages": make_quantizer(dead_code_threshold=0),
        "revived": make_quantizer(dead_code_threshold=0.5),
        "initialized": EMAQuantizer(CODES, DIMENSION).train(),
    }
    torch.manual_seed(rank)
    for name, quantizer in quantizers.items():
        for batch in half[:1] if name == "revived" else half:
            quantizer(batch)
    torch.save({name: quantizer.state_dict() for name, quantizer in quantizers.items()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def trained_halves(
    command_server: CommandServer, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("distributed")
    here = "tests.models.test_quantizer_distributed"
    calls = [json.dumps([here, "train_half", [rank, str(folder)], str(folder / f"{rank}.json")]) for rank in (0, 1)]
    for done in command_server.run_at_once(*(("tests.called", call) for call in calls)):
        assert done.returncode == 0, done.stderr
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["averages", "revived", "initialized"])
def test_both_processes_have_the_same_codebook(trained_halves, name):
    first, second = (halves[name] for halves in trained_halves)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_is_the_codebook_of_one_process_that_sees_the_whole_batch(trained_halves):
    alone = make_quantizer(dead_code_threshold=0)
    for batch in batches():
        alone(batch)
    for key, value in alone.state_dict().items():
        assert torch.allclose(trained_halves[0]["averages"][key].float(), value.float(), rtol=1e-5, atol=1e-6)


def test_dead_codes_restart_at_vectors_of_the_first_process(trained_halves):
    seen = batches()[0, :3].movedim(1, -1).reshape(-1, DIMENSION)
    revived = trained_halves[0]["revived"]["codebook"][3:]
    assert (revived[:, None] == seen).all(-1).any(1).all()
