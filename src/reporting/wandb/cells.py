"""Weights & Biases: a run for every cell.

The weights that a cell was computed with are named in its config by their fingerprint, and not used as artifacts: for
the hundreds of cells of a sweep the grid's run does that once.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from src.encoded_images import decode_images
from src.evaluation import Cell, CellSpec, Coordinates
from src.nested import leaves
from src.reporting.wandb.session import RunPlan, log_run
from src.reporting.wandb.settings import WandbSettings

if TYPE_CHECKING:  # see wandb_session
    from wandb import Run

#: The threat that the names of runs leave out.
USUAL_THREAT = "gray_box"
#: What runs of clean cells have for an attack.
NO_ATTACK = "none"


def log_cell(cell: Cell, coordinates: Coordinates, settings: WandbSettings) -> bool:
    """Log a cell as one run: where it stands and what it was made from as config, its numbers as metrics and summary.

    Args:
        cell: what was computed.
        coordinates: the row of the grid; several rows can show one cell, and each has a run, but for clean cells,
            which have one whichever attack and threat their row names.
        settings: where to.

    Returns:
        Whether a run was written: False if there already is one for this row, cell and outcome, or if W&B failed.
    """
    run_coordinates = _run_coordinates(coordinates)

    def fill(run: "Run") -> None:
        examples = {"examples": _mosaic(cell.examples)} if cell.examples else {}
        run.log(_numbers(cell) | examples)

    def planned() -> RunPlan:
        environment = {f"environment/{name}": value for name, value in cell.environment.items()}
        # With outcomes: a cell that is computed anew, as on another device, may count other images
        content, config = {"key": cell.key, "outcomes": cell.outcomes}, environment | {"n": cell.n, "key": cell.key}
        return _plan(run_coordinates, cell.identity, content, config)

    return log_run(str(coordinates), planned, fill, settings)


def log_failure(spec: CellSpec, error: BaseException, settings: WandbSettings) -> bool:
    """Log that a cell could not be computed, as a run that W&B shows as failed.

    It has an id of its own, so it does not keep the cell from being logged once it is computed.

    Args:
        spec: the cell that is missing.
        error: why.
        settings: where to.

    Returns:
        Whether a run was written: False if this very failure is already logged, or if W&B failed.
    """
    reason = f"{type(error).__name__}: {error}"
    run_coordinates = _run_coordinates(spec.coordinates)

    def planned() -> RunPlan:
        content, config = {"key": spec.key, "failure": reason}, {"key": spec.key, "error": reason}
        return _plan(run_coordinates, spec.identity, content, config, exit_code=1)

    return log_run(str(spec.coordinates), planned, lambda _: None, settings)


def _plan(
    where: Coordinates, identity: Mapping[str, Any], content: dict[str, Any], config: dict[str, Any], exit_code: int = 0
) -> RunPlan:
    """The plan of a row's run; its coordinates and its identity are added to ``content`` and ``config``."""
    return RunPlan(
        content={"coordinates": asdict(where)} | content,
        name=_name(where),
        job_type="cell",
        group=group_of(where, identity),
        config=_config(where, identity) | config,
        exit_code=exit_code,
    )


def group_of(coordinates: Coordinates, identity: Mapping[str, Any]) -> str:
    """The same for all cells of one data set, protocol and classifier, in whichever sweep they were computed."""
    classifier = identity.get("classifier")
    weights = classifier.get("weights") if isinstance(classifier, Mapping) else classifier
    short = [weights[:8]] if isinstance(weights, str) and weights else []
    return "-".join([coordinates.data, coordinates.protocol, *short])


def _run_coordinates(row: Coordinates) -> Coordinates:
    """The coordinates of a row's run. At eps 0 there is no attack, and no attacker."""
    return row if row.eps else replace(row, attack=NO_ATTACK, threat=USUAL_THREAT)


def _name(coordinates: Coordinates) -> str:
    """``ifgsm eps 0.3 · vqvae 0.25``, ``clean · vqvae 0.25``; other threats and seeds are named."""
    name = str(coordinates).replace(f" · {USUAL_THREAT}", "")
    return name if coordinates.eps else name.replace(f"{NO_ATTACK} eps 0", "clean", 1)


def _config(coordinates: Coordinates, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Flat, so that every part can be filtered by: coordinates by their names, the rest of the identity by its
    path, such as ``attack/steps``."""
    return {name: value for name, value in leaves(identity) if value is not None} | asdict(coordinates)


def _numbers(cell: Cell) -> dict[str, float]:
    low, high = cell.interval
    work = cell.propagations_per_image
    attacked = {
        "undefended_accuracy": cell.undefended_accuracy,
        "recovered": cell.accuracy - cell.undefended_accuracy,
        "perturbation_l2": cell.perturbation_l2,
        "perturbation_linf": cell.perturbation_linf,
        "reconstruction_mse": cell.reconstruction_mse,
    }
    return {
        "accuracy": cell.accuracy,
        "ci_low": low,
        "ci_high": high,
        "n": cell.n,
        "correct": cell.correct,
        "clean_accuracy": cell.clean_accuracy,
        **({} if cell.is_proof else attacked),  # a proof attacks nothing: these would be zeros that say nothing
        "seconds": cell.seconds,
        **({} if work is None else {"propagations": work}),
    } | {f"seconds/{stage}": seconds for stage, seconds in cell.stages.items()}


def _mosaic(examples: Mapping[str, Any]) -> Any:
    """A cell's example images as one: a column an image, what was done to it from top to bottom."""
    import wandb

    stages = ("original", "attacked", "purified")
    rows = [np.concatenate(list(decode_images(examples[name])), axis=2) for name in stages]  # (C, H, N * W)
    picture = (np.concatenate(rows, axis=1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    pairs = zip(examples["labels"], examples["predictions"], strict=True)
    caption = f"{', '.join(stages)}; " + " ".join(f"{label}→{guess}" for label, guess in pairs)
    return wandb.Image(picture.squeeze(2) if picture.shape[2] == 1 else picture, caption=caption)
