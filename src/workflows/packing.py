"""Trained networks as a folder that others take them from, see :mod:`src.models.shared_weights`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from src.errors import UserError
from src.evaluation import Cell, CellStore
from src.files import write_bytes, write_text
from src.models.checkpoint import Provenance, parse_checkpoint
from src.models.shared_weights import INDEX, SharedNetwork, index_text, shared_networks
from src.nested import leaves
from src.reporting.markdown import escape
from src.workflows.schema import PackSettings
from src.workflows.settings import checked

log = logging.getLogger(__name__)

CARD, LICENCE = "README.md", "LICENSE"

REPO = Path(__file__).resolve().parents[2]

#: What those who made a data set say of its terms, by its name in ``conf/data``.
TERMS = {
    "mnist": "MNIST, by Yann LeCun and Corinna Cortes, from data of NIST: Creative Commons Attribution-ShareAlike 3.0, "
    "as Keras' documentation has it.",
    "fashion_mnist": "Fashion-MNIST, by Zalando SE: MIT.",
    "kmnist": "Kuzushiji-MNIST, by ROIS-DS Center for Open Data in the Humanities, from data of NIJL: Creative Commons "
    "Attribution-ShareAlike 4.0.",
    "emnist": "EMNIST, by Gregory Cohen, Saeed Afshar, Jonathan Tapson and André van Schaik, of NIST's data: "
    "no licence is stated; they ask to be cited.",
    "qmnist": "QMNIST, by Chhavi Yadav and Léon Bottou, from data of NIST: its repository is under a BSD licence.",
    "usps": "USPS, by Jonathan Hull, as LIBSVM distributes it: no licence is stated.",
    "cifar10": "CIFAR-10, by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton: no licence is stated; they ask to be "
    "cited.",
}


@dataclass(frozen=True)
class Packed:
    """A network on its way into the folder."""

    shared: SharedNetwork
    provenance: Provenance
    content: bytes


def pack_from_config(config: DictConfig) -> Path:
    """Pack what ``conf/pack.yaml`` and the command line say; returns the folder.

    Checkpoints go into it byte for byte. Training states, and records with their example images, do not.

    Raises:
        UserError: there is nothing to pack, a network that is asked for is not to be had, or the folder holds
            something else.
    """
    config = checked(config, PackSettings)
    outputs, checkpoints = Path(config.paths.outputs), Path(config.paths.checkpoints)
    folder = outputs / "weights" if config.output is None else Path(config.output).expanduser()
    earlier = _earlier(folder)
    packed = list(_asked_for(checkpoints, list(config.networks)) if config.networks else _all(checkpoints))
    if not packed:
        raise UserError(f"no network in {checkpoints} can be packed; train one with: python -m src.train")
    _refuse_one_file_for_two([entry.shared for entry in packed])
    for entry in packed:
        write_bytes(folder / entry.shared.file, entry.content)
    for file in earlier - {entry.shared.file for entry in packed}:
        (folder / file).unlink(missing_ok=True)
    write_bytes(folder / LICENCE, (REPO / LICENCE).read_bytes())
    write_text(folder / CARD, card(packed, CellStore(outputs / "cells")))
    write_text(folder / INDEX, index_text([entry.shared for entry in packed]))  # last: it vouches for the others
    log.info("%d networks, %.1f MB -> %s", len(packed), sum(entry.shared.size for entry in packed) / 1e6, folder)
    return folder


def _earlier(folder: Path) -> set[str]:
    """The checkpoints that an earlier packing left in the folder.

    Raises:
        UserError: what lies there is no such folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is not a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return set()
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} holds something that is no packed network; name another folder: output=…")
    return {network.file for network in shared_networks(str(folder))}


def _asked_for(checkpoints: Path, names: Sequence[str]) -> Iterator[Packed]:
    for name in dict.fromkeys(names):
        data, _, stem = name.partition("/")
        path = checkpoints / data / f"{stem}.ckpt"
        if not stem or not path.is_file():
            raise UserError(f"networks: there is no {path}; write <data>/<name>, such as mnist/classifier")
        yield _packed(path)


def _all(checkpoints: Path) -> Iterator[Packed]:
    """All networks; one that cannot be used is named in a warning and left out."""
    for path in sorted(checkpoints.glob("*/*.ckpt"), key=lambda path: (path.parent.name, path.stem)):
        if path.name.startswith(".") or path.name.endswith(".last.ckpt"):  # a training's state
            continue
        try:
            yield _packed(path)
        except UserError as error:
            log.warning("left out: %s", error)


def _packed(path: Path) -> Packed:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    _, provenance = parse_checkpoint(content, str(path), "python -m src.train")
    return Packed(SharedNetwork.of(path.parent.name, path.stem, content, provenance), provenance, content)


def _refuse_one_file_for_two(networks: Sequence[SharedNetwork]) -> None:
    first: dict[str, SharedNetwork] = {}
    for network in networks:
        if (other := first.setdefault(network.file, network)) is not network:
            raise UserError(f"{other} and {network} would both become {network.file}; pack one of them: networks=[…]")


def card(packed: Sequence[Packed], cells: CellStore) -> str:
    """``README.md`` of the folder: what each network is, how it was trained, what is known of it, and the terms."""
    clean, names = _clean_cells(cells), {entry.shared.weights: str(entry.shared) for entry in packed}
    rows = [_row(entry, clean.get(entry.shared.weights), names) for entry in packed]
    lines = [
        "# Trained networks of defense-vqvae",
        "",
        "Checkpoints that `python -m src.pack` packed. To use them, name this folder, or its http(s) address:",
        "",
        "```",
        "python -m src.play paths.weights=path/to/this/folder",
        "```",
        "",
        f"A checkpoint that is missing there is then taken from here, after its SHA-256 was compared with `{INDEX}`.",
        "",
        "| network | trained on | noise | seed | epochs | clean accuracy, 95 % interval | MB |",
        "| --- | --- | --: | --: | --: | --: | --: |",
        *rows,
        "",
        "Clean accuracy is that of a stored cell of exactly these weights on test images, without attack. A purifier",
        "stands before the classifier that is named. A dash: no such cell was stored where this was packed.",
        "",
        *_limits(),
        "## How each was trained",
        "",
        *(line for entry in packed for line in _training(entry)),
        "## Licence",
        "",
        f"Code and weights: MIT, see `{LICENCE}`. The data are not here, and have terms of their own:",
        "",
        *(f"- {_terms(data)}" for data in dict.fromkeys(entry.provenance.data for entry in packed)),
    ]
    return "\n".join([*lines, ""])


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        "- They are there to try the program with and to check its numbers, not to protect anything.",
        "- A network that was trained briefly is weaker than its kind can be; its epochs are in the table.",
        "- An accuracy under attack is an upper bound: a better attack may come.",
        f"- `{INDEX}` shows damage. It does not show who packed this: take it from whom you trust.",
        "",
    ]


def _row(packed: Packed, cell: Cell | None, names: Mapping[str, str]) -> str:
    network, noise = packed.shared, packed.shared.noise
    accuracy = "–" if cell is None else _accuracy(cell, names)
    name, data = escape(str(network)), escape(packed.provenance.data)
    noise_text = "–" if noise is None else f"{noise:g}"
    size = f"{network.size / 1e6:.1f}"
    return f"| {name} | {data} | {noise_text} | {network.seed} | {network.epochs} | {accuracy} | {size} |"


def _accuracy(cell: Cell, names: Mapping[str, str]) -> str:
    low, high = cell.interval
    classifier = cell.identity["classifier"]
    behind = "" if cell.identity["defense"] is None else f", before {escape(names.get(classifier, classifier[:8]))}"
    return f"{cell.accuracy:.2%} [{low:.2%}, {high:.2%}] of {cell.n:,}{behind}"


def _training(packed: Packed) -> list[str]:
    network, run = packed.shared, packed.provenance
    settings = leaves(run.config, separator=".")
    return [
        f"### {escape(str(network))}",
        "",
        f"- file `{network.file}`, SHA-256 `{network.sha256}`",
        f"- weights `{network.weights}`, of `model={network.model}`",
        f"- data `{run.data_fingerprint}`, {run.val_size:,} images kept for validation, split_seed {run.split_seed}",
        f"- `{' '.join(f'{name}={value}' for name, value in settings)}`",
        "",
    ]


def _terms(data: str) -> str:
    known = "emnist" if data.startswith("emnist_") else data  # of whose splits each is a data set
    return TERMS.get(known, f"{escape(data)}: ask those who made the data.")


def _clean_cells(store: CellStore) -> dict[str, Cell]:
    """By fingerprint of its weights, the cell of the most test images that says what a network is worth without attack:
    of a classifier the one without a defense, of a purifier one that adds no noise of its own."""
    best: dict[str, Cell] = {}
    for cell in filter(None, map(store.get, sorted(store.keys()))):
        weights = _judged(cell)
        if weights and (weights not in best or cell.n > best[weights].n):
            best[weights] = cell
    return best


#: What is before the network in ``conf/defense/vqvae_robust.yaml``.
ROBUST_FIRST = {"_target_": "src.defenses.Binarize", "threshold": 0.5}


def _judged(cell: Cell) -> str | None:
    """The weights that a cell judges; None for one with an attack, with a variant of a defense or a chain of several,
    or of other images."""
    identity = cell.identity
    usual = "split" not in identity["data"] and "verdict" not in identity
    counted = not identity["protocol"]["clean_errors_count"]
    if identity["eps"] or not usual or not counted or not isinstance(identity["classifier"], str):
        return None
    if identity["defense"] is None:
        return str(identity["classifier"])
    purifier = identity["defense"]
    if cell.coordinates.defense == "vqvae_robust" and purifier.get("_args_", ())[:-1] == [ROBUST_FIRST]:
        purifier = purifier["_args_"][-1]
    if purifier.get("inference_noise") or purifier.get("precision", "float32") != "float32":
        return None
    if not purifier.get("clip", True):
        return None
    return purifier.get("checkpoint")  # a diffusion's lies deeper: one of many defenses with these weights, and random
