"""``python -m tests.benchmarks.scale``: what attacks leave of a classifier whose logits are multiplied by k.

A larger k changes none of the classifier's decisions, so an attack should leave the same share. One that follows the
gradient of the cross-entropy stands still where that gradient is 0 in float32. Measured for our attacks, torchattacks,
foolbox and ART, with one classifier, the same images, steps and step sizes. Rows that are in the output already are not
measured again.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from src.models import Classifier
from tests.benchmarks import attack_libraries
from tests.benchmarks.attack_libraries import RECIPES, Recipe
from tests.benchmarks.parts import CLASSIFIER, REPO, Settings, ensure_weights, test_images

BUDGETS = (0.1, 0.2, 0.3)
LIBRARIES = ("ours", "torchattacks", "foolbox", "art")
FACTORS = (1, 10, 100, 1000)
COLUMNS = ("library", "attack", "eps", "classifier", "images", "correct")
BATCH_SIZE = 100


class Scaled(nn.Module):
    """``network`` with its logits times ``factor``."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.network(x)


class InBfloat16(nn.Module):
    """``network`` computed in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x).float()


def classifiers(network: nn.Module) -> dict[str, nn.Module]:
    """By name, such as ``k=10``."""
    scaled: dict[str, nn.Module] = {f"k={factor}": Scaled(network, factor).eval() for factor in FACTORS}
    return scaled | {"bfloat16": InBfloat16(network).eval()}


def correct(library: str, network: nn.Module, recipe: Recipe, eps: float, x: Tensor, y: Tensor) -> int:
    """How many images (N, C, H, W) with labels (N,) the network still gets right."""
    attack = getattr(attack_libraries, library)(network, recipe, BATCH_SIZE, eps)
    attacked = attack(x, y)
    with torch.no_grad():
        answers = torch.cat([network(batch).argmax(1) for batch in attacked.split(BATCH_SIZE)])
    return int((answers == y).sum())


def missing(rows: list[dict[str, str]]) -> Iterator[tuple[Recipe, str, float, str]]:
    """What is not measured yet: attack, library, eps, name of the classifier."""
    known = {(row["library"], row["attack"], float(row["eps"]), row["classifier"]) for row in rows}
    for recipe in RECIPES:
        for library in LIBRARIES:
            for eps in BUDGETS:
                for name in [*(f"k={factor}" for factor in FACTORS), "bfloat16"]:
                    if (library, recipe.name, eps, name) not in known:
                        yield recipe, library, eps, name


def table(rows: list[dict[str, str]]) -> str:
    """Accuracy left in percent, as Markdown: a row an attack and eps, a column a classifier."""
    names = [*(f"k={factor}" for factor in FACTORS), "bfloat16"]
    left = {(row["attack"], row["library"], row["eps"], row["classifier"]): row for row in rows}
    lines = [f"| attack | library | eps | {' | '.join(names)} |", f"| --- | --- | --: {'| --: ' * len(names)}|"]
    for attack, library, eps in dict.fromkeys((row["attack"], row["library"], row["eps"]) for row in rows):
        found = [left.get((attack, library, eps, name)) for name in names]
        shown = ["not run" if row is None else f"{100 * int(row['correct']) / int(row['images']):.1f}" for row in found]
        lines.append(f"| {attack} | {library} | {eps} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--csv", type=Path, default=REPO / "outputs" / "bench" / "scale.csv")
    parser.add_argument("--outputs", type=Path, default=REPO / "outputs", help="where data and checkpoints are")
    asked = parser.parse_args()
    checkpoints, _ = ensure_weights((CLASSIFIER,), asked.outputs, asked.csv.parent)
    settings = Settings(5, False, asked.csv.parent, checkpoints, asked.outputs / "data")
    x, y = test_images(settings, asked.images)
    network = Classifier.load_from_checkpoint(settings.checkpoint(CLASSIFIER), map_location="cpu")
    networks = classifiers(network.eval().requires_grad_(False))
    rows = list(csv.DictReader(asked.csv.open())) if asked.csv.exists() else []
    for recipe, library, eps, name in missing(rows):
        left = correct(library, networks[name], recipe, eps, x, y)
        row = dict(zip(COLUMNS, map(str, (library, recipe.name, eps, name, len(y), left)), strict=True))
        rows.append(row)
        with asked.csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(row.values()), file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
