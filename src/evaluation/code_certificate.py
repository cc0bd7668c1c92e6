"""A proof, image by image, that no perturbation of a certified VQ-VAE's input changes what the classifier says.

The codes are finite. Which of them an attacker can reach is bounded by intervals (:mod:`src.evaluation.bounds`); what
the classifier says of their drawings is looked up. Neither decoder nor classifier has to be bounded. What stays open
is attacked (:mod:`src.evaluation.bit_attack`), and split on the bits that the attacker is free to choose if it stands.
``docs/certificate.md`` has the proof.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from src.evaluation.bit_attack import BitAttack
from src.evaluation.bounds import CodeBounds
from src.models.certified_vqvae import READ, CertifiedVQVAE
from src.models.intervals import Interval

#: By how much more than eps a pixel may be moved: what :func:`src.attacks.check_adversarial` lets pass, and rounding.
MARGIN = 2e-6

#: Nodes of a search that are bounded at a time.
NODES = 32


class Verdict(IntEnum):
    """What a certificate says of an image."""

    REFUTED = 0  #: there is a perturbation that is classified as something else; it was found
    OPEN = 1  #: not decided within the budget
    PROVED = 2  #: no perturbation is classified as anything but the image's class


class CodeCertificates(NamedTuple):
    """What :meth:`CodeCertifier.certify` found out about a batch of images."""

    verdicts: Tensor  #: (N,), int64, of :class:`Verdict`
    witnesses: Tensor  #: (N, 1, H, W): where refuted, an image within eps that is classified as something else; else x
    nodes: Tensor  #: boxes that were bounded, (N,), int64
    free: Tensor  #: bits that the attacker can choose, (N,), int64


class CodeCertifier:
    """Proves for a purifier and a frozen classifier which images keep their class.

    Args:
        network: in ``eval()``.
        classifier: images (N, 1, H, W) in [0, 1] → logits (N, K). It is asked about the drawings only.
        nodes: boxes that may be bounded for one image. 1 does not split at all.
        dtype: what the bounds are computed in, float32 or float64. Both are sound. float64 takes twice as long and
            proves some tenths of a percent more: what it adds for its own rounding is nothing beside the network's.
    """

    def __init__(
        self,
        network: CertifiedVQVAE,
        classifier: Callable[[Tensor], Tensor],
        nodes: int = 500,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"nodes must be at least 1; got {nodes}")
        self.network, self.classifier, self.nodes = network, classifier, nodes
        last = (network.to_code.weight, network.to_code.bias, network.codebook)
        self.bounds = CodeBounds(network.encoder, *last, dtype)
        self.readings = readings(network, classifier)
        self.attack = BitAttack(network)
        self.thresholds = torch.tensor(network.thresholds, dtype=torch.float32).double().view(1, -1, 1, 1)

    def certify(self, x: Tensor, y: Tensor, eps: float) -> CodeCertificates:
        """Certificates of images ``x`` (N, 1, H, W) in [0, 1] with classes ``y`` (N,) for L∞ perturbations of ``eps``
        in pixel units. All of them are bounded at a time."""
        box = bit_box(x, self.thresholds, eps)
        with torch.no_grad():
            proved = ~self._threats(self.bounds.possible(box), y).any(1)
        verdicts = torch.where(proved, int(Verdict.PROVED), int(Verdict.OPEN))
        witnesses, nodes = x.clone(), torch.ones_like(y)
        unproved = (~proved).nonzero().flatten()
        unproved = self._not_refuted(unproved, x[unproved], y, verdicts, witnesses)
        # Most of what cannot be proved is fooled by an attack, which takes a hundredth of the search's time.
        attacked = self.attack(x[unproved], y[unproved], eps)
        for i in self._not_refuted(unproved, attacked, y, verdicts, witnesses).tolist():
            search = _Search(self, x[i], int(y[i]), eps, Interval(box.centre[i], box.radius[i]))
            verdicts[i], witnesses[i], nodes[i] = search.run()
        return CodeCertificates(verdicts, witnesses, nodes, (box.radius > 0).flatten(1).sum(1))

    def _not_refuted(self, indices: Tensor, images: Tensor, y: Tensor, verdicts: Tensor, witnesses: Tensor) -> Tensor:
        """Those of ``indices`` (M,) that are not refuted by their ``images`` (M, 1, H, W). Sets verdict and witness of
        the others."""
        wrong = self.predicted(images) != y[indices] if len(indices) else indices > 0
        verdicts[indices[wrong]], witnesses[indices[wrong]] = int(Verdict.REFUTED), images[wrong]
        return indices[~wrong]

    def _threats(self, possible: Tensor, y: Tensor) -> Tensor:
        """Those of the possible codes (N, K) that have a drawing which may be read as another class than ``y`` (N,)."""
        own = torch.nn.functional.one_hot(y, self.readings.shape[1]).bool()
        harmful = (self.readings[None] & ~own[:, None]).any(2)
        return possible & harmful

    def predicted(self, x: Tensor) -> Tensor:
        """What the defended classifier says of images (N, 1, H, W), (N,)."""
        with torch.no_grad():
            return self.classifier(self.network(x).clamp(0, 1)).argmax(1)


@torch.no_grad()
def readings(network: CertifiedVQVAE, classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """Which classes the classifier may give to what a class code draws in any of its styles, (K, classes), bool.

    A class counts if its logit comes within :data:`READ` / 2 of the largest one; if one is not finite, which is a wrong
    answer, all count. The order in which float32 sums are computed may differ from one batch to the next; it moves
    logits by far less than that.
    """
    table = []
    for label in range(network.num_classes):
        drawings = [network.drawings(label, chunk) for chunk in network.stand_in[label].unique().split(512)]
        logits = torch.cat([classifier(drawing) for drawing in drawings])
        near = logits >= logits.amax(1, keepdim=True) - READ / 2  # false for NaN
        table.append((near | ~logits.isfinite().all(1, keepdim=True)).any(0))
    return torch.stack(table)


def bit_box(x: Tensor, thresholds: Tensor, eps: float) -> Interval:
    """The bits (N, T, H, W) that perturbations of at most ``eps`` can make of ``x`` (N, 1, H, W), as an interval.

    A bit 1[x > t] is free if |x − t| ≤ eps + :data:`MARGIN`; computed in float64, in which the float32 values of x and
    ``thresholds`` (1, T, 1, 1) are exact.
    """
    distance = x.double() - thresholds.to(x.device)
    reach = eps + MARGIN
    high, low = (distance > -reach).float(), (distance > reach).float()
    return Interval((high + low) / 2, (high - low) / 2)


class _Search:
    """Branch and bound over the free bits of one image."""

    def __init__(self, certifier: CodeCertifier, x: Tensor, y: int, eps: float, box: Interval) -> None:
        self.certifier, self.x, self.y, self.eps, self.box = certifier, x, y, eps, box

    def run(self) -> tuple[int, Tensor, int]:
        """Verdict, witness (or the image itself), number of boxes bounded."""
        used, open_boxes = 0, [self.box]
        while open_boxes:
            if used >= self.certifier.nodes:
                return Verdict.OPEN, self.x, used
            # The newest first: depth-first search keeps few boxes.
            boxes, open_boxes = open_boxes[-NODES:], open_boxes[:-NODES]
            used += len(boxes)
            nodes = Interval(torch.stack([box.centre for box in boxes]), torch.stack([box.radius for box in boxes]))
            unproved, by_centre, by_radius = self._bound(nodes)
            if not len(unproved):
                continue
            nodes = Interval(nodes.centre[unproved], nodes.radius[unproved])
            if (witness := self._fooling(self._candidates(nodes, by_centre))) is not None:
                return Verdict.REFUTED, witness, used
            open_boxes += self._split(nodes, by_centre, by_radius)
        return Verdict.PROVED, self.x, used

    def _bound(self, nodes: Interval) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the boxes that are not proved, and for each of those the gradients of its worst margin with
        respect to centre and radius."""
        centre, radius = nodes.centre.requires_grad_(), nodes.radius.requires_grad_()
        with torch.enable_grad():
            margins = self.certifier.bounds.margins(Interval(centre, radius))
            threats = self.certifier._threats(~(margins > 0).any(1), torch.full((len(centre),), self.y))
            unproved = threats.any(1).nonzero().flatten()
            if not len(unproved):
                return unproved, centre, radius
            worst = margins[unproved, self.y].masked_fill(~threats[unproved], torch.inf).amin(1)
            # Which bit is split matters for speed alone.
            by_centre, by_radius = torch.autograd.grad(worst.sum(), (centre, radius))
        return unproved, by_centre[unproved], by_radius[unproved]

    def _candidates(self, nodes: Interval, by_centre: Tensor) -> Tensor:
        """For each box the image (M, 1, H, W) whose bits lower the worst margin most, to first order."""
        bits = (nodes.centre - nodes.radius * by_centre.sign() > 0.5).flatten(2)
        # Bits are chosen one by one, and need not fit each other: the largest threshold whose bit is set counts.
        levels = (bits * (self.certifier.attack.rank + 1)[:, None]).amax(1)
        values, allowed = self.certifier.attack.choices(self.x[None], self.eps)
        value, possible = (
            tensor.expand(len(levels), -1, -1).gather(1, levels[:, None])[:, 0] for tensor in (values, allowed)
        )
        return torch.where(possible, value, self.x.flatten().double()).view(-1, *self.x.shape).float()

    def _fooling(self, images: Tensor) -> Tensor | None:
        """The first of ``images`` (M, 1, H, W) that the defended classifier gets wrong."""
        predicted = self.certifier.predicted(images)
        wrong = (predicted != self.y).nonzero().flatten()
        return images[wrong[0]] if len(wrong) else None

    def _split(self, nodes: Interval, by_centre: Tensor, by_radius: Tensor) -> list[Interval]:
        """Each box in two, at the free bit that the worst margin depends on most: once with the bit 0, once 1. Boxes
        without a free bit, which rounding alone keeps open, stay as they are."""
        thresholds = self.certifier.thresholds.flatten()
        gain = torch.where(nodes.radius > 0, -by_radius - by_centre.abs() / 2, -torch.inf).flatten(1)
        children = []
        for i, bit in enumerate(gain.argmax(1).tolist()):
            if not (nodes.radius[i] > 0).any():
                children.append(Interval(nodes.centre[i], nodes.radius[i]))
                continue
            channel, pixel = divmod(bit, nodes.centre[i, 0].numel())
            children.extend(
                _with_bit(nodes.centre[i], nodes.radius[i], thresholds, channel, pixel, value) for value in (0.0, 1.0)
            )
        return children


def _with_bit(centre: Tensor, radius: Tensor, thresholds: Tensor, channel: int, pixel: int, value: float) -> Interval:
    """A box of one image (T, H, W) with a bit set, and the bits that follow from it: a pixel above a threshold is above
    all lower ones, one that is not above it is above no higher one."""
    follows = thresholds <= thresholds[channel] if value else thresholds >= thresholds[channel]
    flat_centre, flat_radius = centre.clone().flatten(1), radius.clone().flatten(1)
    free = follows.to(centre.device) & (flat_radius[:, pixel] > 0)
    flat_centre[free, pixel], flat_radius[free, pixel] = value, 0.0
    return Interval(flat_centre.view_as(centre), flat_radius.view_as(radius))
