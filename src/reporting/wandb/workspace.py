"""The W&B workspace: which panels show what the runs have logged.

A panel is empty if it asks for a name that no run logs. Names that depend on the sweep are therefore taken from its
grid, by the functions that name what is logged.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from src.evaluation.grid import Grid
from src.evaluation.sanity_checks import CheckReport
from src.nested import leaves
from src.reporting.analysis.certified import CertifiedSet
from src.reporting.analysis.facets import Facet, facets
from src.reporting.document.certified import certified_sections
from src.reporting.document.findings import NOTHING_CHECKED, TITLE, check_sentences
from src.reporting.document.key_figures import key_figures, short_title
from src.reporting.document.sections import GridSection, headline, sections
from src.reporting.figures.plan import plan, plan_certified
from src.reporting.wandb.grid import grid_key, line_metrics
from src.reporting.wandb.names import STEP, figure_key
from src.reporting.wandb.settings import WandbSettings

if TYPE_CHECKING:  # they import wandb, and are an extra
    from wandb_workspaces.expr import Or
    from wandb_workspaces.reports.v2 import LinePlot, MediaBrowser
    from wandb_workspaces.workspaces import Section, Workspace

#: Runs that a panel shows; W&B's own limit is 10, less than a small sweep has cells.
MOST_RUNS = 1000
#: From few to many images right: the two ends of a scale that colour-blind people can tell apart.
GRADIENT = {0: "#fde725", 50: "#21918c", 100: "#440154"}
#: What tells one cell from another in a parallel plot, and the columns that stand beside the names of runs.
COORDINATES = ("attack", "eps", "threat", "defense", "noise")
#: A SHA-256.
FINGERPRINT = re.compile("[0-9a-f]{64}")
#: What a cell's time goes to, see :attr:`src.evaluation.cell.Cell.stages`.
STAGES = ("attack", "purify", "classify")


@dataclass(frozen=True)
class Lines:
    """A panel of accuracy against eps: one attack under one threat, a line for each defense and noise."""

    title: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Logged:
    """What is logged under names that depend on the sweep."""

    lines: tuple[Lines, ...] = ()
    figures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: names by topic, such as "heat map"
    certified: bool = False  #: whether there are certificates
    headline: tuple[str, ...] = ()  #: the report's title, what its numbers are worth, and what it says in words
    checks: tuple[str, ...] = ()  #: what was checked, and each reason for suspicion
    keys: tuple[str, ...] = ()  #: of the cells, the grid and the certificates; "key" in the config of their runs
    weights: tuple[str, ...] = ()  #: fingerprints of what was evaluated; "weights" in the config of its training


def logged(grid: Grid, certified: Sequence[CertifiedSet] = (), checks: CheckReport = NOTHING_CHECKED) -> Logged:
    """What the runs of a grid, and of the certificates beside it, have logged.

    Args:
        grid: the rows, computed or missing; may be empty.
        certified: certificates on the grid's data sets.
        checks: what the checks of the grid came to.
    """
    figures: dict[str, list[str]] = {}
    parts = sections(grid)
    for drawing in [*plan(parts, []), *plan_certified(certified_sections(certified))]:
        figures.setdefault(drawing.topic, []).append(figure_key(drawing.name))
    return Logged(
        lines=tuple(line for facet in facets(grid) for line in _lines(facet)),
        figures={topic: tuple(names) for topic, names in figures.items()},
        certified=bool(certified),
        headline=_headline(parts) if parts else (),
        checks=tuple(check_sentences(checks)),
        keys=_keys(grid, certified) if parts else (),
        weights=tuple(sorted(_weights(grid, certified))),
    )


def _headline(parts: Sequence[GridSection]) -> tuple[str, ...]:
    key, title = key_figures(parts), short_title(parts)
    return tuple(dict.fromkeys([title, *([key.warning] if key else []), headline(parts)]))


def _keys(grid: Grid, certified: Sequence[CertifiedSet]) -> tuple[str, ...]:
    cells = dict.fromkeys(row.key for row in grid)
    return (grid_key(grid), *cells, *(certified_set.certification.key for certified_set in certified))


def _weights(grid: Grid, certified: Sequence[CertifiedSet]) -> set[str]:
    """Every fingerprint that the identities hold; most of them are of weights."""
    identities = [row.cell.identity for row in grid if row.cell] + [
        certified_set.certification.identity for certified_set in certified
    ]
    return {
        value
        for identity in identities
        for name, value in leaves(identity)
        if isinstance(value, str) and FINGERPRINT.fullmatch(value) and not name.startswith("data")
    }


def _lines(facet: Facet) -> Iterator[Lines]:
    for attack, metrics in line_metrics(facet).items():
        words = dict.fromkeys([attack, facet.threat, *filter(None, facet.name.split(" · "))])
        yield Lines(" · ".join(words), tuple(metrics))


def workspace(settings: WandbSettings, name: str, logged: Logged) -> "Workspace":
    """Build the workspace; asks nothing of the network.

    Args:
        settings: whose entity and project the runs are in; an entity of None is left empty.
        name: what the workspace is called.
        logged: what is logged under names that depend on the sweep.

    Raises:
        ImportError: ``wandb-workspaces`` is not installed.
        ValueError: W&B does not take the name.
    """
    from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings

    pinned_columns = [f"config:{part}.value" for part in COORDINATES] + ["summary:accuracy"]
    sections = [_grid(logged), _trade_off(logged), _images(logged), _training(), _cost()]
    if logged.certified:
        sections.insert(3, _certified(logged))
    return Workspace(
        entity=settings.entity or "",
        project=settings.project,
        name=name,
        sections=sections,
        settings=WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=RunsetSettings(pinned_columns=pinned_columns, filters=_of_sweep(logged)),
    )


def _of_sweep(sweep: Logged) -> "Or | str":
    """Which runs are shown: those of the sweep alone, whichever sweep computed their cells first. All of them where
    there is no sweep."""
    from wandb_workspaces.expr import Config, Or

    if not sweep.keys:
        return ""
    training_filters = [Config("weights").isin(list(sweep.weights))] if sweep.weights else []
    return Or(Config("key").isin(list(sweep.keys)), *training_filters)


def to_json(built: "Workspace") -> str:
    """A workspace as W&B stores it. The very dump that ``Workspace.save`` sends, which has no public name."""
    return str(built._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1)) + "\n"


def _grid(sweep: Logged) -> "Section":
    from wandb_workspaces.reports.v2 import LinePlot, MarkdownPanel, WeavePanelSummaryTable

    words, suspicion = "\n\n".join(sweep.headline), "\n\n".join(sweep.checks)
    texts = [f"## {words}"] if words else []
    texts += [f"## {TITLE}\n\n{suspicion}"] if suspicion else []
    lines = [
        LinePlot(
            title=f"Accuracy under {line.title}",
            x="eps",
            y=list(line.metrics),
            range_y=(0, 1),
            title_x="eps",
            title_y="accuracy",
        )
        for line in sweep.lines
    ]
    heat_maps = _media("Heat map: accuracy in percent", sweep.figures.get("heat map", ()))
    return _section(
        "Grid",
        [
            *(MarkdownPanel(markdown=text) for text in texts),
            *lines,
            *heat_maps,
            WeavePanelSummaryTable(table_name="grid"),
        ],
        is_open=True,
    )


def _trade_off(sweep: Logged) -> "Section":
    from wandb_workspaces.reports.v2 import (
        Config,
        GradientPoint,
        ParallelCoordinatesPlot,
        ParallelCoordinatesPlotColumn,
        ScatterPlot,
        SummaryMetric,
    )

    colours = [GradientPoint(color=colour, offset=offset) for offset, colour in GRADIENT.items()]
    axes = [ParallelCoordinatesPlotColumn(Config(part), display_name=part) for part in COORDINATES]
    panels = [
        ScatterPlot(
            title="Clean against attacked accuracy",
            x=SummaryMetric("clean_accuracy"),
            y=SummaryMetric("accuracy"),
            range_y=(0, 1),
            legend_template="${run:displayName}",
        ),
        ParallelCoordinatesPlot(
            title="What leads to which accuracy",
            columns=[*axes, ParallelCoordinatesPlotColumn(SummaryMetric("accuracy"), display_name="accuracy")],
            gradient=colours,
        ),
        *_media("What each defense pays and wins", sweep.figures.get("trade-off", ())),
    ]
    return _section("Trade-off", panels, is_open=True)


def _images(sweep: Logged) -> "Section":
    panels = [
        *_media("Original, attacked, purified", ("examples",), columns=2),
        *_media("Each attack and eps, all defenses", sweep.figures.get("images", ()), columns=2),
    ]
    return _section("Images", panels)


def _certified(sweep: Logged) -> "Section":
    from wandb_workspaces.reports.v2 import BarPlot, WeavePanelSummaryTable

    panels = [
        *_media("Certified accuracy against L2 radius", sweep.figures.get("certified", ())),
        BarPlot(title="Average certified radius", metrics=["certified/acr"]),
        BarPlot(title="Certified accuracy at radius 0", metrics=["certified/radius_0"]),
        BarPlot(title="Share of images abstained on", metrics=["certified/abstained"]),
        WeavePanelSummaryTable(table_name="certified/curve_table"),
    ]
    return _section("Certified", panels)


def _training() -> "Section":
    panels = [
        _over_steps("Training loss", "train/loss", log_y=True),
        _over_steps("Validation loss", "val/loss", log_y=True),
        _over_steps("Classifier: validation accuracy", "val/accuracy"),
        _over_steps("VQ-VAE: reconstruction error", "train/reconstruction", "val/reconstruction", log_y=True),
        _over_steps("VQ-VAE: perplexity of the codes", "train/perplexity", "val/perplexity"),
        _over_steps("VQ-VAE: codes in use", "train/codes_used", "val/codes_used"),
        *_media(
            "VQ-VAE: what it is shown, and makes of it",
            ("examples/original", "examples/noisy", "examples/reconstruction"),
        ),
    ]
    return _section("Training", panels)


def _cost() -> "Section":
    from wandb_workspaces.reports.v2 import BarPlot, Config, ScatterPlot, SummaryMetric

    stages: dict[str, Any] = {
        "metrics": [f"seconds/{stage}" for stage in STAGES],
        "groupby_aggfunc": "mean",
        "title_x": "seconds",
    }
    panels = [
        BarPlot(title="Seconds a cell by stage, each defense", groupby=Config("defense"), **stages),
        BarPlot(title="Seconds a cell by stage, each attack", groupby=Config("attack"), **stages),
        ScatterPlot(
            title="Seconds against accuracy",
            x=SummaryMetric("seconds"),
            y=SummaryMetric("accuracy"),
            legend_template="${run:displayName}",
        ),
    ]
    return _section("Cost", panels)


def _section(name: str, panels: Sequence[Any], is_open: bool = False) -> "Section":
    from wandb_workspaces.workspaces import Section, SectionLayoutSettings

    rows = -(-len(panels) // 3)  # else all but the first pages of panels are hidden
    return Section(name=name, panels=list(panels), is_open=is_open, layout_settings=SectionLayoutSettings(3, rows))


def _media(title: str, keys: Sequence[str], columns: int = 1) -> "list[MediaBrowser]":
    """A panel of images, or none if there are none to show."""
    from wandb_workspaces.reports.v2 import MediaBrowser

    return [MediaBrowser(title=title, media_keys=list(keys), num_columns=columns)] if keys else []


def _over_steps(title: str, *metrics: str, log_y: bool = False) -> "LinePlot":
    from wandb_workspaces.reports.v2 import LinePlot

    return LinePlot(title=title, x=STEP, y=list(metrics), log_y=log_y or None)
