"""Purifiers: ``nn.Module``s that map images x to x̂ of the same shape, to be put before the classifier.

They know nothing of attacks. Each passes a gradient: its own where it has one, the straight-through one where it
has none, so that :class:`src.defended.DefendedClassifier` can be attacked as it is.
"""

from src.defenses.chain import Chain
from src.defenses.identity import Identity
from src.defenses.kmeans import KMeansCompression
from src.defenses.threshold import Binarize
from src.defenses.vqvae import VQVAEPurifier

__all__ = ["Binarize", "Chain", "Identity", "KMeansCompression", "VQVAEPurifier"]
