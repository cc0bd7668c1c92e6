"""From the report to an honest number: ``python docs/tutorials/honest_number.py [folder of MNIST]``."""

# %% [markdown]
# # From the report to an honest number
#
# A report says: "behind our purifier, the classifier keeps this much of its accuracy under attack". This tutorial
# makes such a number, and then asks how much of it is left when the attacker looks at the purifier.
#
# It takes less than a minute on one core. MNIST must be there: `python -m src.prepare data=mnist` fetches it.

# %%
import logging
import sys
import warnings
from collections.abc import Callable

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from src.attacks import fgsm, ifgsm, pgd, uniform
from src.data import ImageDataModule
from src.defended import DefendedClassifier, adaptive, gray_box
from src.defenses import VQVAEPurifier
from src.evaluation.statistics import wilson_interval
from src.models import VQVAE, Classifier
from src.straight_through import StraightThrough

warnings.filterwarnings("ignore")  # Lightning's advice on data loaders
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.manual_seed(0)

EPS = 0.2  # how far each pixel may be moved; pixels are in [0, 1]
N = 500

# %% [markdown]
# ## The images
#
# 500 images are set aside and not trained on. They are *validation* images: what you choose by. The test images wait
# for the number that you publish, so this tutorial does not touch them.

# %%
folder = sys.argv[1] if len(sys.argv) > 1 else "outputs/data/mnist"
data = ImageDataModule("mnist", folder, val_size=N)
x, y = data.held_out("val", N)  # x (500, 1, 28, 28) in [0, 1], y (500,)

# %% [markdown]
# ## A classifier and a purifier
#
# Both are small, and trained for seconds. The purifier is the report's kind: a VQ-VAE that sees an image with
# Gaussian noise and is asked for the clean one. After the training both are frozen.


# %%
def trained(module: LightningModule, epochs: int) -> LightningModule:
    """Train on eight batches an epoch."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=epochs, limit_train_batches=8, limit_val_batches=0, accelerator="cpu", **quiet)
    trainer.fit(module, datamodule=data)
    return module.eval().requires_grad_(False)


classifier = trained(Classifier(widths=(8, 16), hidden=64, lr=3e-3), epochs=15)
purifier = VQVAEPurifier(
    trained(VQVAE(noise=0.5, hidden=24, residual_hidden=8, num_embeddings=64, embedding_dim=16, lr=3e-3), epochs=20)
)
defended = DefendedClassifier(classifier, purifier)

# %% [markdown]
# ## Accuracy, with an interval
#
# Accuracy on 500 images is an estimate. Wilson's 95 % interval says how far off it may be for the choice of the
# images. It says nothing of how another training would have come out.


# %%
def correct(model: nn.Module, images: Tensor) -> Tensor:
    """Which images the model gets right; (N,), bool."""
    with torch.no_grad():
        return model(images).argmax(1) == y


def tell(name: str, right: Tensor) -> None:
    """Print a share with its interval."""
    low, high = wilson_interval(int(right.sum()), len(right))
    print(f"{name:44} {right.float().mean():6.1%}  [{low:.1%}, {high:.1%}]")


tell("clean, no purifier", correct(classifier, x))
tell("clean, VQ-VAE", correct(defended, x))

# %% [markdown]
# ## The report's number: gray-box FGSM
#
# A gray-box attacker knows the classifier and not the purifier. FGSM takes one step along the sign of the
# classifier's gradient. The purifier gives much of the accuracy back.

# %%
x_adv = fgsm(gray_box(classifier, purifier), x, y, eps=EPS)
tell("gray-box FGSM, no purifier", correct(classifier, x_adv))
gray = correct(defended, x_adv)
tell("gray-box FGSM, VQ-VAE", gray)

# %% [markdown]
# ## The attacker looks at the purifier
#
# An adaptive attacker differentiates through classifier and purifier together. Several attacks are tried, and each
# image counts as right only if *none* of them fools the classifier with it. That is the worst case. The gray-box
# images belong to it too: whoever knows the purifier may still use them.

# %%
view = adaptive(classifier, purifier)
Attack = Callable[[], Tensor]
attacks: dict[str, Attack] = {
    "uniform noise": lambda: uniform(view, x, y, eps=EPS),
    "FGSM": lambda: fgsm(view, x, y, eps=EPS),
    "I-FGSM": lambda: ifgsm(view, x, y, eps=EPS, steps=10),
    "PGD": lambda: pgd(view, x, y, eps=EPS, steps=10, early_stop=True),
}
worst = gray.clone()
for name, attack in attacks.items():
    right = correct(defended, attack())
    tell(f"adaptive {name}, VQ-VAE", right)
    worst &= right
tell("adaptive, worst of all, VQ-VAE", worst)

# %% [markdown]
# The last line is the honest one of these. It is still an upper bound: a better attack may come.
#
# ## A number that is too good: no gradient
#
# This purifier rounds pixels to four shades before the VQ-VAE. The gradient of a rounding is zero, so an attack that
# follows it stands still, and the purifier looks strong. BPDA runs it forward as it is, and takes the gradient of the
# identity backward. `StraightThrough` does that.


# %%
class Rounded(nn.Module):
    """A purifier behind a rounding to four shades."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to purified images of the same shape."""
        return self.inner((images * 3).round() / 3)


rounded = Rounded(purifier)
target = DefendedClassifier(classifier, rounded)
blind = pgd(adaptive(classifier, rounded), x, y, eps=EPS, steps=10, random_start=False)
seeing = pgd(adaptive(classifier, StraightThrough(rounded)), x, y, eps=EPS, steps=10)
tell("rounding + VQ-VAE, PGD with a zero gradient", correct(target, blind))
tell("rounding + VQ-VAE, PGD with BPDA", correct(target, seeing))

# %% [markdown]
# The first of these two numbers is no robustness. A sweep says so under "Reasons for suspicion", see
# [zero-gradient](../checks.md#zero-gradient); `defense.bpda=true` gives any purifier the second one.
#
# ## What to write down
#
# - the clean accuracy, which is the price;
# - the worst case under an attacker who knows the purifier, with its interval and the number of images;
# - eps, the attacks, and that the number is an upper bound.
#
# For all ten attacks of the suite, on networks of your own training (a classifier of seed 1 among them, for the
# attack that transfers):
#
# ```
# python -m src.sweep -m threat=adaptive attack=worst eps=0.2 limit=500 split=val defense=vqvae noise=0.5
# ```
#
# The words are explained in the [concepts](../concepts.md). This page is a script that runs as it is,
# [honest_number.py](honest_number.py), and a notebook for Jupyter or Colab, [honest_number.ipynb](honest_number.ipynb).
