"""What every command does the same way: where the configuration lies, and what an error looks like."""

import errno
import logging
import os
import pickle
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import omegaconf.base
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import UserError
from src.workflows.arguments import in_one_piece
from src.workflows.cli_help import groups, options, values
from src.workflows.console import help_as_text, print_whatever_comes
from src.workflows.error_messages import of_a_choice, one_line
from src.workflows.memory import keep_freed_memory
from src.workflows.schema import Settings
from src.workflows.settings import checked

#: Absolute, because a relative path means something else from a console script than from ``python -m``.
CONFIG_PATH = str(Path(__file__).resolve().parents[2] / "conf")

#: Where Hydra finds our sweeper.
PLUGINS = str(Path(__file__).resolve().parents[1] / "plugins")

#: What the system says of a folder that cannot be written, whoever tried: Hydra, Lightning or we.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}

#: Remembers, for this process and its workers, whether the user asked for tracebacks.
TRACEBACK = "DEFENSE_VQVAE_TRACEBACK"

INTERRUPTED = 130  # what shells report after Ctrl-C
BROKEN_PIPE = 141  # and of a program whose reader went away

# Our conf/hydra/launcher/joblib.yaml is merged into the plugin's entry of that name, and is meant to be. Said here, at
# import, because workers compose their configuration before they call anything of ours.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def register_resolvers() -> None:
    """Make the interpolations that our YAML files use known to OmegaConf. Safe to call again."""
    OmegaConf.register_new_resolver("plain", plain_number, replace=True)
    OmegaConf.register_new_resolver("replicate", replicate_suffix, replace=True)
    OmegaConf.register_new_resolver("other_seed", other_seed, replace=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("data_options", data_options, replace=True)
    OmegaConf.register_new_resolver("groups", groups, replace=True)  # these three are for the help in conf/base.yaml
    OmegaConf.register_new_resolver("options", options, replace=True)
    OmegaConf.register_new_resolver("values", values, replace=True)
    _parse_interpolations_once()


def _parse_interpolations_once() -> None:
    """Let OmegaConf remember how an interpolation reads, which takes it longer to find out than all else it does with a
    configuration. What it keeps is only looked at."""
    names = vars(omegaconf.base)
    if not hasattr(names["parse"], "cache_info"):
        names["parse"] = lru_cache(maxsize=4096)(names["parse"])


def plain_number(value: object) -> str:
    """The shortest way to write a number, so that 0.50, 5e-1 and 0.5 name one file; other text stays as it is."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def replicate_suffix(seed: object) -> str:
    """Seed 0 is the reference and has plain file names; other seeds lie beside it."""
    return "" if str(seed) in ("0", "None") else f"-seed{seed}"


def folder_name(path: object) -> str:
    """What data in ``path``, a folder or an .npz file, are called: its name, fit to be that of a folder of ours."""
    resolved = Path(str(path)).expanduser().resolve()
    return re.sub(r"[^\w.-]+", "_", resolved.stem if resolved.suffix == ".npz" else resolved.name).strip(".") or "data"


def data_options(name: str, *, _root_: DictConfig) -> str:
    """What to type for the data and the folders of this command, such as ``data=folder data.root=digits``.

    Args:
        name: of the data set; used where Hydra did not compose the configuration.
    """
    hydra_config = _root_.get("hydra") or (HydraConfig.get() if HydraConfig.initialized() else None)
    if hydra_config is None:
        return f"data={name}"
    lines = [line.lstrip("+") for line in hydra_config.overrides.task]
    values = [line for line in lines if line.startswith(("data.", "paths.")) and not line.startswith("paths.weights")]
    choice = hydra_config.runtime.choices.get("data", name)
    return " ".join([f"data={choice}", *map(shlex.quote, values)])


def other_seed(seed: int) -> int:
    """The seed of the network that stands in for the one of ``seed`` where an attacker cannot look into it."""
    return seed + 1


def run(command: Callable[[], object]) -> None:
    """Run a ``@hydra.main`` function; the user's mistakes become one line on stderr and exit code 1.

    Options and overrides may stand in any order. With HYDRA_FULL_ERROR=1 set by the user, everything is a traceback, as
    Hydra's users know it.
    """
    os.environ[TRACEBACK] = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors in its own way before we see them
    logging.raiseExceptions = os.environ[TRACEBACK] == "1"  # a log file on a full disk: one line, not one trace a line
    register_resolvers()
    sys.argv[1:] = in_one_piece(sys.argv[1:])
    if PLUGINS not in sys.path:
        sys.path.append(PLUGINS)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), PLUGINS]))  # for workers
    print_whatever_comes()
    try:
        with one_line_errors(), help_as_text():
            command()
    except BrokenPipeError:  # of ``--help | head``; Python writes once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with one line on what the user can mend; let everything else through, traceback and all."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        message = None if os.environ.get(TRACEBACK) == "1" else message_for_user(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def message_for_user(error: Exception) -> str | None:
    """What to say of an error that the user can mend; None of any other."""
    if isinstance(error, UserError | HydraException | OmegaConfBaseException):
        return one_line(error)
    if plugin := re.match(r"Unknown plugin class : 'hydra_plugins\.(\w+)\.", str(error)):
        package = plugin[1].replace("_", "-")
        return f"a plugin of Hydra is not installed: pip install {package} --constraint constraints.txt"
    if isinstance(error, ValueError):  # Hydra's, of a group
        return of_a_choice(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        path = error.filename or "below paths.outputs"
        return f"cannot write {path}: {error.strerror}; make room or set paths.outputs elsewhere"
    return None


@contextmanager
def job(config: DictConfig | None = None, schema: type[Settings] | None = None) -> Iterator[None]:
    """What the body of every Hydra job runs in.

    Commands that run Lightning give their ``config`` and ``schema``: it is quieted, and a single job's configuration
    checked before it is imported, so that whoever mistyped a value need not wait.

    A single job exits on an error before Hydra can add lines of its own. A job of a multirun must not: it would take
    the others with it.
    """
    register_resolvers()  # this may be a worker process of a parallel launcher
    print_whatever_comes()
    _use_the_launchers_share_of_cores()
    keep_freed_memory()
    is_single = HydraConfig.get().mode == RunMode.RUN
    with one_line_errors() if is_single else _portable_errors():
        if config is not None and schema is not None:
            if is_single:
                checked(config, schema)
            from src.workflows.quiet import quiet_libraries  # here, because Lightning is slow to import

            quiet_libraries()
        yield


def _use_the_launchers_share_of_cores() -> None:
    """Submitit reserves ``cpus_per_task`` and tells nobody; the other launchers set the threads of their workers. To be
    called before PyTorch is imported, which reads the variable once."""
    threads = HydraConfig.get().launcher.get("cpus_per_task")
    if threads and HydraConfig.get().mode == RunMode.MULTIRUN:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@contextmanager
def _portable_errors() -> Iterator[None]:
    """Let errors through that can be sent to another process. A parallel launcher would die of any other, and with it
    the jobs that are running."""
    try:
        yield
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
