"""Images of a set whose class is proved behind a defense, and a check of proofs against attacks.

An image that is proved stands every attack within the budget, known or not. So no attack of the same images, the same
classifier and the same defense may fool it: one that does shows an error of this program.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from src.defenses import AutoencoderPurifier
from src.errors import UserError
from src.evaluation.cell import Cell
from src.evaluation.code_certificate import BATCH, CodeCertificates, CodeCertifier, Verdict
from src.evaluation.components import TestSet
from src.models.certified_vqvae import READ, CertifiedVQVAE
from src.models.checkpoint import weights_fingerprint
from src.straight_through import StraightThrough

#: ``family`` of an attack whose cell says which images are proved: a certificate is the worst of all attackers.
CERTIFICATE = "certificate"

#: Boxes that may be bounded for one image. On 1,000 validation images 200 boxes proved 86.5 %, 1,000 proved 86.6 %.
NODES = 200

#: Drawings that a classifier is asked about twice, and one by one.
PROBED = 16

#: Part of every digest. Raise it when a change of code changes what a verdict means.
SCHEMA = 1


@dataclass(frozen=True)
class Proofs:
    """What :func:`prove` found out about a set of images."""

    verdicts: Tensor  #: (N,), int64, of :class:`src.evaluation.code_certificate.Verdict`
    witnesses: Tensor  #: (N, 1, H, W): where refuted, an image within eps that is classified as something else; else x
    boxes: Tensor  #: boxes that were bounded, (N,), int64
    free: Tensor  #: bits that the attacker can choose, (N,), int64
    eps: float  #: L∞ budget in pixel units
    nodes: int  #: boxes that were allowed for one image
    seconds: float
    digest: str  #: SHA-256 of what was proved of which images, networks and budget; see :func:`digest_of`

    @property
    def proved(self) -> Tensor:
        """Which images keep their class whatever is done within eps, (N,), bool."""
        return self.verdicts == Verdict.PROVED

    @property
    def statistics(self) -> dict[str, Any]:
        """Plain types, for a file: how many images are proved, refuted and open, and what it took."""
        counts = {verdict.name.lower(): int((self.verdicts == verdict).sum()) for verdict in Verdict}
        return counts | {
            "nodes": self.nodes,
            "boxes": int(self.boxes.sum()),
            "free_bits": round(self.free.double().mean().item(), 2),
            "seconds": round(self.seconds, 1),
            "digest": self.digest,
        }


def prove(
    classifier: nn.Module,
    defense: nn.Module,
    test: TestSet,
    eps: float,
    *,
    nodes: int = NODES,
    tell: Callable[[int, int], None] = lambda done, proved: None,
) -> Proofs:
    """Prove for as many images as ``nodes`` allow that ``classifier`` behind ``defense`` gives them their class,
    whatever is done to them within ``eps``. ``docs/certificate.md`` says what that means, and why it holds.

    Args:
        classifier: images (N, 1, H, W) in [0, 1] → logits (N, K). In ``eval()``.
        defense: see :func:`provable_network`. In ``eval()``.
        test: images (N, 1, H, W), N ≥ 1, and their classes.
        eps: L∞ budget in pixel units, in [0, 1].
        nodes: boxes that may be bounded for one image, ≥ 1. More prove more, and take longer.
        tell: called after each batch with the number of images that are done, and of those that are proved.

    Raises:
        UserError: nothing can be proved of this defense, this classifier or these images.
    """
    network = provable_network(defense)
    _check(network, classifier, test, eps, nodes)
    begin = time.perf_counter()
    certifier = CodeCertifier(network, classifier, nodes)
    _check_steady(network, classifier)
    parts: list[CodeCertificates] = []
    done = proved = 0
    for x, y in zip(test.images.split(BATCH), test.labels.split(BATCH), strict=True):
        parts.append(certifier.certify(x, y, eps))
        done, proved = done + len(y), proved + int((parts[-1].verdicts == Verdict.PROVED).sum())
        tell(done, proved)
    verdicts, witnesses, boxes, free = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("verdicts", "witnesses", "nodes", "free")
    )
    digest = digest_of(network, classifier, test, eps, nodes, verdicts)
    return Proofs(verdicts, witnesses, boxes, free, eps, nodes, time.perf_counter() - begin, digest)


def provable_network(defense: nn.Module) -> CertifiedVQVAE:
    """The network of a defense of which something can be proved: an :class:`src.defenses.AutoencoderPurifier` with a
    :class:`src.models.CertifiedVQVAE`, in float32, clipped and without noise.

    Nothing is taken for granted: another class, even one made from these, may compute something else.

    Raises:
        UserError: it is another defense.
    """
    while type(defense) is StraightThrough:  # another gradient, the same images
        defense = defense.purifier
    if type(defense) is not AutoencoderPurifier or type(defense.network) is not CertifiedVQVAE:
        _refuse(f"a {type(getattr(defense, 'network', defense)).__name__} is none whose codes are bounded")
    if defense.precision != "float32":
        _refuse(f"its bounds are of float32, not of {defense.precision}: purify_precision=float32")
    if defense.inference_noise:
        _refuse("it draws random numbers: inference_noise=0")
    if not defense.clip:
        _refuse("what it draws has to be clipped to [0, 1]: clip_output=true")
    return defense.network


def digest_of(
    network: CertifiedVQVAE, classifier: nn.Module, test: TestSet, eps: float, nodes: int, verdicts: Tensor
) -> str:
    """SHA-256, in hex, of verdicts (N,) and all that they depend on: images, labels, weights, ``eps`` and ``nodes``."""
    asked = torch.tensor([SCHEMA, eps, nodes], dtype=torch.float64)
    parts = {"asked": asked, "images": test.images, "labels": test.labels, "verdicts": verdicts}
    for name, module in (("network", network), ("classifier", classifier)):
        parts |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    thresholds = torch.tensor(network.thresholds, dtype=torch.float64)
    return weights_fingerprint(parts | {"thresholds": thresholds})


def _refuse(reason: str) -> NoReturn:
    raise UserError(f"nothing can be proved of this defense: {reason}; try defense=vqvae_certified")


def _check(network: CertifiedVQVAE, classifier: nn.Module, test: TestSet, eps: float, nodes: int) -> None:
    """Refuse what the proof is not about."""
    if not 0 <= eps <= 1 or nodes < 1:
        raise UserError(f"eps must be in [0, 1], in pixel units, and nodes at least 1; got {eps} and {nodes}")
    size = network.hparams["image_size"]
    if not len(test.labels) or test.images.shape[1:] != (1, size, size):
        raise UserError(f"the network proves something of images (1, {size}, {size}); got {tuple(test.images.shape)}")
    if test.num_classes != network.num_classes:
        raise UserError(f"the network has {network.num_classes} classes, the images {test.num_classes}")
    if network.training or any(part.training for part in classifier.modules()):
        raise UserError("nothing can be proved of networks that are being trained: call eval()")
    weights = [*network.state_dict().values(), test.images]
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in weights):
        raise UserError("a proof is of weights and images in float32")
    if any(value.device.type != "cpu" for value in weights):
        raise UserError("a proof is of sums of products, which only a CPU is known to compute: trainer=cpu")
    if torch.is_autocast_enabled("cpu") or torch.get_float32_matmul_precision() != "highest":
        raise UserError("a proof is of float32: leave autocast and torch.set_float32_matmul_precision as they are")


@torch.no_grad()
def _check_steady(network: CertifiedVQVAE, classifier: nn.Module) -> None:
    """Refuse a classifier whose logits of one drawing differ from time to time, or with the size of the batch, by more
    than the certificate allows for (docs/certificate.md, assumption 2). A few drawings are looked at."""
    labels = torch.arange(PROBED) % network.num_classes
    shown = torch.cat([network.drawings(int(label), network.stand_in[label, :1]) for label in labels])
    together, again = classifier(shown), classifier(shown)
    alone = torch.cat([classifier(each) for each in shown.split(1)])
    if together.shape != (PROBED, network.num_classes) or not together.isfinite().all():
        raise UserError(f"the classifier must give {network.num_classes} finite logits for each image")
    if max((again - together).abs().max(), (alone - together).abs().max()) > READ / 4:
        raise UserError("nothing can be proved of a classifier whose logits differ from time to time or batch to batch")


@dataclass(frozen=True)
class Contradiction:
    """Images that are proved by one cell and fooled in another: one of the two is wrong."""

    proof: Cell
    attack: Cell
    images: list[int]  #: their indices in the set's canonical order

    def __str__(self) -> str:
        which = f"image {self.images[0]}" + (f" and {len(self.images) - 1} more" if len(self.images) > 1 else "")
        return f"{which}: proved by {self.proof.coordinates}, and yet fooled by {self.attack.coordinates}"


class BrokenProofError(RuntimeError):
    """A proof that an attack refutes: an error of this program."""


def contradictions(cells: Iterable[Cell]) -> list[Contradiction]:
    """Proofs that other cells refute, of the same images, classifier, defense and protocol, whatever the threat, the
    seed and the number of images: at no attack and at an eps that is not above the proof's."""
    known = list(cells)
    proofs = [cell for cell in known if cell.attacker.get("family") == CERTIFICATE]
    found = []
    for proof in proofs:
        for other in known:
            if other is proof or other in proofs or not _are_of_one_model(proof, other):
                continue
            if other.coordinates.eps > proof.coordinates.eps:
                continue
            pairs = enumerate(zip(proof.outcomes, other.outcomes, strict=False))  # the same first images
            if images := [index for index, (proved, right) in pairs if proved == "1" and right == "0"]:
                found.append(Contradiction(proof, other, images))
    return found


def check_proofs(cells: Iterable[Cell]) -> None:
    """Raise the first of the :func:`contradictions`, if there is one.

    Raises:
        BrokenProofError: an image is proved and yet fooled.
    """
    if found := contradictions(cells):
        raise BrokenProofError(f"{found[0]}; this is a bug of defense-vqvae, and no number of this sweep is to be used")


def _are_of_one_model(proof: Cell, other: Cell) -> bool:
    """Whether two cells are of the same images, up to their number, classifier, defense and protocol."""
    return all(_without_number(proof, part) == _without_number(other, part) for part in SAME)


#: Parts of a cell's identity in which a proof and an attack have to agree.
SAME = ("data", "classifier", "defense", "noise", "protocol")


def _without_number(cell: Cell, part: str) -> Any:
    value = cell.identity[part]
    return {name: each for name, each in value.items() if name != "n"} if part == "data" else value
