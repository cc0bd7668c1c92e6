"""The networks: the classifier under protection, the noise-augmented VQ-VAE and its rivals, all LightningModules."""

from src.models.autoencoder import VAE, Autoencoder
from src.models.certified_vqvae import CertifiedVQVAE
from src.models.classifier import Classifier
from src.models.diffusion import DiffusionModel
from src.models.loading import load_classifier
from src.models.quantizer import EMAQuantizer, Quantized
from src.models.robust_vqvae import RobustVQVAE
from src.models.smooth_vqvae import SmoothVQVAE
from src.models.vqvae import VQVAE

__all__ = [
    "VAE",
    "VQVAE",
    "Autoencoder",
    "CertifiedVQVAE",
    "Classifier",
    "DiffusionModel",
    "EMAQuantizer",
    "Quantized",
    "RobustVQVAE",
    "SmoothVQVAE",
    "load_classifier",
]
