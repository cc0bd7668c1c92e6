"""Weights & Biases: a run for every certification."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.evaluation.spec import number
from src.reporting.analysis.certified import CertifiedSet
from src.reporting.document.certified import table_radii
from src.reporting.wandb.artifacts import Weights, use_weights
from src.reporting.wandb.names import identifier, images_of
from src.reporting.wandb.session import RunPlan, log_run
from src.reporting.wandb.settings import WandbSettings

if TYPE_CHECKING:  # see wandb_session
    from wandb import Run


def log_certified(
    certified: CertifiedSet, figures: Sequence[Path], settings: WandbSettings, weights: Sequence[Weights] = ()
) -> bool:
    """Log certificates as one run: what they were computed with as config, certified accuracies and the average
    radius as metrics and summary, the curve as a table with its chart, the figures; and that it used these weights.

    Args:
        certified: the certificates of one smoothed classifier.
        figures: image files; those that do not exist are left out.
        settings: where to.
        weights: what was certified, as far as it is there.

    Returns:
        Whether a run was written: False if these very certificates are already logged, or if W&B failed.
    """

    def fill(run: "Run") -> None:
        run.log(_numbers(certified) | _curve(certified) | images_of(figures))
        use_weights(run, weights)

    def planned() -> RunPlan:
        certification = certified.certification
        return RunPlan(
            content={
                "certified": certification.key,
                "images": [[image.index, image.radius] for image in certified.images],
            },
            name=f"certified · {certified.label}",
            job_type="certify",
            group=f"{certification.data}-certified-{certification.classifier[:8]}",
            config=_config(certified),
        )

    return log_run(f"certificates of {certified.label}", planned, fill, settings)


def _config(certified: CertifiedSet) -> dict[str, Any]:
    certification = certified.certification
    denoiser = certification.identity["denoiser"] or {}
    return {
        "data": certification.data,
        "denoiser": certification.denoiser or "none",
        "noise": certification.noise,
        "sigma": certification.sigma,
        "n0": certification.n0,
        "n": certification.n,
        "alpha": certification.alpha,
        "seed": certification.seed,
        "images": len(certified.images),
        "classifier_weights": certification.classifier,
        "denoiser_weights": denoiser.get("checkpoint"),
        "key": certification.key,
    }


def _numbers(certified: CertifiedSet) -> dict[str, float]:
    """``certified/acr``, ``certified/radius_0_5``, …: W&B takes dots for nesting. Up to the largest possible radius, so
    that runs of one σ have the same names."""
    radii = {identifier(f"radius {number(r)}"): certified.at(r).fraction for r in table_radii(certified.limit)}
    numbers = {"acr": certified.average_radius, "abstained": certified.abstained / len(certified.images)}
    return {f"certified/{name}": value for name, value in (numbers | radii).items()}


def _curve(certified: CertifiedSet) -> dict[str, Any]:
    """The curve with its error band as a table, and a chart of it."""
    import wandb

    columns: list[str | int] = ["radius", "accuracy", "ci_low", "ci_high"]
    points = [[radius, rate.fraction, rate.low, rate.high] for radius, rate in certified.curve()]
    table = wandb.Table(columns=columns, data=points)
    title = f"certified accuracy · {certified.label}"
    return {"certified/curve": wandb.plot.line(table, "radius", "accuracy", title=title)}
