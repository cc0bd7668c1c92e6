"""Images: what passes for a batch of them, and a few as JSON, kept beside a number to be looked at later."""

import base64
import binascii
from collections.abc import Mapping
from math import prod
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, PositiveInt
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

#: Images kept beside a cell or a training record.
EXAMPLES = 10

#: Pixels in [0, 1] stay below this value. Noise may take some above it, but then it takes others below 0.
TOO_LARGE = 2.0


class ImageCheck:
    """Refuses a batch that cannot be images in [0, 1].

    Shape and type are checked on every call. Values are checked on every call on the CPU, where it takes microseconds,
    and once on other devices, where the program would have to wait for the device each time. Nothing is checked while
    a model is traced or compiled.
    """

    def __init__(self) -> None:
        self._looked = False

    def __call__(self, x: Tensor) -> None:
        """
        Args:
            x: images (N, C, H, W), float32 or float64, in [0, 1]. Noise may have taken them out of that range.

        Raises:
            ValueError: the batch is of another shape or type, or has the values 0 to 255.
        """
        if is_traced():
            return
        if x.ndim != 4:
            raise ValueError(f"images must have the shape (N, C, H, W); got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"images must be floating point in [0, 1]; got {x.dtype}: divide by 255 first")
        if x.element_size() < 4 and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"images must be float32; got {x.dtype}, which rounds pixels: call .float() on them first")
        if x.numel() and (x.device.type == "cpu" or not self._looked):
            self._looked = True
            highest = x.detach().amax().item()
            if highest > TOO_LARGE and (lowest := x.detach().amin().item()) >= 0:
                raise ValueError(f"images must be in [0, 1]; got {lowest:g} to {highest:g}: divide by 255 first")


def check_purified(x_hat: Tensor, x: Tensor) -> None:
    """Refuse what a defense made of images ``x`` (N, C, H, W) if its shape is another.

    Raises:
        ValueError: it is.
    """
    if not is_traced() and x_hat.shape != x.shape:
        raise ValueError(
            f"the defense turned images {tuple(x.shape)} into {tuple(x_hat.shape)}; sizes must be the same"
        )


def is_traced() -> bool:
    """Whether a model is being traced, exported or compiled, where values cannot be looked at."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


class _Encoded(TypedDict):
    """A stack of images (N, C, H, W), 8 bits a value."""

    shape: list[PositiveInt]
    uint8: str  #: base64


def _whole(stored: _Encoded) -> _Encoded:
    try:
        values = base64.b64decode(stored["uint8"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"images that are no base64: {error}") from error
    if len(stored["shape"]) != 4 or prod(stored["shape"]) != len(values):
        raise ValueError(f"images of shape {stored['shape']} in {len(values)} bytes")
    return stored


#: Type of what :func:`encode_images` returns; as a part of a schema it also checks that all pixels are there.
EncodedImages = Annotated[_Encoded, AfterValidator(_whole)]


def of_one_shape(stacks: Mapping[str, _Encoded]) -> bool:
    """Whether the stacks can be shown beside one another."""
    return len({tuple(stack["shape"]) for stack in stacks.values()}) <= 1


def encode_images(images: Tensor) -> _Encoded:
    """Images (N, C, H, W) in [0, 1] as their shape and base64 of 8-bit values. For the eye: values are rounded and
    clipped."""
    values = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return {"shape": list(values.shape), "uint8": base64.b64encode(values.numpy().tobytes()).decode()}


def decode_images(stored: _Encoded) -> np.ndarray:
    """What :func:`encode_images` wrote, as float32 (N, C, H, W) in [0, 1]."""
    values = np.frombuffer(base64.b64decode(stored["uint8"]), dtype=np.uint8)
    return values.reshape(stored["shape"]).astype(np.float32) / 255
