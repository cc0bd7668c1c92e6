"""Which numbers a network computes with."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

from src.errors import UserError

Precision = Literal["float32", "bfloat16"]

PRECISIONS: tuple[str, ...] = get_args(Precision)


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which convolutions and dense layers on ``device`` compute in ``precision``.

    "bfloat16" has three digits and is faster on a GPU or a processor with AMX or AVX512-BF16, the more so the larger
    the network, and far slower where it is emulated. "float32" changes nothing: not even what an outer
    context asks for.
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def native_bfloat16(accelerator: str) -> bool:
    """Whether Lightning's ``accelerator`` ("auto", "cpu", "gpu", …) has units for bfloat16 matrices.

    Where there are none it is emulated and takes longer than float32.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions have none
    return accelerator in ("auto", "cpu") and any(capabilities.get(units) for units in ("amx_bf16", "avx512_bf16"))


def chosen(precision: str, accelerator: str) -> Precision:
    """What "auto" comes to: bfloat16 where ``accelerator`` has units for it, else float32. Any other is itself."""
    fast = precision == "bfloat16" or (precision == "auto" and native_bfloat16(accelerator))
    return "bfloat16" if fast else "float32"


def check_device(accelerator: str, precision: str) -> None:
    """Refuse an Apple GPU that is not there, or that lacks the numbers that are asked for, before anything is computed.
    Other devices are left to Lightning.

    Args:
        accelerator: Lightning's name of the device.
        precision: "float32", "bfloat16", or one of Lightning's, such as "bf16-mixed".

    Raises:
        UserError: one line that says what is missing, and what would do.
    """
    if accelerator != "mps":
        return
    if not torch.backends.mps.is_available():
        raise UserError("trainer=mps: PyTorch finds no Apple GPU on this machine; trainer=cpu does without")
    if not precision.startswith(("bf16", "bfloat16", "16")):
        return
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    try:
        torch.ones(1, device="mps", dtype=dtype).add_(1)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"trainer=mps: this Apple GPU or macOS has no {dtype} ({reason}); use float32") from error
