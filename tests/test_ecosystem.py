"""The defended classifier, handed as it is to the attack libraries that people use."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from src.attacks import pgd
from src.defended import DefendedClassifier
from src.defenses import Binarize, VQVAEPurifier
from src.models import VQVAE
from src.models.checkpoint import weights_fingerprint
from tests.fixtures import Fit

EPS, STEPS, STEP = 0.3, 10, 0.075

Batch = tuple[Tensor, Tensor]


@pytest.fixture(scope="session")
def vqvae(real_digits: Batch) -> VQVAEPurifier:
    """A tiny VQ-VAE after two seconds of training: enough for digits to stay digits."""
    images = real_digits[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VQVAE(hidden=32, residual_hidden=4, residual_blocks=1, num_embeddings=64, embedding_dim=8, decay=0.9)
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        for batch in images[torch.randint(len(images), (80, 64))]:
            quantized = network.quantize(batch)
            loss = nn.functional.mse_loss(network.decoder(quantized.values), batch) + 0.25 * quantized.commitment
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad()
    return VQVAEPurifier(network)


@pytest.fixture(scope="session")
def defended_by(fit: Fit, vqvae: VQVAEPurifier) -> Callable[[str], DefendedClassifier]:
    @functools.cache
    def make(name: str) -> DefendedClassifier:
        defense = {"binarize": Binarize(), "vqvae": vqvae}[name]
        return DefendedClassifier(fit(defense), defense)

    return make


@pytest.fixture(params=["binarize", "vqvae"])
def defended(request: pytest.FixtureRequest, defended_by: Callable[[str], DefendedClassifier]) -> DefendedClassifier:
    return defended_by(request.param)


@pytest.fixture
def few(real_digits: Batch) -> Batch:
    return real_digits[0][:32], real_digits[1][:32]


def by_torchattacks(name: str, model: nn.Module, batch: Batch, **options: Any) -> Tensor:
    return getattr(torchattacks, name)(model, eps=EPS, **options)(*batch)


def by_foolbox(model: nn.Module, batch: Batch) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    attack = foolbox.attacks.LinfPGD(rel_stepsize=STEP / EPS, steps=STEPS)
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), *batch, epsilons=EPS)[1]


def by_art(name: str, model: nn.Module, batch: Batch, **options: Any) -> Tensor:
    pytest.importorskip("art")
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 28, 28),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = getattr(evasion, name)(wrapped, eps=EPS, batch_size=32, **options)
    return torch.from_numpy(attack.generate(x=batch[0].numpy(), y=np.eye(10, dtype=np.float32)[batch[1].numpy()]))


LIBRARIES: dict[str, Callable[[nn.Module, Batch], Tensor]] = {
    "torchattacks PGD": functools.partial(by_torchattacks, "PGD", alpha=STEP, steps=STEPS),
    "torchattacks APGD": functools.partial(by_torchattacks, "APGD", steps=STEPS),
    "torchattacks AutoAttack": functools.partial(by_torchattacks, "AutoAttack", version="rand"),
    "foolbox LinfPGD": by_foolbox,
    "ART FastGradientMethod": functools.partial(by_art, "FastGradientMethod"),
    "ART ProjectedGradientDescent": functools.partial(
        by_art, "ProjectedGradientDescent", eps_step=STEP, max_iter=STEPS, verbose=False
    ),
}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_is_attacked_as_it_is(library, defended, few):
    x, y = few
    before = weights_fingerprint(defended.state_dict())
    clean = accuracy(defended, x, y)
    x_adv = LIBRARIES[library](defended, (x.clone(), y.clone()))
    assert x_adv.shape == x.shape
    assert x_adv.min() >= -1e-6 and x_adv.max() <= 1 + 1e-6
    assert (x_adv - x).abs().max() <= EPS + 1e-5
    assert clean > 0.9
    assert accuracy(defended, x_adv, y) < clean - 0.25
    assert not any(part.training for part in defended.modules())
    assert not any(parameter.requires_grad for parameter in defended.parameters())
    assert all(parameter.grad is None for parameter in defended.parameters())
    assert weights_fingerprint(defended.state_dict()) == before


@pytest.mark.slow
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize(("name", "eps"), [("binarize", 0.3), ("vqvae", 0.1)])
def test_our_pgd_is_as_strong_as_theirs(name, eps, random_start, defended_by, real_digits):
    """Equal steps, step size and random numbers, on 256 digits: to within a point."""
    defended, (x, y) = defended_by(name), real_digits
    theirs = torchattacks.PGD(defended, eps=eps, alpha=eps / 15, steps=20, random_start=random_start)
    ours = functools.partial(pgd, defended, eps=eps, steps=20, rel_step=1 / 15, random_start=random_start)
    standing = []
    for attack in (ours, theirs):
        torch.manual_seed(1)
        standing.append(accuracy(defended, attack(x, y), y))
    assert standing[0] == pytest.approx(standing[1], abs=0.01)
    assert 0.1 < standing[0] < 0.9  # neither has won, nor lost, so much that nothing can be seen
