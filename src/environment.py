"""Where a number or a network was computed."""

import platform

import lightning
import torch

from src import __version__


def environment_of(device: torch.device) -> dict[str, str]:
    """Versions, hardware and CPU threads by name, to be stored beside what was computed on ``device``.

    The last digits of a sum depend on the processor's instructions and on the number of threads that share it. A
    training multiplies them: with other instructions or threads it ends with other weights.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "defense-vqvae": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "device": gpu or platform.processor() or "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
