"""A purifier, a classifier or both as one file, with what is known of them in its metadata."""

import io
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from src.data import ImageDataModule
from src.defended import DefendedClassifier
from src.errors import UserError, in_a_line
from src.evaluation import CellStore
from src.evaluation.spec import numbers_as_floats
from src.files import write_bytes
from src.workflows.building import plain
from src.workflows.component_cache import IDENTITY, ComponentCache
from src.workflows.schema import ExportSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)

#: Under what name the metadata stand in the file, as JSON.
METADATA = "defense_vqvae"

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}

#: Images that file and PyTorch are compared on, and how far apart their answers may be. Of a quantizer's answers a few
#: may be further apart: where two codes are equally near, rounding chooses.
COMPARED, TOLERANCE, AGREEING = 16, 1e-3, 0.9


class Subject(NamedTuple):
    """What is exported."""

    module: nn.Module  #: images (N, C, H, W) in [0, 1] → logits (N, K), or images
    answer: str  #: "logits" or "images"
    classifier: Any  #: its identity; None if it is not part of the file
    defense: Any
    parts: Mapping[str, nn.Module]  #: what ``module`` consists of, by what a message calls it


def export_from_config(config: DictConfig) -> Path:
    """Export what ``conf/export.yaml`` and the command line say; returns the file.

    Raises:
        UserError: a part is not to be had, cannot be exported, is random, answers differently once it is exported, or
            the file would lie over another.
    """
    config = checked(config, ExportSettings)
    components = ComponentCache()
    data = components.data(config.data)
    path = _path(config, data)
    if os.path.lexists(path) and not config.overwrite:
        raise UserError(f"{path} is there already; overwrite=true replaces it, output=another/file leaves it alone")
    subject = _subject(config, components, data)
    images = data.test_set()[0][:COMPARED].clone()  # of their own memory: what is traced is kept in the file
    _refuse_random(subject.module, images, config.defense.name)
    with _exporters_quiet():
        with_metadata, function = (_onnx if config.format == "onnx" else _torch_export)(subject, images)
    metadata = _metadata(config, data, subject) | {"compared": _compared(subject.module, function, images)}
    content = with_metadata(json.dumps(metadata, ensure_ascii=False))
    write_bytes(path, content)
    measured = len(metadata["cells"])
    log.info("%s (%.1f MB, %d measured cells in its metadata)", path, len(content) / 1e6, measured)
    return path


def _path(config: DictConfig, data: ImageDataModule) -> Path:
    ending = ENDINGS[config.format]
    if config.output is not None:
        path = Path(config.output).expanduser()
        if path.suffix != ending:
            raise UserError(f"output={config.output} should end in {ending} for format={config.format}")
        return path
    defense = config.defense.name + (f"-noise{config.noise:g}" if config.defense.uses_noise else "")
    stem = {"purifier": defense, "classifier": "classifier", "both": f"{defense}-classifier"}[config.part]
    return Path(config.paths.outputs) / "exported" / f"{data.name}-{stem}{ending}"


def _subject(config: DictConfig, components: ComponentCache, data: ImageDataModule) -> Subject:
    purifier = classifier = defense_identity = classifier_identity = None
    if config.part != "classifier":
        defense_identity = components.identified(plain(config.defense.purifier), data, "test")
        purifier = components.build(defense_identity)
    if config.part != "purifier":
        classifier_identity = components.classifier_identity(plain(config.classifier), data, "test")
        classifier = components.classifier(classifier_identity)
    module = DefendedClassifier(classifier, purifier) if classifier and purifier else classifier or purifier
    assert module is not None
    module.eval()
    named = {f"defense={config.defense.name}": purifier, "the classifier": classifier}
    parts = {name: part for name, part in named.items() if part is not None}
    return Subject(module, "images" if classifier is None else "logits", classifier_identity, defense_identity, parts)


@torch.no_grad()
def _refuse_random(module: nn.Module, images: Tensor, name: str) -> None:
    if not torch.equal(module(images), module(images)):
        raise UserError(f"{name} is random, so the file could not be compared with PyTorch; nothing was written")


Content = Callable[[str], bytes]  #: metadata → the file


@contextmanager
def _exporters_quiet() -> Iterator[None]:
    """Exporters log every pass over the graph, and every trace of an error that is said in a line below; they print the
    graph as far as they came."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # of what will be deprecated
            yield
    finally:
        logging.disable(logging.NOTSET)


def _exported(subject: Subject, images: Tensor) -> Any:
    try:
        return _traced(subject.module, images)
    except Exception as error:  # of the tracer, which has a hundred reasons
        raise UserError(_why_not(subject, images, error)) from error


def _traced(module: nn.Module, images: Tensor) -> Any:
    return torch.export.export(module, (images[:2].clone(),), dynamic_shapes=({0: torch.export.Dim("n")},))


def _why_not(subject: Subject, images: Tensor, error: Exception) -> str:
    """Why ``subject`` cannot be exported, in a line that names the part of it."""
    culprit = "this"
    for name, part in subject.parts.items():
        try:
            _traced(part, images)
        except Exception:
            culprit = name
            break
    reason = in_a_line(error)[:100]
    if type(error).__module__.partition(".")[0] == "torch":
        return f"{culprit} cannot be exported: PyTorch cannot trace it ({reason})"
    # It has answered images. The tracer's tensors have no values, and what is none of PyTorch's operations fails on
    # them, with an error that means something else, such as that they are not on the CPU
    return f"{culprit} runs code outside PyTorch's graph and cannot be exported ({reason})"


def _torch_export(subject: Subject, images: Tensor) -> tuple[Content, Callable[[Tensor], Tensor]]:
    program = _exported(subject, images)

    def content(metadata: str) -> bytes:
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={f"{METADATA}.json": metadata})
        return file.getvalue()

    return content, program.module()


def _onnx(subject: Subject, images: Tensor) -> tuple[Content, Callable[[Tensor], Tensor]]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  what torch.onnx.export needs
    except ImportError as error:
        raise UserError(f"format=onnx needs another package ({error}): pip install 'defense-vqvae[export]'") from error
    _exported(subject, images)  # whose reasons are said in a line
    answer = "logits" if subject.answer == "logits" else "purified"
    program = torch.onnx.export(
        subject.module,
        (images[:2].clone(),),
        dynamo=True,
        dynamic_shapes=({0: "n"},),
        input_names=["images"],
        output_names=[answer],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto

    def content(metadata: str) -> bytes:
        onnx.helper.set_model_props(model, {METADATA: metadata})
        return model.SerializeToString()

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


@torch.no_grad()
def _compared(module: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Any]:
    """How far the file's answers are from PyTorch's; UserError if too far."""
    differences = (function(images) - module(images)).abs().flatten(1).amax(1)
    agreeing = int((differences <= TOLERANCE).sum())
    if agreeing < math.ceil(AGREEING * len(images)):
        raise UserError(
            f"once exported, it answers differently: {len(images) - agreeing} of {len(images)} images by more than "
            f"{TOLERANCE:g} (largest {differences.max():.3g}); nothing was written"
        )
    return {"images": len(images), "agreeing": agreeing, "largest_difference": differences.max().item()}


def _metadata(config: DictConfig, data: ImageDataModule, subject: Subject) -> dict[str, Any]:
    """Plain types: what the file is of, and what was measured with it."""
    uses_noise = bool(config.defense.uses_noise) and subject.defense is not None
    return {
        "version": version("defense-vqvae"),
        "part": config.part,
        "input": {"name": "images", "shape": ["n", *data.image_shape], "dtype": "float32", "range": [0, 1]},
        "output": subject.answer,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "num_classes": data.num_classes},
        "classifier": subject.classifier,
        "defense": None if subject.defense is None else config.defense.name,
        "noise": float(config.noise) if uses_noise else None,
        "purifier": subject.defense,
        "seed": config.seed,
        "cells": list(_cells(Path(config.paths.outputs) / "cells", data, subject)),
    }


def _cells(folder: Path, data: ImageDataModule, subject: Subject) -> Iterator[dict[str, Any]]:
    """The stored accuracies of just these weights on these data; of a purifier those with any classifier, of a
    classifier those without a defense."""
    store = CellStore(folder)
    defense = None if subject.defense == IDENTITY else numbers_as_floats(subject.defense)
    for cell in map(store.get, store.keys()):
        if cell is None or cell.identity["data"]["fingerprint"] != data.fingerprint:
            continue
        same = subject.classifier is None or cell.identity["classifier"] == subject.classifier
        if same and cell.identity["defense"] == defense:
            made_of = {"classifier": cell.identity["classifier"], "key": cell.key}
            yield asdict(cell.coordinates) | {"n": cell.n} | cell.score | made_of
