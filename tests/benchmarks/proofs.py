"""``python -m tests.benchmarks.proofs``: how many images ``vqvae_certified`` is proved on, and a check by an attack.

Prints clean accuracy, the squared error of the drawings, what is proved, refuted and open, how many of the refuting
images in fact fool the defended classifier, and what adaptive PGD-40 leaves of the first images. The networks must be
trained: ``python -m src.train model=classifier`` and ``model=vqvae_certified``.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from src.attacks import pgd
from src.defended import DefendedClassifier, adaptive
from src.evaluation.code_certificate import Verdict
from src.evaluation.components import TestSet
from src.evaluation.proofs import NODES, Proofs, prove
from src.models import load_classifier
from src.workflows.building import build
from src.workflows.configured import data_from_config
from tests.benchmarks.parts import REPO, compose

BATCH = 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.proofs", description=__doc__)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--images", type=int, help="the first so many; all if not given")
    parser.add_argument("--eps", type=float, default=0.3, help="L∞ budget in pixel units")
    parser.add_argument("--nodes", type=int, default=NODES, help="boxes that may be bounded for one image")
    parser.add_argument("--attacked", type=int, default=500, help="images that are attacked")
    parser.add_argument("--outputs", type=Path, default=REPO / "outputs", help="where data and checkpoints are")
    asked = parser.parse_args()
    config = compose("sweep", ["defense=vqvae_certified", f"paths.outputs={asked.outputs.resolve()}"])
    data = data_from_config(config.data)
    data.prepare_data()
    test = TestSet(*data.held_out(asked.split, asked.images), data.num_classes)
    classifier = load_classifier(config.classifier.checkpoint).eval()
    defended = DefendedClassifier(classifier, build(config.defense.purifier))
    with torch.no_grad():
        drawn = torch.cat([defended.defense(x) for x in test.images.split(BATCH)])
    right = _right(defended, test.images, test.labels)
    print(f"{len(right)} images: {int(right.sum())} right without attack")
    print(f"squared error of the drawings: {(drawn - test.images).square().mean().item():.4f}")
    proofs = prove(classifier, defended.defense, test, asked.eps, nodes=asked.nodes, track=track)
    print(json.dumps(proofs.statistics))
    _check(defended, proofs, test, asked.attacked)


@torch.no_grad()
def _right(model: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([model(batch).argmax(1) for batch in x.split(BATCH)]) == y


def _check(defended: DefendedClassifier, proofs: Proofs, test: TestSet, attacked: int) -> None:
    """Hold the verdicts against what the network answers."""
    refuted = proofs.verdicts == Verdict.REFUTED
    fooling = ~_right(defended, proofs.witnesses[refuted], test.labels[refuted])
    print(f"{int(fooling.sum())} of {int(refuted.sum())} refuting images fool the defended classifier")
    x, y = test.images[:attacked], test.labels[:attacked]
    model = adaptive(defended.classifier, defended.defense)
    x_adv = pgd(model, x, y, eps=proofs.eps, early_stop=True, generator=torch.Generator().manual_seed(0))
    left = _right(model, x_adv, y)
    proved = proofs.proved[: len(y)]
    print(f"PGD-40 leaves {int(left.sum())} of {len(y)}; {int(proved.sum())} are proved")
    print(f"proved and fooled: {int((proved & ~left).sum())}")


if __name__ == "__main__":
    main()
