"""The data room: canonical files in, tensors in pixel units out (see `ImageDataModule`)."""

from src.data.datamodule import ImageDataModule

__all__ = ["ImageDataModule"]
