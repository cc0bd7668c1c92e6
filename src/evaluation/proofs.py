"""Images of a set whose class is proved behind a defense: they stand every attack within the budget, known or not.

No attack of the same images, classifier and defense may fool them: :mod:`src.evaluation.contradictions`.
"""

import time
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from src.defenses import AutoencoderPurifier
from src.errors import UserError
from src.evaluation.attacking import Track, batches_of, untracked
from src.evaluation.code_certificate import CodeCertifier, Verdict
from src.evaluation.components import TestSet
from src.models.certified_vqvae import READ, CertifiedVQVAE
from src.models.checkpoint import weights_fingerprint
from src.straight_through import StraightThrough

#: Boxes that may be bounded for one image. On 1,000 validation images 200 boxes proved 86.5 %, 1,000 proved 86.6 %.
NODES = 200

#: Images that are bounded at a time.
BATCH = 250

#: Drawings that a classifier is asked about twice, and one by one.
PROBED = 16

#: Part of every digest. Raise it when a change of code changes what a verdict means.
SCHEMA = 3


class UnprovableError(UserError):
    """The program has no proof for defenses of this kind."""


class BrokenProofError(RuntimeError):
    """A proof that the network itself refutes: an error of this program."""


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
    unprovable: str | None = None  #: why nothing can be proved of this kind of defense

    @property
    def proved(self) -> Tensor:
        """Which images keep their class whatever is done within eps, (N,), bool."""
        return self.verdicts == Verdict.PROVED

    def check(self, predictions: Tensor, labels: Tensor) -> None:
        """Hold the verdicts against the classes (N,) that the defended classifier gives to the witnesses.

        Raises:
            BrokenProofError: a proved image is not classified as its label, or a refuting one is.
        """
        wrong = self.proved & (predictions != labels) | (self.verdicts == Verdict.REFUTED) & (predictions == labels)
        if wrong.any():
            index = int(wrong.nonzero()[0])
            raise BrokenProofError(f"image {index} is {Verdict(int(self.verdicts[index])).name.lower()}, and is not")

    @property
    def statistics(self) -> dict[str, Any]:
        """Plain types, for a file: how many images are proved, refuted and open, and what it took."""
        if self.unprovable is not None:
            return {"unprovable": self.unprovable}
        counts = {verdict.name.lower(): int((self.verdicts == verdict).sum()) for verdict in Verdict}
        return counts | {
            "nodes": self.nodes,
            "boxes": int(self.boxes.sum()),
            "free_bits": round(self.free.double().mean().item(), 2),
            "seconds": round(self.seconds, 1),
            "digest": self.digest,
        }


def nothing_proved(test: TestSet, eps: float, reason: str) -> Proofs:
    """Proofs that leave every image open, for a ``reason``."""
    zeros = torch.zeros(len(test.labels), dtype=torch.int64)
    return Proofs(zeros + Verdict.OPEN, test.images, zeros, zeros, eps, 1, 0.0, "", reason)


def prove(
    classifier: nn.Module,
    defense: nn.Module,
    test: TestSet,
    eps: float,
    *,
    nodes: int = NODES,
    track: Track = untracked,
) -> Proofs:
    """Prove for as many images as ``nodes`` allow that ``classifier`` behind ``defense`` gives them their class,
    whatever is done to them within ``eps``. ``docs/certificate.md`` says what that means, and why it holds.

    Args:
        classifier: images (N, 1, H, W) in [0, 1] → logits (N, K). In ``eval()``.
        defense: see :func:`provable_network`. In ``eval()``.
        test: images (N, 1, H, W), N ≥ 1, and their classes.
        eps: L∞ budget in pixel units, in [0, 1].
        nodes: boxes that may be bounded for one image, ≥ 1. More prove more, and take longer.
        track: shows the progress.

    Raises:
        UnprovableError: nothing can be proved of defenses of this kind.
        UserError: nothing can be proved of this defense as it is set, this classifier or these images.
    """
    network = provable_network(defense)
    _check(network, classifier, test, eps, nodes)
    begin = time.perf_counter()
    certifier = CodeCertifier(network, classifier, nodes)
    _check_steady(network, classifier)
    batches = track(batches_of(len(test.labels), BATCH), f"proving eps {eps:g}")
    parts = [certifier.certify(test.images[batch], test.labels[batch], eps) for batch in batches]
    verdicts, witnesses, boxes, free = (torch.cat(found) for found in zip(*parts, strict=True))
    digest = digest_of(network, classifier, test, eps, nodes, verdicts)
    return Proofs(verdicts, witnesses, boxes, free, eps, nodes, time.perf_counter() - begin, digest)


def provable_network(defense: nn.Module) -> CertifiedVQVAE:
    """The network of a defense of which something can be proved: an :class:`src.defenses.AutoencoderPurifier` with a
    :class:`src.models.CertifiedVQVAE`, in float32, clipped and without noise.

    Nothing is taken for granted: another class, even one made from these, may compute something else.

    Raises:
        UnprovableError: it is another defense.
        UserError: it is this defense, with settings that the bounds are not about.
    """
    while type(defense) is StraightThrough:  # another gradient, the same images
        defense = defense.purifier
    if type(defense) is not AutoencoderPurifier or type(defense.network) is not CertifiedVQVAE:
        kind = type(getattr(defense, "network", defense)).__name__
        raise UnprovableError(f"nothing can be proved of a defense by {kind}; try defense=vqvae_certified")
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
    settings = torch.tensor([SCHEMA, eps, nodes], dtype=torch.float64)
    parts = {"asked": settings, "images": test.images, "labels": test.labels, "verdicts": verdicts}
    for name, module in (("network", network), ("classifier", classifier)):
        parts |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    thresholds = torch.tensor(network.thresholds, dtype=torch.float64)
    return weights_fingerprint(parts | {"thresholds": thresholds})


def _refuse(reason: str) -> NoReturn:
    raise UserError(f"nothing can be proved of this defense: {reason}")


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
    drawings = torch.cat([network.drawings(int(label), network.stand_in[label, :1]) for label in labels])
    together, again = classifier(drawings), classifier(drawings)
    alone = torch.cat([classifier(drawing) for drawing in drawings.split(1)])
    if together.shape != (PROBED, network.num_classes) or not together.isfinite().all():
        raise UserError(f"the classifier must give {network.num_classes} finite logits for each image")
    if max((again - together).abs().max(), (alone - together).abs().max()) > READ / 4:
        raise UserError("nothing can be proved of a classifier whose logits differ from time to time or batch to batch")
