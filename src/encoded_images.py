"""A few images as JSON, kept beside a number to be looked at later."""

import base64
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AfterValidator, PositiveInt
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

if TYPE_CHECKING:  # reports read stored images without PyTorch
    from torch import Tensor

#: Images kept beside a cell or a training record.
EXAMPLES = 10


class _Encoded(TypedDict):
    """A stack of images (N, C, H, W), 8 bits a value."""

    shape: list[PositiveInt]
    uint8: str  #: base64


def _whole(stored: _Encoded) -> _Encoded:
    try:
        values = base64.b64decode(stored["uint8"], validate=True)
    except ValueError as error:
        raise ValueError(f"images that are no base64: {error}") from error
    if len(stored["shape"]) != 4 or prod(stored["shape"]) != len(values):
        raise ValueError(f"images of shape {stored['shape']} in {len(values)} bytes")
    return stored


#: Type of what :func:`encode_images` returns; as a part of a schema it also checks that all pixels are there.
EncodedImages = Annotated[_Encoded, AfterValidator(_whole)]


def of_one_shape(stacks: Mapping[str, _Encoded]) -> bool:
    """Whether the stacks can be shown beside one another."""
    return len({tuple(stack["shape"]) for stack in stacks.values()}) <= 1


def encode_images(images: "Tensor") -> _Encoded:
    """Images (N, C, H, W) in [0, 1] as their shape and base64 of 8-bit values. For the eye: values are rounded and
    clipped."""
    values = (images.detach().cpu().clamp(0, 1) * 255).round().byte().contiguous().numpy()
    return {"shape": list(values.shape), "uint8": base64.b64encode(values.tobytes()).decode()}


def decode_images(stored: _Encoded) -> np.ndarray:
    """What :func:`encode_images` wrote, as float32 (N, C, H, W) in [0, 1]."""
    values = np.frombuffer(base64.b64decode(stored["uint8"]), dtype=np.uint8)
    return values.reshape(stored["shape"]).astype(np.float32) / 255
