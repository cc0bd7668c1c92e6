"""Images as JSON: a few kept beside a number, to be looked at later without computing anything again."""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Images kept beside a cell or a training record.
EXAMPLES = 10


def encode_images(images: Tensor) -> dict[str, Any]:
    """Images (N, C, H, W) in [0, 1] as their shape and base64 of 8-bit values. For the eye: values are rounded and
    clipped."""
    values = (images.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    return {"shape": list(values.shape), "uint8": base64.b64encode(values.numpy().tobytes()).decode()}


def decode_images(stored: dict[str, Any]) -> np.ndarray:
    """What :func:`encode_images` wrote, as float32 (N, C, H, W) in [0, 1]."""
    values = np.frombuffer(base64.b64decode(stored["uint8"]), dtype=np.uint8)
    return values.reshape(stored["shape"]).astype(np.float32) / 255
