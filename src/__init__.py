"""defense-vqvae: what an input-purification defense gives back to a frozen classifier under attack."""

__version__ = "0.1.0"
