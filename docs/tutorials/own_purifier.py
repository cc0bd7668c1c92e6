"""Your own purifier in 30 lines: ``python docs/tutorials/own_purifier.py [folder of MNIST]``."""

# %% [markdown]
# # Your own purifier in 30 lines
#
# A purifier is an `nn.Module` from images to images of the same shape. This tutorial writes one, measures it under
# both attackers, and puts it into a sweep.
#
# It takes less than a minute on one core. MNIST must be there: `python -m src.prepare data=mnist` fetches it.

# %%
import logging
import sys
import warnings

import torch
from lightning import Trainer
from torch import Tensor, nn

from src.attacks import pgd
from src.data import ImageDataModule
from src.defended import DefendedClassifier, adaptive, gray_box
from src.evaluation.statistics import wilson_interval
from src.models import Classifier

warnings.filterwarnings("ignore")  # Lightning's advice on data loaders
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.manual_seed(0)

# %% [markdown]
# ## A frozen classifier
#
# It is small, and trained for seconds. Any module from images in [0, 1] to logits will do in its place. The 500
# images that are attacked are validation images: it was not trained on them.

# %%
data = ImageDataModule("mnist", sys.argv[1] if len(sys.argv) > 1 else "outputs/data/mnist", val_size=500)
x, y = data.held_out("val", 500)  # x (500, 1, 28, 28) in [0, 1], y (500,)
classifier = Classifier(widths=(8, 16), hidden=64, lr=3e-3)
quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
trainer = Trainer(max_epochs=15, limit_train_batches=8, limit_val_batches=0, accelerator="cpu", **quiet)
trainer.fit(classifier, datamodule=data)
classifier.eval().requires_grad_(False)

# %% [markdown]
# ## The purifier
#
# It takes the mean of each pixel's 3×3 neighbourhood and then a soft threshold: what is darker than a grey goes
# towards black, what is brighter towards white. A single pixel counts for little in a mean, and a small change for
# little far from the threshold.


# %%
class BlurAndThreshold(nn.Module):
    """Mean of each pixel's 3×3 neighbourhood, then a soft threshold.

    Args:
        steepness: of the threshold; 0 is flat grey, and infinity black and white.
        level: the grey in the middle, in pixel units.
    """

    def __init__(self, steepness: float = 12.0, level: float = 0.4) -> None:
        super().__init__()
        self.steepness, self.level = steepness, level

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to images of the same shape and range."""
        blurred = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
        return torch.sigmoid(self.steepness * (blurred - self.level))


# %% [markdown]
# ## Two attackers
#
# `gray_box` gives what an attacker sees who does not know the purifier, `adaptive` what one sees who does. Both are
# plain modules; so is the defended classifier, and any attack library takes it as it is.


# %%
def measure(purifier: nn.Module, eps: float = 0.2) -> dict[str, float]:
    """Print accuracy without attack and under PGD, each with its 95 % interval; returns it by name."""
    defended = DefendedClassifier(classifier, purifier)
    seen = {
        "clean": x,
        "gray-box": pgd(gray_box(classifier, purifier), x, y, eps=eps, steps=10),
        "adaptive": pgd(adaptive(classifier, purifier), x, y, eps=eps, steps=10),
    }
    accuracies = {}
    for name, images in seen.items():
        with torch.no_grad():
            correct = int((defended(images).argmax(1) == y).sum())
        low, high = wilson_interval(correct, len(y))
        accuracies[name] = correct / len(y)
        print(f"{type(purifier).__name__:18} {name:10} {accuracies[name]:6.1%}  [{low:.1%}, {high:.1%}]")
    return accuracies


bare = measure(nn.Identity())
mine = measure(BlurAndThreshold())
paid, kept = bare["clean"] - mine["clean"], mine["adaptive"] - bare["adaptive"]
print(f"It pays {100 * paid:.1f} points on clean images, and keeps {100 * kept:.1f} under an attacker who knows it.")

# %% [markdown]
# Without a purifier both attackers are the same one; their numbers differ by PGD's random start alone. With it, only
# the adaptive number says what the purifier is worth.
#
# ## Into a sweep
#
# Put the class into a file of yours, such as `my_purifiers.py` in the folder where you type the command, and this
# into `my_conf/defense/blur_and_threshold.yaml`:
#
# ```yaml
# name: blur_and_threshold
# uses_noise: false
# purifier:
#   _target_: my_purifiers.BlurAndThreshold
#   steepness: 12.0
# ```
#
# Then it stands in every table beside the others. The classifier is that of `make demo`:
#
# ```
# python -m src.sweep -m "hydra.searchpath=[file:///path/to/my_conf]" threat=gray_box,adaptive attack=pgd eps=0,0.2 \
#     noise=0 limit=500 defense=none,binarize,blur_and_threshold
# ```
#
# [Your own defense, attack, classifier](../extend.md) has the rest: purifiers without a gradient, with random
# numbers, with a noise level, and your own attacks. This page is a script that runs as it is,
# [own_purifier.py](own_purifier.py), and a notebook for Jupyter or Colab, [own_purifier.ipynb](own_purifier.ipynb).
