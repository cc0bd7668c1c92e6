"""Classifier ∘ defense: the meeting point with the attack libraries, and with what an attacker may know."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from src.attacks.verdict import is_random
from src.defenses import Chain, Identity
from src.images import ImageCheck, check_purified
from src.randomness import seeded
from src.single_image import as_batch
from src.straight_through import Surrogated, straight_through

Surrogate = Literal["identity", "smooth"]


class Prediction(NamedTuple):
    """What a classifier takes one image for."""

    label: int
    confidence: float  #: its probability
    probabilities: Tensor  #: of all classes, (K,), on the CPU


class DefendedClassifier(nn.Module):
    """x in [0, 1] → logits: ``classifier(defense(x))``, a plain module that any attack library takes as it is.

    Both parts are frozen: in ``eval()``, which ``train()`` does not change, and without parameter gradients.
    The gradient with respect to x is that of the composition. A defense that passes none (of another library, or
    written without thinking of one) is passed straight through: BPDA with the identity (Athalye et al.,
    arXiv:1802.00420). Without that, an attack would find nothing to follow and the defense would look strong. A defense
    whose gradient is there but zero is not recognized: wrap it in :class:`src.straight_through.StraightThrough`.

    The defense gets a copy of the images, and may write into it.

    Args:
        classifier: images (N, C, H, W) in [0, 1] → logits (N, K).
        defense: images → images of the same shape.
    """

    def __init__(self, classifier: nn.Module, defense: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.defense = defense
        self._check = ImageCheck()
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "DefendedClassifier":
        """Stay in ``eval()``: attack libraries toggle the mode, and dropout would blur their gradients."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x`` (N, C, H, W).

        Raises:
            ValueError: ``x`` cannot be images in [0, 1] (see :class:`src.images.ImageCheck`), or the defense changed
                their shape.
        """
        self._check(x)
        x_hat = self.defense(x.clone())
        check_purified(x_hat, x)
        if x.requires_grad and torch.is_grad_enabled() and not x_hat.requires_grad:
            x_hat = straight_through(x_hat, x)
        return self.classifier(x_hat)

    @torch.no_grad()
    def predict(self, image: Any) -> Prediction:
        """What one image is taken for.

        Args:
            image: a PIL image, a NumPy array or a tensor; see :func:`src.single_image.as_batch`.

        Raises:
            ValueError: it is none of these, of a size that these networks do not take, or a logit is NaN or infinite:
                that is no answer, and the largest of them would be chance.
        """
        x = as_batch(image)
        parameter = next(self.parameters(), None)
        try:
            logits = self(x if parameter is None else x.to(parameter.device))
        except RuntimeError as error:  # of a layer, which knows sizes only
            trained_on: Mapping[str, Any] = getattr(self.classifier, "hparams", {})
            if {"in_channels", "image_size"} <= trained_on.keys():
                reason = "{in_channels} × {image_size} × {image_size} is what the classifier takes".format(**trained_on)
            else:
                reason = " ".join(str(error).split())[:160]
            raise ValueError(f"an image of {tuple(x.shape[1:])} does not suit these networks: {reason}") from error
        if not logits.isfinite().all():
            raise ValueError(
                "the classifier returned logits that are not finite for this image: it has no answer to it"
            )
        probabilities = logits[0].softmax(0).cpu()
        label = int(probabilities.argmax())
        return Prediction(label, probabilities[label].item(), probabilities)


class ExpectationOverTransformation(DefendedClassifier):
    """The mean of a defended classifier's logits over the randomness of defense and classifier: EOT (Athalye et al.,
    arXiv:1707.07397).

    A model that gives the same answer every time is asked once, so that its logits and gradients are those of
    :class:`DefendedClassifier`, bit for bit.

    Args:
        classifier, defense: as for :class:`DefendedClassifier`.
        eot_samples: answers of a random model that are averaged, ≥ 1.
    """

    def __init__(self, classifier: nn.Module, defense: nn.Module, eot_samples: int) -> None:
        super().__init__(classifier, defense)
        if eot_samples < 1:
            raise ValueError(f"eot_samples must be at least 1; got {eot_samples}")
        self.eot_samples = eot_samples
        self._is_random: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x`` (N, C, H, W)."""
        answer = super().forward
        if self.eot_samples == 1 or not self.is_random(x):
            return answer(x)
        return torch.stack([answer(x) for _ in range(self.eot_samples)]).mean(0)

    def is_random(self, x: Tensor) -> bool:
        """Whether defense or classifier answer the same images differently. Found out once, on a few of ``x``."""
        if self._is_random is None:
            # Of the defense alone as well: a classifier may hide differences in these few images
            self._is_random = is_random(super().forward, x) or is_random(self.defense, x)
        return self._is_random


class FrozenRandomness(nn.Module):
    """``purifier``, whose random numbers are the same for every query: those that follow ``seed``.

    Each image is purified by itself, from the beginning of the random streams, as by a server that seeds them for each
    query. So all images meet the same noise, whatever batch they come in, and an attacker who knows the defense meets
    it, too. It takes a forward pass an image.

    Args:
        purifier: images → images of the same shape.
        seed: in [0, 2³²).
    """

    def __init__(self, purifier: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.purifier, self.seed = purifier, seed

    def forward(self, x: Tensor) -> Tensor:
        """What ``purifier`` makes of ``x`` (N, C, H, W); same shape."""
        purified = []
        for image in x.split(1):
            with seeded(self.seed):
                purified.append(self.purifier(image.clone()))
        return torch.cat(purified)


def gray_box(classifier: nn.Module, defense: nn.Module, *, eot_samples: int = 1) -> nn.Module:
    """The model that an attacker who does not know the defense differentiates through: the bare classifier.

    A threat is a function of a classifier and a defense. It is one YAML in ``conf/threat``, which also says whether
    the attacked images depend on the defense (``knows_defense``), that is, whether defenses can share them.

    Args:
        eot_samples: answers of a random classifier over which logits are averaged (EOT).

    Raises:
        ValueError: an argument out of range.
    """
    return classifier if eot_samples == 1 else ExpectationOverTransformation(classifier, Identity(), eot_samples)


def adaptive(
    classifier: nn.Module, defense: nn.Module, *, eot_samples: int = 1, surrogate: Surrogate = "identity"
) -> nn.Module:
    """The model that an attacker who knows the defense differentiates through: the defended classifier.

    Args:
        eot_samples: answers of a random defense or classifier over which logits are averaged (EOT).
        surrogate: gradient of defenses, and of the parts of a :class:`Chain`, that have none of their own.
            "identity": straight through. "smooth": that of the defense's ``surrogate`` where it has one.

    Raises:
        ValueError: an argument out of range.
    """
    if surrogate not in ("identity", "smooth"):
        raise ValueError(f"surrogate must be identity or smooth; got {surrogate!r}")
    defense = with_surrogates(defense) if surrogate == "smooth" else defense
    return ExpectationOverTransformation(classifier, defense, eot_samples)


def with_surrogates(defense: nn.Module) -> nn.Module:
    """``defense`` with the gradient of its ``surrogate``, part by part where it is a :class:`Chain`."""
    if isinstance(defense, FrozenRandomness):
        return FrozenRandomness(with_surrogates(defense.purifier), defense.seed)
    if isinstance(defense, Chain):
        return Chain(*map(with_surrogates, defense.purifiers))
    return Surrogated(defense) if hasattr(defense, "surrogate") else defense
