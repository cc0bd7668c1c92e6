"""Images: what passes for a batch of them."""

import torch
from torch import Tensor

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
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # torch does not export it by name
    return traced or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
