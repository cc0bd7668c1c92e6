"""Weights & Biases: one run that holds the whole grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.evaluation import Coordinates
from src.evaluation.grid import COLUMNS, Grid
from src.evaluation.sanity_checks import CheckReport, Finding
from src.evaluation.spec import Column, content_key, number
from src.nested import leaves
from src.reporting.analysis.facets import Facet, facets
from src.reporting.analysis.labels import column_label, listed
from src.reporting.document.findings import NOTHING_CHECKED, check_sentences
from src.reporting.document.key_figures import short_title
from src.reporting.document.sections import sections
from src.reporting.wandb.artifacts import Weights, log_files, use_weights
from src.reporting.wandb.cells import group_of
from src.reporting.wandb.names import identifier, images_of
from src.reporting.wandb.session import RunPlan, log_run
from src.reporting.wandb.settings import WandbSettings

if TYPE_CHECKING:  # see wandb_session
    from wandb import Run


def log_grid(
    grid: Grid,
    figures: list[Path],
    settings: WandbSettings,
    files: Mapping[str, Path] | None = None,
    weights: Sequence[Weights] = (),
    checks: CheckReport = NOTHING_CHECKED,
) -> bool:
    """Log a grid as one run: its table, its accuracy-vs-eps lines, the figures, what its checks found; its report as an
    artifact, and that it used these weights.

    The lines are there twice: as one W&B chart an attack under ``curves/``, and as metrics ``<attack>/<defense>``
    over ``eps``, which native panels draw.

    Args:
        grid: the rows, computed or missing.
        figures: image files; those that do not exist are left out.
        settings: where to.
        files: of the report, by their names within its artifact, whose type is ``grid``.
        weights: what the cells were computed with, as far as it is there. An own classifier has no file; like all
            weights it is named in the config by its fingerprint.
        checks: what the checks of the grid came to. The summary says how many reasons for suspicion there are, and each
            is a row of the table ``findings``.

    Returns:
        Whether a run was written: False if this very grid is already logged, or if W&B failed.
    """

    def fill(run: "Run") -> None:
        curves = [curve for facet in facets(grid) for curve in _curves(facet)]
        found = {"findings": _findings_table(checks.findings)} if checks.findings else {}
        run.log({"grid": _table(grid)} | found | _charts(curves))
        _log_lines(run, curves)
        if pictures := images_of(figures):
            run.log(pictures)
        run.summary.update(_summary(grid, curves) | _checks_summary(checks))
        use_weights(run, weights)
        log_files(run, "-".join(filter(None, ["grid", _group(grid)])), "grid", files or {})

    sentences = check_sentences(checks)

    def planned() -> RunPlan:
        return RunPlan(
            # With what is suspicious: a check that is made later may find something in the very same numbers
            content={"grid": grid.to_csv()} | ({"checks": sentences} if sentences else {}),
            name=f"grid of {len(grid)} cells",
            job_type="grid",
            group=_group(grid),
            config=_shared_config(grid) | {"key": grid_key(grid)},
        )

    return log_run("the grid", planned, fill, settings)


def grid_key(grid: Grid) -> str:
    """What tells the run of this grid from those of others: "key" in its config."""
    return content_key({"grid": grid.to_csv()})


def _group(grid: Grid) -> str | None:
    """The group of the grid's cells; of the first, where there are several."""
    first = next((row for row in grid if row.cell), next(iter(grid), None))
    return group_of(first.coordinates, first.cell.identity if first.cell else {}) if first else None


def _shared_config(grid: Grid) -> dict[str, Any]:
    """Each coordinate's value and the classifier's fingerprint, or the list of values where they differ."""
    values = {name: grid.values(name) for name in Coordinates.__dataclass_fields__} if len(grid) else {}
    for row in grid:
        for name, value in leaves({"classifier": row.cell.identity.get("classifier")} if row.cell else {}):
            entries = values.setdefault(name, [])
            entries += [value] if value not in entries else []
    return {name: distinct[0] if len(distinct) == 1 else distinct for name, distinct in values.items()}


@dataclass(frozen=True)
class _Curve:
    """Accuracy over eps of one column of the grid under one attack, as far as it is computed."""

    attack: str
    label: str
    points: list[tuple[float, float]]  #: (eps, accuracy), by eps

    @property
    def metric(self) -> str:
        """``ifgsm/vqvae_0_25``. W&B takes dots for nesting, and its queries know no blanks."""
        return "/".join(identifier(part) for part in (self.attack, self.label))


def _curves(facet: Facet) -> Iterator[_Curve]:
    for attack in facet.attacks:
        for column in facet.columns:
            cells = [(eps, facet.cell(attack, eps, column)) for eps in facet.budgets(attack)]
            points = [(float(eps), cell.accuracy) for eps, cell in cells if cell]
            if points:
                yield _Curve(attack, _label(facet, column), points)


def _label(facet: Facet, column: Column) -> str:
    """``vqvae 0.25 adaptive``."""
    return f"{column_label(*column)} {facet.suffix.strip('-')}".rstrip()


def line_metrics(facet: Facet) -> dict[str, list[str]]:
    """Under which names :func:`log_grid` logs the lines of a part of a grid, by attack; each over ``eps``."""
    names: dict[str, list[str]] = {}
    for curve in _curves(facet):
        names.setdefault(curve.attack, []).append(curve.metric)
    return names


def _table(grid: Grid) -> Any:
    """``grid.csv`` as a W&B table: what is missing is None."""
    import wandb

    rows = [row.columns() for row in grid]
    return wandb.Table(columns=list(COLUMNS), data=[[row[name] for name in COLUMNS] for row in rows])


def _findings_table(findings: Sequence[Finding]) -> Any:
    """A row for each reason for suspicion: the check, the cell that it was found at, and the reason."""
    import wandb

    rows = [[finding.name, str(finding.where), finding.message] for finding in findings]
    return wandb.Table(columns=["check", "cell", "reason"], data=rows)


def _charts(curves: list[_Curve]) -> dict[str, Any]:
    """One chart an attack, a line a defense."""
    import wandb

    charts = {}
    for attack in dict.fromkeys(curve.attack for curve in curves):
        lines = [curve for curve in curves if curve.attack == attack]
        charts[f"curves/{identifier(attack)}"] = wandb.plot.line_series(
            xs=[[eps for eps, _ in line.points] for line in lines],
            ys=[[accuracy for _, accuracy in line.points] for line in lines],
            keys=[line.label for line in lines],
            title=f"accuracy under {attack}",
            xname="eps",
        )
    return charts


def _log_lines(run: "Run", curves: list[_Curve]) -> None:
    """The curves as metrics with eps for a step, so that W&B's own panels draw them."""
    run.define_metric("eps", hidden=True)
    for curve in curves:
        run.define_metric(curve.metric, step_metric="eps")
    for eps in sorted({eps for curve in curves for eps, _ in curve.points}):
        accuracies = {curve.metric: dict(curve.points)[eps] for curve in curves if eps in dict(curve.points)}
        run.log({"eps": eps} | accuracies)


def _checks_summary(checks: CheckReport) -> dict[str, int | str]:
    """How many reasons for suspicion there are, and how much was checked; empty where there was nothing to check."""
    sentences = check_sentences(checks)
    return {"suspicious": len(checks.findings), "checks": sentences[0]} if sentences else {}


def _summary(grid: Grid, curves: list[_Curve]) -> dict[str, float | str]:
    """The title of the report, how much of the grid is there, the lowest accuracy of each column under any attack of
    the grid, and the columns where that is highest and lowest. A column with a missing cell has no lowest accuracy."""
    numbers: dict[str, float | str] = {"headline": short_title(sections(grid))}
    numbers |= {"cells": len(grid), "missing": len(grid.missing)}
    attacks = grid.without_proofs.values("attack")
    missing = [(facet, row) for facet in facets(grid) for row in facet.grid.without_proofs.missing]
    incomplete = {_label(facet, row.coordinates.column) for facet, row in missing}
    worst: dict[str, float] = {}
    for curve in curves:
        if curve.attack in attacks and curve.label not in incomplete:
            least = min(accuracy for _, accuracy in curve.points)
            worst[curve.label] = min(least, worst.get(curve.label, least))
    for name, choose in (("best", max), ("worst", min)) if worst else ():
        label = choose(worst, key=lambda column: worst[column])
        column_note = f"{label}, the least under {listed(attacks)} up to eps {number(max(grid.values('eps')))}"
        numbers |= {f"{name}_accuracy": worst[label], f"{name}_accuracy_of": column_note}
    return numbers | {f"worst/{identifier(label)}": accuracy for label, accuracy in worst.items()}
