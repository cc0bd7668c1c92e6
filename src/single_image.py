"""One image, as people have it, to one as networks take it."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

#: Modes of PIL with 8 bits a value that hold grey, and those that hold colours. An A is an alpha channel.
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "P", "RGBA", "PA")


def as_batch(image: Any) -> Tensor:
    """A batch of one image: float32 (1, C, H, W) in [0, 1].

    Args:
        image: a PIL image of 8 bits a value, grey or in colour, opaque, which is turned as its EXIF orientation says;
            or a NumPy array (H, W), (H, W, C) or (C, H, W) with C = 1 or 3, uint8 or floating point in [0, 1]; or a
            tensor (H, W), (C, H, W) or (1, C, H, W), likewise

    Raises:
        ValueError: it is something else; one line says what.
    """
    if isinstance(image, Image.Image):
        return _scaled(torch.from_numpy(_pixels(image)))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 and image.dtype.kind != "f":
            raise ValueError(f"an array of an image must be uint8, or floating point in [0, 1]; got {image.dtype}")
        values = torch.from_numpy(np.ascontiguousarray(image))
        colours_last = values.ndim == 3 and values.shape[-1] in (1, 3) and values.shape[0] not in (1, 3)
        return _scaled(values.permute(2, 0, 1) if colours_last else values)
    if isinstance(image, Tensor):
        return _scaled(image.detach())
    raise ValueError(f"an image must be a PIL image, a NumPy array or a tensor; got {type(image).__name__}")


def opaque(image: Image.Image) -> Image.Image | None:
    """A picture of 8 bits a value without its alpha channel, if it has one, grey if it was; None if it is transparent
    in places."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    with_alpha = image.convert("RGBA")
    if np.asarray(with_alpha)[..., 3].min() < 255:
        return None
    return with_alpha.convert("L" if image.mode in GREY else "RGB")


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 (C, H, W), upright: a camera may store the picture lying, with a note that says so."""
    if image.mode not in GREY + COLOUR:
        raise ValueError(f"a PIL image must be grey (L) or in colour (RGB); got mode {image.mode}")
    picture = opaque(ImageOps.exif_transpose(image))
    if picture is None:
        raise ValueError("the image is transparent in places; lay it on a background first")
    if image.mode in GREY:
        return np.array(picture.convert("L"))[None]
    return np.array(picture.convert("RGB")).transpose(2, 0, 1)


def _scaled(values: Tensor) -> Tensor:
    shape = tuple(values.shape)
    if values.ndim == 2:
        values = values[None]
    if values.ndim == 3:
        values = values[None]
    if values.ndim != 4 or len(values) != 1 or values.shape[1] not in (1, 3) or 0 in values.shape:
        raise ValueError(f"one image has the shape (H, W), or three sizes with 1 or 3 channels; got {shape}")
    if values.dtype == torch.uint8:
        if values.max() == 1:
            raise ValueError("an image of uint8 must have values from 0 to 255; got 0 and 1 only: multiply by 255")
        return values.float() / 255
    if not values.is_floating_point():
        raise ValueError(f"an image must be uint8, or floating point in [0, 1]; got {values.dtype}")
    low, high = values.amin().item(), values.amax().item()
    if not (low >= 0 and high <= 1):  # false for NaN as well
        raise ValueError(f"an image of floating point must be in [0, 1]; got values from {low:g} to {high:g}")
    return values.float()
