"""Runs commands in forks of one process that has imported everything already.

A command in a process of its own spends several seconds on importing PyTorch, Lightning and Hydra. A fork of a process
that has them begins at once, and is as separate from the others: its own memory, environment and output.
"""

import atexit
import gc
import importlib
import json
import logging
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from typing import Any, NoReturn

from src.reporting.page import page
from tests.parsing import compose_all, parse_once
from tests.shared_work import share_the_charts_library

#: What a command imports sooner or later.
IMPORTED = (
    "torch",
    "torchmetrics.classification",
    "lightning",
    "src.workflows.certifying",
    "src.workflows.configured",
    "src.workflows.sweeping",
    "src.workflows.training",
    "vl_convert",
    "tests.reporting.wandb.wandb_writing",
)


class CommandServer:
    """A process that forks for each command.

    Args:
        folder: the working folder of the commands.
        shared: where what all processes share lies.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.command_server import serve; serve()", shared],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        #: Whether W&B comes with what a command imports.
        self.imports_wandb: bool = json.loads(self._process.stdout.readline())

    def run(
        self, module: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Do what ``python -m module arguments`` does and wait for its end.

        Args:
            environment: of the command; unless given, that of the caller.
        """
        (done,) = self.run_at_once((module, *arguments), environment=environment)
        return done

    def run_at_once(
        self, *commands: Sequence[str], environment: dict[str, str] | None = None
    ) -> list[subprocess.CompletedProcess[str]]:
        """As :meth:`run`, several commands at the same time, each (module, *arguments)."""
        started = [self.start(*command, environment=environment) for command in commands]
        return [command.wait() for command in started]

    def start(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> "StartedCommand":
        """As :meth:`run`, without waiting for the end."""
        folder = tempfile.TemporaryDirectory()
        streams = [str(Path(folder.name, name)) for name in ("stdout", "stderr")]
        environment = dict(os.environ) if environment is None else environment
        request = {"module": module, "arguments": arguments, "environment": environment, "streams": streams}
        return StartedCommand(self, self.ask("fork", request), [module, *arguments], folder)

    def ask(self, what: str, about: Any) -> Any:
        """The answer of the process to a request."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([what, about]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class StartedCommand:
    """A command in a fork of its own. It is an ordinary process, which signals reach."""

    def __init__(
        self, server: CommandServer, pid: int, command: list[str], folder: tempfile.TemporaryDirectory[str]
    ) -> None:
        self.pid = pid
        self._server, self._command, self._folder = server, command, folder

    def has_ended(self) -> bool:
        """Whether the process is no more; it still has to be waited for."""
        return self._server.ask("has ended", self.pid)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end, its status (negative: the signal that killed it) and what it said."""
        code = self._server.ask("wait", self.pid)
        said = [Path(self._folder.name, name).read_text() for name in ("stdout", "stderr")]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self._command, code, *said)


def serve() -> None:
    """Answer requests, one a line of standard input: fork for a command, and say how it ended."""
    for module in IMPORTED:
        importlib.import_module(module)
    print(json.dumps("wandb" in sys.modules), flush=True)
    with suppress(ImportError):  # a module of W&B's own, which a run imports when it starts; that takes a second
        importlib.import_module("wandb.sdk.launch.inputs.internal")

    share_the_charts_library(Path(sys.argv[1]))
    page._charts_library()
    parse_once()
    compose_all()
    gc.freeze()  # so that forks share what is here with this process
    answers = {"fork": _fork, "has ended": _has_ended, "wait": _wait}
    for line in sys.stdin:
        what, about = json.loads(line)
        print(json.dumps(answers[what](about)), flush=True)


def _fork(request: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        _run(request)
    return child


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(request: dict[str, Any]) -> NoReturn:
    """Run one command in this fork, and end the fork."""
    code = 1
    try:
        for descriptor, path in zip((1, 2), request["streams"], strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(request["environment"])
        atexit._clear()  # what the imports registered belongs to the server
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = _exit_code(exit_)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # W&B's among them
        multiprocessing_util._exit_function()  # type: ignore[attr-defined]
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code(exit_: SystemExit) -> int:
    """What the interpreter makes of ``sys.exit(…)``: a text goes to standard error and counts as failure."""
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(exit_.code, file=sys.stderr)
    return 1
