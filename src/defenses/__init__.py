"""Purifiers: ``nn.Module``s that map images x to x̂ of the same shape, to be put before the classifier.

They know nothing of attacks. Each passes a gradient: its own where it has one, the straight-through one where it
has none, so that :class:`src.defended.DefendedClassifier` can be attacked as it is.
"""

from src.defenses.autoencoder import AutoencoderPurifier
from src.defenses.bit_depth import BitDepth
from src.defenses.chain import Chain
from src.defenses.diffusion import ReverseDiffusion
from src.defenses.identity import Identity
from src.defenses.jpeg import JPEG
from src.defenses.kmeans import KMeansCompression
from src.defenses.median import MedianFilter
from src.defenses.nonlocal_means import NonLocalMeans
from src.defenses.resize_pad import RandomResizePad
from src.defenses.threshold import Binarize
from src.defenses.total_variation import TotalVariation
from src.defenses.vqvae import VQVAEPurifier

__all__ = [
    "JPEG",
    "AutoencoderPurifier",
    "Binarize",
    "BitDepth",
    "Chain",
    "Identity",
    "KMeansCompression",
    "MedianFilter",
    "NonLocalMeans",
    "RandomResizePad",
    "ReverseDiffusion",
    "TotalVariation",
    "VQVAEPurifier",
]
