"""What networks have in common that a frozen classifier guides in training."""

from typing import Any, Self

import torch
from torch import nn

from src.models.traceable import TraceableModule


class Guided(TraceableModule):
    """A network that may be trained for a classifier. The classifier is no part of it, and never changes."""

    _classifier: tuple[nn.Module, ...] = ()  #: at most one; in a tuple: its weights are not this network's

    @classmethod
    def guided_by(cls, classifier: nn.Module, **arguments: Any) -> Self:
        """A network that is trained for ``classifier``, x → logits (N, K), which is frozen here."""
        network = cls(**arguments)
        network._classifier = (classifier.eval().requires_grad_(False),)
        return network

    def on_fit_start(self) -> None:
        for classifier in self._classifier:
            classifier.to(self.device).to(memory_format=torch.channels_last)  # as the network itself, for speed
