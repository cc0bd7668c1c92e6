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
from multiprocessing import util as multiprocessing_util
from pathlib import Path
from typing import Any, NoReturn

from src.reporting.page import page
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
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            requests = [
                {
                    "module": module,
                    "arguments": arguments,
                    "environment": dict(os.environ) if environment is None else environment,
                    "streams": [str(Path(folder, f"{name}-{i}")) for name in ("stdout", "stderr")],
                }
                for i, (module, *arguments) in enumerate(commands)
            ]
            self._process.stdin.write(json.dumps(requests) + "\n")
            self._process.stdin.flush()
            codes = json.loads(self._process.stdout.readline())
            said = [[Path(stream).read_text() for stream in request["streams"]] for request in requests]
        return [
            subprocess.CompletedProcess(list(command), code, stdout, stderr)
            for command, code, (stdout, stderr) in zip(commands, codes, said, strict=True)
        ]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Fork for every command of a line of standard input and answer with their exit statuses."""
    for module in IMPORTED:
        importlib.import_module(module)
    print(json.dumps("wandb" in sys.modules), flush=True)
    import wandb  # noqa: F401 - once here, not in each fork

    share_the_charts_library(Path(sys.argv[1]))
    page._charts_library()
    gc.freeze()  # so that forks share what is here with this process
    for line in sys.stdin:
        children = []
        for request in json.loads(line):
            child = os.fork()
            if child == 0:
                _run(request)
            children.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


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
