"""The script a user would write: every cell on its own, with torchattacks and scikit-learn."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST

from src.models import VQVAE, Classifier
from tests.benchmarks.kmeans import sklearn_kmeans
from tests.benchmarks.parts import CLASSIFIER, NOISES, vqvae_name

DEFENSES = (("none", None), ("kmeans", None), *(("vqvae", noise) for noise in NOISES))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("checkpoints", Path), ("data", Path), ("limit", int), ("output", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--eps", type=float, nargs="+", required=True)
    asked = parser.parse_args()
    classifier = Classifier.load_from_checkpoint(asked.checkpoints / f"{CLASSIFIER}.ckpt", map_location="cpu").eval()
    test = Subset(MNIST(str(asked.data), train=False, transform=transforms.ToTensor()), range(asked.limit))
    cells = []
    for name in ("fgsm", "ifgsm", "mifgsm"):
        for eps in asked.eps:
            for defense, noise in DEFENSES:
                purify = load_defense(defense, noise, asked.checkpoints)
                accuracy = evaluate(classifier, make_attack(name, classifier, eps), purify, DataLoader(test, 100))
                cells.append({"attack": name, "eps": eps, "defense": defense, "noise": noise, "accuracy": accuracy})
    asked.output.write_text(json.dumps(cells), encoding="utf-8")


def make_attack(name: str, classifier: nn.Module, eps: float) -> Any:
    if name == "fgsm":
        return torchattacks.FGSM(classifier, eps=eps)
    make = {"ifgsm": torchattacks.BIM, "mifgsm": torchattacks.MIFGSM}[name]
    return make(classifier, eps=eps, alpha=eps / 10, steps=10)


def load_defense(defense: str, noise: float | None, checkpoints: Path) -> Any:
    if defense == "none":
        return lambda x: x
    if defense == "kmeans":
        return lambda x: torch.stack([compress(image) for image in x])
    network = VQVAE.load_from_checkpoint(checkpoints / f"{vqvae_name(noise)}.ckpt", map_location="cpu").eval()
    return lambda x: network(x + noise * torch.randn_like(x))


def compress(image: Tensor) -> Tensor:
    return torch.from_numpy(sklearn_kmeans(image.flatten().numpy())).reshape(image.shape)


def evaluate(classifier: nn.Module, attack: Any, purify: Any, loader: DataLoader[Any]) -> float:
    """Accuracy after attack and defense, by the report's rule: what is wrong without both stays wrong."""
    right = total = 0
    for x, y in loader:
        x_adv = attack(x, y)
        with torch.no_grad():
            counted = classifier(x).argmax(1) == y
            right += int((counted & (classifier(purify(x_adv)).argmax(1) == y)).sum())
        total += len(y)
    return right / total


if __name__ == "__main__":
    main()
