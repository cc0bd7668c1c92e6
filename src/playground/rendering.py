"""A demonstration as a piece of HTML: sentences, four pictures and the classifier's confidences before and after."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from src.evaluation.cell import NO_CLASS
from src.evaluation.spec import number
from src.playground.demonstration import Demonstration
from src.reporting.analysis.labels import percent
from src.reporting.templating import TEMPLATES, template


def to_html(demonstration: Demonstration, defense: str, threat: str, supposed: bool = False) -> str:
    """The demonstration for the eye and for screen readers. Names are escaped.

    Args:
        defense: what the defense is called.
        threat: what the threat is called.
        supposed: the label is what the classifier takes the image for, and nobody else has said so.
    """
    confidences = (demonstration.before, demonstration.undefended, demonstration.defended)
    return template("demonstration.html").render(
        said=sentences(demonstration, defense, threat, supposed),
        pictures=_pictures(demonstration, defense),
        columns=("original", "attacked", "purified"),
        rows=[
            {
                "name": k,
                "is_label": k == demonstration.label,
                "bars": [_bar(distribution, k, demonstration.label) for distribution in confidences],
            }
            for k in range(len(demonstration.before))
        ],
    )


def sentences(demonstration: Demonstration, defense: str, threat: str, supposed: bool) -> list[str]:
    """What happened, in words."""
    labelled = f"Labelled {demonstration.label}, taken for"
    if supposed:
        labelled = "Nobody said what this is, so its label is what the classifier takes it for:"
    lines = [f"{labelled} {_verdict(demonstration.before)}."]
    if not demonstration.eps:
        lines.append("At eps 0 nothing is attacked.")
    else:
        cause = f"Attacked by {demonstration.attack} at eps {number(demonstration.eps)} ({threat})"
        lines.append(f"{cause} it is taken for {_verdict(demonstration.undefended)}.")
    if not torch.equal(demonstration.purified, demonstration.attacked):
        lines.append(f"Through {defense} it is taken for {_verdict(demonstration.defended)}{_outcome(demonstration)}.")
    return lines


def _outcome(demonstration: Demonstration) -> str:
    right = _class(demonstration.defended) == demonstration.label
    if right == (_class(demonstration.undefended) == demonstration.label):
        return ""
    return ": the defense helps" if right else ": the defense harms"


def _class(confidences: Tensor) -> int:
    """The class with the highest confidence (K,), or :data:`NO_CLASS`."""
    return int(confidences.argmax()) if confidences.any() else NO_CLASS


def _verdict(confidences: Tensor) -> str:
    """That class and its confidence."""
    if _class(confidences) == NO_CLASS:
        return "no class, because the classifier's answer is not a number"
    return f"{int(confidences.argmax())} ({percent(confidences.max().item())}\N{NO-BREAK SPACE}%)"


def _bar(confidences: Tensor, k: int, label: int) -> dict[str, str]:
    """A confidence; its kind is "right" or "wrong" for the highest of an image, else empty."""
    kind = ("right" if k == label else "wrong") if k == _class(confidences) else ""
    return {"percent": percent(confidences[k].item()), "kind": kind}


def _pictures(demonstration: Demonstration, defense: str) -> list[dict[str, str]]:
    """Each image with the words beside, under and in the place of it."""
    eps = number(demonstration.eps)
    largest = number(demonstration.perturbation.abs().max().item())
    scaled = torch.full_like(demonstration.original, 0.5)
    legend = "none: all of it grey"
    if demonstration.eps:
        scaled = 0.5 + demonstration.perturbation / (2 * demonstration.eps)
        legend = f"white: +{eps}, black: −{eps}, grey: as it was"
    attacked, purified = (_verdict(distribution) for distribution in (demonstration.undefended, demonstration.defended))
    pictures = [
        ("original", "", f"the original, labelled {demonstration.label}", demonstration.original),
        ("attacked", "", f"the attacked image, taken for {attacked}", demonstration.attacked),
        ("perturbation", legend, f"what the attack added, at most {largest} a pixel", scaled),
        (
            "purified",
            f"by {defense}",
            f"what {defense} made of the attacked image, taken for {purified}",
            demonstration.purified,
        ),
    ]
    return [{"name": name, "note": note, "alt": alt, "source": data_uri(image)} for name, note, alt, image in pictures]


def data_uri(image: Tensor) -> str:
    """An image (C, H, W) in [0, 1] as a PNG within a URI; what is neither grey nor RGB is shown in grey."""
    picture = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    values = (picture.clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
    content = io.BytesIO()
    Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def thumbnails_html(images: Tensor, labels: Tensor) -> str:
    """A button an image, which carries its number as ``data-index``.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
    """
    pairs = enumerate(zip(images, labels.tolist(), strict=True))
    return template("thumbnails.html").render(
        thumbnails=[{"index": i, "label": label, "source": data_uri(image)} for i, (image, label) in pairs]
    )


def stylesheet() -> str:
    """The CSS of this module's HTML, with the variables of Gradio's themes."""
    return (TEMPLATES / "demonstration.css").read_text(encoding="utf-8")
