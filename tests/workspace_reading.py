"""Read a W&B workspace as it lies on disk, and see which of its panels would find nothing in the runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wandb_reading import LoggedRun


@dataclass(frozen=True)
class Panel:
    """A panel of a workspace."""

    section: str
    kind: str  #: W&B's word for it, such as "Bar Chart"
    config: dict[str, Any]

    @property
    def title(self) -> str:
        return self.config.get("chartTitle", self.kind)

    def unmet(self, runs: Sequence[LoggedRun]) -> list[str]:
        """What it asks for that no run has logged.

        Raises:
            KeyError: a kind of panel that this does not know.
        """
        wants = {
            "Run History Line Plot": self._line_plot,
            "Scatter Plot": self._scatter_plot,
            "Bar Chart": self._bar_chart,
            "Parallel Coordinates Plot": self._parallel_plot,
            "Media Browser": self._media,
            "Weave": self._table,
            "Markdown Panel": list,
        }[self.kind]()
        return [" with ".join(want) for want in wants if not any(_has(run, want) for run in runs)]

    def _line_plot(self) -> list[tuple[str, ...]]:
        return [(f"history:{self.config['xAxis']}", f"history:{metric}") for metric in self.config["metrics"]]

    def _scatter_plot(self) -> list[tuple[str, ...]]:
        return [(self.config["xAxis"], self.config["yAxis"])]

    def _bar_chart(self) -> list[tuple[str, ...]]:
        group = [f"config:{self.config['groupBy']}"] if "groupBy" in self.config else []
        return [(f"summary:{metric}", *group) for metric in self.config["metrics"]]

    def _parallel_plot(self) -> list[tuple[str, ...]]:
        return [tuple(column["accessor"] for column in self.config["columns"])]

    def _media(self) -> list[tuple[str, ...]]:
        return [(f"media:{key}",) for key in self.config["mediaKeys"]]

    def _table(self) -> list[tuple[str, ...]]:
        return [(f"table:{self.config['panel2Config']['exp']['fromOp']['inputs']['key']['val']}",)]


def _has(run: LoggedRun, names: Sequence[str]) -> bool:
    """Whether one run has all of these, those of its history in one step."""
    parts = [name.split(":", 1) for name in names]
    logged = {name for kind, name in parts if kind == "history"}
    in_a_step = not logged or any(logged <= row.keys() for row in run.history)
    return in_a_step and all(_holds(run, kind, name) for kind, name in parts if kind != "history")


def _holds(run: LoggedRun, kind: str, name: str) -> bool:
    if kind == "config":
        assert name.endswith(".value")
        return run.config.get(name.removesuffix(".value")) is not None
    if kind == "summary":
        return isinstance(run.summary.get(name), int | float)
    return (
        run.summary.get(f"{name}._type")
        in {"media": ("image-file", "images/separated"), "table": ("table-file",)}[kind]
    )


def panels(stored: dict[str, Any]) -> list[Panel]:
    """All panels of a stored workspace, in order."""
    return [
        Panel(section["name"], panel["viewType"], panel["config"])
        for section in sections(stored)
        for panel in section["panels"]
    ]


def sections(stored: dict[str, Any]) -> list[dict[str, Any]]:
    return stored["spec"]["section"]["panelBankConfig"]["sections"]


def read_workspace(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
