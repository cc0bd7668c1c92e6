"""Runs commands in forks of one process that has imported everything already.

A command in a process of its own spends several seconds on importing PyTorch, Lightning and Hydra. A fork of a process
that has them begins at once, and is as separate from the others: its own memory, environment and output.
"""

import atexit
import importlib
import json
import logging
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
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
    "matplotlib.pyplot",
    "src.workflows.certifying",
    "src.workflows.configured",
    "src.workflows.sweeping",
    "src.workflows.training",
    "vl_convert",
    "wandb",
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

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Do what ``python -m module arguments`` does, with the environment of the caller, and wait for its end."""
        assert self._process.stdin and self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("stdout", "stderr")]
            request = {
                "module": module,
                "arguments": arguments,
                "environment": dict(os.environ),
                "streams": [str(stream) for stream in streams],
            }
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            stdout, stderr = (stream.read_text() for stream in streams)
        return subprocess.CompletedProcess([module, *arguments], code, stdout, stderr)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve() -> None:
    """Fork for every line of standard input and answer with the exit status."""
    for module in IMPORTED:
        importlib.import_module(module)
    share_the_charts_library(Path(sys.argv[1]))
    page._charts_library()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


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
