"""Read W&B runs back from disk, and write them from a process that has ended.

`wandb leet inspect --json PATH` (wandb >= 0.31, which dropped `DataStore`) prints the records of a run's `.wandb` log
as JSON lines. The command spends 0.7 s on imports before it calls `wandb-core leet inspect`, so that is called here
itself. Updates of config and summary come with dotted names where values are nested: `grid._type`. A log is complete
only when the process that wrote it has exited.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command_server import CommandServer


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
    """Runs functions of one module in processes of their own, which begin as commands do.

    Args:
        module: its name.
        server: forks the processes.
    """

    def __init__(self, module: str, server: CommandServer) -> None:
        self._module, self._server = module, server

    def run(self, function: str, *arguments: Any, home: Path, **environment: str) -> Ended:
        """Call a function with arguments as plain as JSON and wait for the end of its process.

        It sees no W&B variables but those given, and ``home`` for a home, where no key lies.
        """
        home.mkdir(parents=True, exist_ok=True)
        result = home / "result.json"
        result.unlink(missing_ok=True)
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
        asked = json.dumps([self._module, function, arguments, result], default=str)
        done = self._server.run("tests.called", asked, environment=plain | environment | {"HOME": str(home)})
        returned = json.loads(result.read_text()) if result.exists() else None
        return Ended(returned, done.stdout, done.stderr, done.returncode)
