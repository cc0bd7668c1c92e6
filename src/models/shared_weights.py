"""Networks that others may have without training them: a folder of checkpoints with an index, on disk or on the web.

The folder is flat, as the files of a release are: ``index.json``, and a checkpoint for each network. The index says of
each what it is and what it must hash to. The hashes show damage and mistakes. They do not show who made the folder: an
index and its files come from the same place. A checkpoint is opened after its SHA-256 is right, and then with
``weights_only=True``, so it can hold nothing but tensors and plain types.
"""

import hashlib
import http.client
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, FiniteFloat, PositiveInt, TypeAdapter
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from src.data.origins import download
from src.errors import UserError
from src.models.checkpoint import SCHEMA, Provenance, parse_checkpoint
from src.stored import DamagedError, parse

log = logging.getLogger(__name__)

#: Version of the folder's layout.
LAYOUT = 1

INDEX = "index.json"

#: Seconds to wait for a connection, and then for each piece of the answer.
TIMEOUT = 10.0

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class SharedNetwork:
    """What the index says of a network. The types of its fields are also the schema by which an index is checked."""

    data: str  #: the folder that its checkpoint belongs in, such as "mnist"
    name: str  #: of its checkpoint without the ending, such as "vqvae-noise0.5"
    file: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]  #: a name, never a path
    sha256: Hash  #: of the file
    size: PositiveInt  #: in bytes
    model: str  #: as in :class:`src.models.checkpoint.Provenance`, and so are the others
    noise: FiniteFloat | None
    seed: int
    epochs: int
    data_fingerprint: str
    weights: Hash
    schema: int  #: :data:`src.models.checkpoint.SCHEMA`

    @classmethod
    def of(cls, data: str, name: str, content: bytes, provenance: Provenance) -> "SharedNetwork":
        """What is to be said of the checkpoint with this content."""
        common = {field: getattr(provenance, field) for field in _COMMON}
        sha256 = hashlib.sha256(content).hexdigest()
        return cls(data, name, f"{data}-{name}.ckpt", sha256, len(content), **common, schema=SCHEMA)

    def __str__(self) -> str:
        return f"{self.data}/{self.name}"


#: What index and checkpoint say alike.
_COMMON = ("model", "noise", "seed", "epochs", "data_fingerprint", "weights")


class _Layout(TypedDict):
    layout: int


class _Index(TypedDict):
    layout: int
    networks: list[SharedNetwork]


@cache
def _schemas() -> tuple[TypeAdapter[_Layout], TypeAdapter[_Index]]:
    return TypeAdapter(_Layout), TypeAdapter(_Index)


def index_text(networks: Sequence[SharedNetwork]) -> str:
    """The content of ``index.json``."""
    return json.dumps({"layout": LAYOUT, "networks": [asdict(network) for network in networks]}, indent=2) + "\n"


def shared_networks(source: str) -> list[SharedNetwork]:
    """The networks of a folder.

    Args:
        source: its path, or its http(s) address.

    Raises:
        UserError: there is no such folder, it cannot be reached, or its index is damaged or of another version.
    """
    return _index_on_the_web(source) if _is_on_the_web(source) else _index(source)


@lru_cache(maxsize=4)  # a command asks for each network anew
def _index_on_the_web(source: str) -> list[SharedNetwork]:
    return _index(source)


def _index(source: str) -> list[SharedNetwork]:
    layout, index = _schemas()
    content = _content(source, INDEX)
    try:
        version = parse(layout, content)["layout"]
        if version == LAYOUT:
            return parse(index, content)["networks"]
    except DamagedError as error:
        raise UserError(f"{INDEX} of paths.weights={source} is damaged ({error}); fetch or pack it again") from error
    raise UserError(
        f"paths.weights={source} has the layout {version}, and this version knows {LAYOUT}: use the version of this "
        "program that packed it, or pack it again with: python -m src.pack"
    )


def fetched(network: SharedNetwork, source: str, remedy: str) -> bytes:
    """The content of a network's checkpoint, verified; nothing is written.

    Args:
        source: as for :func:`shared_networks`.
        remedy: the command that trains the network, for error messages.

    Raises:
        UserError: it is not to be had, is of another version, or is not what the index says.
    """
    name = f"{network.file} of paths.weights={source}"
    if network.schema != SCHEMA:
        age = "an older" if network.schema < SCHEMA else "a newer"
        raise UserError(f"{name} is of {age} version (schema {network.schema}, not {SCHEMA}); train it with: {remedy}")
    content = _content(source, network.file)
    if (digest := hashlib.sha256(content).hexdigest()) != network.sha256:
        raise UserError(
            f"{name} has SHA-256 {digest} where {network.sha256} is right; it was not kept: fetch the folder again, or "
            f"train it with: {remedy}"
        )
    provenance = parse_checkpoint(content, name, remedy)[1]
    for field in _COMMON:
        if getattr(provenance, field) != getattr(network, field):
            raise UserError(
                f"{name} is another network than its index says ({field} {getattr(provenance, field)}, not "
                f"{getattr(network, field)}); it was not kept: train it with: {remedy}"
            )
    return content


def _is_on_the_web(source: str) -> bool:
    return re.match(r"https?://", source) is not None


def _content(source: str, file: str) -> bytes:
    """The bytes of a file of the folder, unchecked."""
    try:
        if _is_on_the_web(source):
            return download(f"{source.rstrip('/')}/{quote(file)}", None, TIMEOUT)
        return (Path(source).expanduser() / file).read_bytes()
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"paths.weights={source} has no {file} to give ({reason}); name the folder or the http(s) address where "
            f"{INDEX} lies"
        ) from error
