"""Classifier ∘ defense: the meeting point with the attack libraries, and with what an attacker may know."""

from torch import Tensor, nn


class DefendedClassifier(nn.Module):
    """x in [0, 1] → logits: ``classifier(defense(x))``, a plain module that any attack library takes as it is.

    Both parts are frozen: in ``eval()``, which ``train()`` does not change, and without parameter gradients.
    The gradient with respect to x is that of the composition, straight through what has none.

    Args:
        classifier: images (N, C, H, W) in [0, 1] → logits (N, K).
        defense: images → images of the same shape.
    """

    def __init__(self, classifier: nn.Module, defense: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.defense = defense
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "DefendedClassifier":
        """Stay in ``eval()``: attack libraries toggle the mode, and dropout would blur their gradients."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of ``x`` (N, C, H, W)."""
        return self.classifier(self.defense(x))


def gray_box(classifier: nn.Module, defense: nn.Module) -> nn.Module:
    """What the attacker differentiates through who does not know of the defense: the bare classifier.

    A threat is a function of this signature. It is one YAML in ``conf/threat``, which also says whether the
    attacked images depend on the defense (``knows_defense``), that is, whether defenses can share them.
    """
    return classifier
