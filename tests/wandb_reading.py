"""Read W&B runs back from disk, and write them from a process that has ended.

`wandb leet inspect --json PATH` (wandb >= 0.31, which dropped `DataStore`) prints the records of a run's `.wandb` log
as JSON lines. The command spends 0.7 s on imports before it calls `wandb-core leet inspect`, so that is called here
itself. Updates of config and summary come with dotted names where values are nested: `grid._type`. A log is complete
only when the process that wrote it has exited.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class LoggedRun:
    """A run as it lies on disk."""

    folder: Path  #: outputs/wandb/offline-run-…
    records: list[dict[str, Any]]  #: all records of its log, in order

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, such as "run", "history", "metric", "artifact" or "exit"."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def start(self) -> dict[str, Any]:
        """What the run was started with: run_id, display_name, project, entity, run_group, job_type, tags, notes."""
        return self.of("run")[0]

    @property
    def config(self) -> dict[str, Any]:
        updates = [self.start.get("config", {}), *self.of("config")]
        merged = {name: value for each in updates for name, value in each.get("update", {}).items()}
        return {name: value for name, value in merged.items() if not name.startswith("_wandb")}

    @property
    def summary(self) -> dict[str, Any]:
        merged = {name: value for each in self.of("summary") for name, value in each.get("update", {}).items()}
        return {name: value for name, value in merged.items() if not name.startswith("_")}

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged step by step."""
        rows = [each["item"] for each in self.of("history")]
        return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]

    @property
    def exit_code(self) -> int | None:
        """0: finished; anything else: failed; None: the process was killed."""
        ends = self.of("exit")
        return ends[-1]["exit_code"] if ends else None

    def media(self, name: str) -> Path:
        """The file of a logged table or image."""
        return self.folder / "files" / self.summary[f"{name}.path"]

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a logged `wandb.Table`."""
        stored = json.loads(self.media(name).read_text(encoding="utf-8"))
        return [dict(zip(stored["columns"], row, strict=True)) for row in stored["data"]]


def read_runs(outputs: Path, job_type: str | None = None) -> list[LoggedRun]:
    """The runs below ``outputs``/wandb, oldest first; those killed before their first record are left out."""
    from wandb.util import get_core_path

    runs = []
    for path in sorted((outputs / "wandb").glob("*run-*/run-*.wandb")):
        arguments = ["leet", "inspect", "--no-observability", "--json", "--run-file", path, outputs / "wandb"]
        lines = subprocess.run([get_core_path(), *arguments], capture_output=True, text=True, check=True).stdout
        run = LoggedRun(path.parent, [json.loads(line) for line in lines.splitlines()])
        if run.of("run") and job_type in (None, run.start.get("job_type")):
            runs.append(run)
    return sorted(runs, key=lambda run: run.start["start_time"])


@dataclass(frozen=True)
class Ended:
    """A process that has exited."""

    result: Any  #: what its function returned, if it returned
    stdout: str
    stderr: str
    code: int  #: its exit status; the negative signal that killed it


class Processes:
    """Runs functions of one module in processes of their own.

    The module's imports take seconds (torch, Lightning), so one process does them and forks for every function.
    """

    def __init__(self, module: str) -> None:
        program = f"from tests.wandb_reading import serve; serve({module!r})"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
        self._server = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout
        self.module_imports_wandb: bool = json.loads(self._server.stdout.readline())

    def run(self, function: str, *arguments: Any, home: Path, **environment: str) -> Ended:
        """Call a function with arguments as plain as JSON and wait for the end of its process.

        It sees no W&B variables but those given, and ``home`` for a home, where no key lies.
        """
        home.mkdir(parents=True, exist_ok=True)
        request = {"function": function, "arguments": arguments, "environment": environment, "home": home}
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request, default=str) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        result = home / "result.json"
        returned = json.loads(result.read_text()) if result.exists() else None
        return Ended(returned, (home / "stdout").read_text(), (home / "stderr").read_text(), code)

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


def serve(module: str) -> None:
    """Say whether ``module`` imports W&B, then fork for every line of input and answer with the exit status."""
    loaded = importlib.import_module(module)
    print(json.dumps("wandb" in sys.modules), flush=True)
    import wandb  # once here, not in each fork

    for line in sys.stdin:
        child = os.fork()
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        code = 1
        try:
            _answer(loaded, json.loads(line))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            # W&B does this at exit. Taking the whole interpreter down would cost a second, and would delete a
            # temporary folder of W&B's that all forks share.
            wandb.teardown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _answer(module: ModuleType, request: dict[str, Any]) -> None:
    home = Path(request["home"])
    (home / "result.json").unlink(missing_ok=True)
    for descriptor, path, flags in (
        (0, Path(os.devnull), os.O_RDONLY),
        (1, home / "stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, home / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        os.dup2(os.open(path, flags, 0o644), descriptor)
    os.environ |= request["environment"] | {"HOME": str(home)}
    returned = getattr(module, request["function"])(*request["arguments"])
    (home / "result.json").write_text(json.dumps(returned))
