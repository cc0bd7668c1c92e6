"""What the numbers of a user's own component depend on beside its arguments: its code, its files, its weights.

They are marks in the component's identity, under names that no argument has. The project's own components carry none:
a change of what they compute raises :data:`src.evaluation.spec.SCHEMA`.
"""

import hashlib
import inspect
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra._internal.utils import _locate
from torch import Tensor, nn

from src.errors import UserError, is_installed
from src.models.checkpoint import weights_fingerprint
from src.nested import leaves, rebuilt

CODE, FILES, WEIGHTS = MARKS = ("_code_", "_files_", "_weights_")

#: What of Hydra's stands for the object whose name is its ``path``.
BY_PATH = frozenset({"hydra.utils.get_class", "hydra.utils.get_method", "hydra.utils.get_object"})

#: Modules of the project that components name and no package exports.
UNEXPORTED = ("src.attacks.transfer", "src.defended", "src.evaluation.proofs", "src.models.pretrained",
              "src.straight_through")  # fmt: skip


def marked(component: dict[str, Any]) -> dict[str, Any]:
    """``component`` with the hash of the source file that defines what it names, and of each file that one of its
    arguments is the path of. As it is if it is the project's, or an installed package's.

    Other modules that the source file imports are not looked at.
    """
    target = component.get("_target_")
    code = code_of(component.get("path") if target in BY_PATH else target)
    if code is None:
        return component
    files = {
        name: _hash(Path(value)) for name, value in component.items() if isinstance(value, str) and _is_file(value)
    }
    return component | {CODE: code} | ({FILES: files} if files else {})


def code_of(target: Any) -> str | None:
    """SHA-256 of the source file that defines what ``target`` names; None if it is not a user's own."""
    source = _own_source(target)
    return None if source is None else _hash(source)


def has_own_code(component: Any) -> bool:
    """Whether a part of a component, as :func:`marked`, is a user's own."""
    return any(path.rpartition("/")[2] == CODE for path, _ in leaves(component))


def with_state(component: Any, module: Any) -> Any:
    """A user's own ``component``, which built ``module``, with the fingerprint of all tensors in it: its code may read
    weights from where no argument says.

    Raises:
        UserError: its ``state_dict`` holds something else than tensors.
    """
    if not isinstance(module, nn.Module):
        return component
    weights = state_fingerprint(str(component.get("_target_")), module)
    return component if weights is None else component | {WEIGHTS: weights}


def without_marks(component: Any) -> Any:
    """What a component is built from: its target and its arguments."""
    return rebuilt(component, lambda part: {name: value for name, value in part.items() if name not in MARKS})


def state_fingerprint(name: str, module: nn.Module) -> str | None:
    """Of the ``state_dict`` and of buffers that are no part of it; None if there is nothing.

    Raises:
        UserError: something in it is no tensor.
    """
    state = dict(module.named_buffers()) | module.state_dict()
    if keys := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{name}: {keys[0]} in its state_dict is no tensor, so its weights have no fingerprint")
    return weights_fingerprint(state) if state else None


def _own_source(target: Any) -> Path | None:
    """The source file of what ``target`` names; None if it is the project's or an installed package's, or has none."""
    try:
        made = inspect.unwrap(_locate(target))
        owner = getattr(made, "__self__", None)
        made = owner if isinstance(owner, type) else made  # an alternative constructor may be inherited
        if not (inspect.isclass(made) or inspect.isroutine(made)):  # an object: it stands in a module
            return _own_file(inspect.getmodule(_locate(target.rpartition(".")[0])))
        return _own_file(inspect.getmodule(made))
    except Exception:  # no such target, or no Python: whoever builds it says so
        return None


def _own_file(module: ModuleType | None) -> Path | None:
    """The file of a module, unless it is the project's or an installed package's."""
    if module is None or module.__name__ in _our_modules() or not module.__file__:
        return None
    path = Path(module.__file__).resolve()
    return None if is_installed(path) else path


@cache
def _our_modules() -> frozenset[str]:
    """The modules of what the project's packages export, so not those that a user has added to their folders."""
    from src import attacks, defenses, models

    exported = (getattr(package, name) for package in (attacks, defenses, models) for name in package.__all__)
    return frozenset([*UNEXPORTED, *(made.__module__ for made in exported)])


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long, or a zero byte: no path
        return False


def _hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=1024)  # each cell of a grid asks for it
def _hash_of(path: Path, state: tuple[int, ...]) -> str:
    """SHA-256 of a file that is in this state, read once for each."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
