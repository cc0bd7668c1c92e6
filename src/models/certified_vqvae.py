"""A VQ-VAE whose code for the class is proved not to move: trained by interval bounds behind a threshold."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.augmentation import shifted
from src.models.guided import Guided
from src.models.intervals import BoundedEncoder, Interval, draw_for_intervals, least_margins
from src.models.quantizer import EMAQuantizer
from src.straight_through import straight_through

log = logging.getLogger(__name__)

#: By how much the classifier's largest logit must exceed the others for a drawing to count as read. Far above what
#: the order of float32 sums changes.
READ = 1e-2


class CertifiedVQVAE(Guided):
    """VQ-VAE for nearly black and white images, with one code for the class and a few for the style of the digit.

    1. Each threshold t makes a channel of bits, 1[x > t]. An attacker with eps can only choose the bits with
       |x − t| ≤ eps; all others are constants.
    2. A small encoder and a linear map turn them into a vector z, which is replaced by the nearest of K codes e_k, one
       a class. The nearest one minimizes ½|e_k|² − z·e_k.
    3. Another encoder, of which nothing is proved, chooses ``styles`` more codes of a codebook of its own.
    4. A decoder draws the image from all of them. What a code draws that the classifier would not read as that code's
       class is not drawn at all: another style stands in for it, by a table made at the end of the training. So the
       style may be anything, and the frozen classifier reads the class that the first code says.

    The first encoder learns from interval bounds alone (Gowal et al., arXiv:1810.12715). Its loss is the cross-entropy
    of the margins between the codes, each at its lower bound over all that an attacker could do with ``eps``, which is
    raised from 0 over a ``ramp``. The rest is trained beside it on a part of each batch: squared error, commitment, and
    ``guidance`` times the classifier's cross-entropy on the drawing of the class in its own styles and in random ones.

    The certificate is :mod:`src.evaluation.code_certificate`.

    Args:
        thresholds: in pixel units, in (0, 1).
        eps: L∞ budget of the bounds in training, in pixel units.
        ramp: share of the training over which eps is raised, after ``warmup``, a share without any.
        subselection: share of the pixels that an attacker can move that are left to him in the bounds of training, in
            [0, 1]; see :meth:`training_box`.
        convolutions: (channels, kernel, stride, padding) of the bounded encoder's convolutions.
        linears: widths of its linear layers.
        dimension: length D of z and of the class codes, ≥ K.
        styles, style_codes, style_dimension: number of style codes an image, size and length of their codebook.
        hidden: channels of style encoder and decoder.
        drawn: images a batch that the drawing is trained on, ≥ 1.
        guidance: weight of the classifier's cross-entropy, ≥ 0.
        commitment_cost: weight of the commitment term, as in :class:`VQVAE`.
        shift: pixels that a training image is moved by at most.
        lr: of the bounded encoder; falls by half a cosine over the second half of the training.
        drawing_lr: of the rest; falls by half a cosine over the whole.
        in_channels, image_size, num_classes: of the data. Images of one channel only.
    """

    stand_in: Tensor
    levels: Tensor
    eps_now: Tensor
    plans_ahead = True  #: eps and learning rate depend on how many epochs are to come

    graphable = True  #: see :class:`src.workflows.graphed_steps.GraphedSteps`

    def __init__(
        self,
        thresholds: Sequence[float] = (0.5,),
        eps: float = 0.3,
        warmup: float = 0.02,
        ramp: float = 0.4,
        subselection: float = 1.0,
        convolutions: Sequence[Sequence[int]] = ((32, 5, 2, 2), (64, 4, 2, 1), (64, 3, 1, 1)),
        linears: Sequence[int] = (256,),
        dimension: int = 10,
        styles: int = 2,
        style_codes: int = 32,
        style_dimension: int = 8,
        hidden: int = 32,
        drawn: int = 16,
        guidance: float = 0.2,
        commitment_cost: float = 0.25,
        shift: int = 0,
        lr: float = 2e-3,
        drawing_lr: float = 1e-3,
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        if not thresholds or not all(0 < t < 1 for t in thresholds):
            raise ValueError(f"thresholds must be in (0, 1), in pixel units; got {list(thresholds)}")
        if not 0 <= eps < 1 or min(warmup, ramp) < 0 or warmup + ramp > 1:
            raise ValueError(
                "eps must be in [0, 1), warmup and ramp shares of the training that sum to 1 at most; "
                f"got {eps}, {warmup} and {ramp}"
            )
        if not 0 <= subselection <= 1:
            raise ValueError(f"subselection is a share, in [0, 1]; got {subselection}")
        if in_channels != 1 or image_size % 4 or dimension < num_classes:
            raise ValueError(
                "images must have one channel and a size divisible by 4, and dimension be at least the number of "
                f"classes; got {in_channels}, {image_size} and {dimension} for {num_classes}"
            )
        if min(styles, style_codes, style_dimension, hidden, drawn) < 1 or shift < 0:
            raise ValueError("styles, style_codes, style_dimension, hidden and drawn must be at least 1, shift 0")
        self.save_hyperparameters()
        self.thresholds = tuple(float(t) for t in thresholds)
        self.eps, self.warmup, self.ramp, self.shift, self.subselection = eps, warmup, ramp, shift, subselection
        self.drawn, self.guidance, self.commitment_cost = drawn, guidance, commitment_cost
        self.lr, self.drawing_lr, self.num_classes = lr, drawing_lr, num_classes
        self.styles, self.style_codes = styles, style_codes
        self.encoder = BoundedEncoder(len(self.thresholds), image_size, convolutions, linears)
        self.to_code = nn.Linear(self.encoder.width, dimension)
        draw_for_intervals(self.to_code.weight)
        nn.init.zeros_(self.to_code.bias)
        self.codebook = nn.Parameter(torch.eye(num_classes, dimension))
        self.style_encoder = _style_encoder(len(self.thresholds), hidden, image_size // 4, (styles, style_dimension))
        self.quantizer = EMAQuantizer(style_codes, style_dimension)
        self.decoder = _decoder(dimension + styles * style_dimension, hidden, image_size // 4)
        self.register_buffer("levels", torch.tensor(self.thresholds).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("eps_now", torch.zeros(()), persistent=False)  # of this training step
        # For each class, which combination of styles is drawn where a combination is asked for.
        self.register_buffer("stand_in", torch.arange(style_codes**styles).repeat(num_classes, 1))

    # Purification

    def forward(self, x: Tensor) -> Tensor:
        """Drawing of what ``x`` (N, 1, H, W) is read as; same shape, not clipped."""
        bits = self.bits(x)
        z = self.to_code(self.encoder(bits))
        classes = self.nearest(z)
        code = straight_through(self.codebook[classes], z)
        style = self.style_encoder(bits)
        indices = self.quantizer(style.movedim(1, 2).unsqueeze(3)).indices.flatten(1)
        indices = self.unravelled(self.stand_in[classes, self.ravelled(indices)])
        return self.draw(code, straight_through(self.quantizer.codebook[indices], style))

    def bits(self, x: Tensor) -> Tensor:
        """1[x > t], a channel a threshold; ``x`` (N, 1, H, W) to (N, T, H, W). The gradient passes straight through."""
        return torch.cat([straight_through((x > t).to(x.dtype), x) for t in self.thresholds], 1)

    def nearest(self, z: Tensor) -> Tensor:
        """argmin_k ½|e_k|² − z·e_k for vectors ``z`` (N, D); (N,), int64."""
        return self.scores(z).argmax(1)

    def scores(self, z: Tensor) -> Tensor:
        """z·e_k − ½|e_k|² for vectors ``z`` (N, D): (N, K). The nearest code has the largest."""
        return F.linear(z, self.codebook, -self.codebook.square().sum(1) / 2)

    def draw(self, code: Tensor, style: Tensor) -> Tensor:
        """Images (N, 1, H, W), not clipped, of class codes (N, D) and style codes (N, styles, S)."""
        return self.decoder(torch.cat([code, style.flatten(1)], 1))

    def drawings(self, label: int, combinations: Tensor) -> Tensor:
        """What class ``label`` looks like in style ``combinations`` (M,), each in [0, style_codes^styles), whatever
        stands in for them; (M, 1, H, W), clipped to [0, 1] as a purifier's images are."""
        style = self.quantizer.codebook[self.unravelled(combinations)]
        return self.draw(self.codebook[label].expand(len(style), -1), style).clamp(0, 1)

    def ravelled(self, indices: Tensor) -> Tensor:
        """Number of a combination of style codes; (N, styles) to (N,)."""
        powers = self.style_codes ** torch.arange(self.styles, device=indices.device)
        return (indices * powers).sum(1)

    def unravelled(self, combinations: Tensor) -> Tensor:
        """The style codes of a combination by its number; (N,) to (N, styles)."""
        powers = self.style_codes ** torch.arange(self.styles, device=combinations.device)
        return combinations[:, None] // powers % self.style_codes

    # Training

    def box(self, x: Tensor, eps: float | Tensor) -> Interval:
        """Interval of bits (N, T, H, W) that an attacker with ``eps``, a number or a scalar, can make of ``x``
        (N, 1, H, W)."""
        low, high = self._corners(x, eps)
        return Interval((high + low) / 2, (high - low) / 2)

    def _corners(self, x: Tensor, eps: float | Tensor) -> tuple[Tensor, Tensor]:
        """The bits (N, T, H, W) of the darkest and the lightest image that an attacker can make of ``x``."""
        t = self.levels.to(x.dtype)
        return ((x - eps).clamp(min=0) > t).to(x.dtype), ((x + eps).clamp(max=1) > t).to(x.dtype)

    def training_box(self, x: Tensor, y: Tensor, eps: float | Tensor) -> Interval:
        """A part of :meth:`box` around an attacked image, so that training asks for less than all of it at once (SABR,
        Müller et al., arXiv:2210.04871). Of the pixels that an attacker can move, each stays open with a probability of
        ``subselection``; each other is as dark or as light as he can make it, whichever one gradient step from a random
        corner of the box finds worse. Without a gradient."""
        if self.subselection == 1:
            return self.box(x, eps)
        dark, light = self._corners(x, eps)
        corner = torch.where(torch.rand_like(x) < 0.5, dark, light).requires_grad_(True)
        was_training = self.encoder.training
        self.encoder.eval()  # the averages of batch normalization are of the boxes that are bounded
        with torch.enable_grad():
            scores = self.scores(self.to_code(self.encoder(corner)))
            (gradient,) = torch.autograd.grad(F.cross_entropy(scores, y, reduction="sum"), corner)
        self.encoder.train(was_training)
        worse = torch.where((gradient * (light - dark)).sum(1, keepdim=True) > 0, light, dark)
        is_open = torch.rand_like(x) < self.subselection
        low, high = torch.where(is_open, dark, worse), torch.where(is_open, light, worse)
        return Interval((high + low) / 2, (high - low) / 2)

    def margins(self, box: Interval, y: Tensor) -> Tensor:
        """Lower bounds over ``box`` of score y minus score k, (N, K); see :func:`least_margins`."""
        weight = self.codebook @ self.to_code.weight
        bias = self.codebook @ self.to_code.bias - self.codebook.square().sum(1) / 2
        return least_margins(self.encoder.bounds(box), weight, bias, y)

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        return self.global_step / max(1, int(self.trainer.estimated_stepping_batches))

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise the budget of the bounds to what it is at this point of the training."""
        share = (self.progress - self.warmup) / self.ramp if self.ramp else float(self.progress >= self.warmup)
        self.eps_now.fill_(self.eps * min(1.0, max(0.0, share)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = shifted(batch[0], self.shift), batch[1]
        metrics = self._metrics(x, y, self.training_box(x, y, self.eps_now), self.drawn) | {"eps": self.eps_now}
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=len(x))
        return metrics["loss"]

    def _metrics(self, x: Tensor, y: Tensor, box: Interval, drawn: int) -> dict[str, Tensor]:
        """The losses by name, those of the drawing on the first ``drawn`` images alone; their sum; the share of the
        ``box``es proved."""
        margins = self.margins(box, y)
        parts = {"bounds": F.cross_entropy(-margins, y)} | self._drawing_losses(x[:drawn], y[:drawn])
        return parts | {"loss": torch.stack(list(parts.values())).sum(), "proved": _proved(margins)}

    def _drawing_losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What the styles and the decoder learn from: the drawing of ``x`` (N, 1, H, W), given its class ``y`` (N,)."""
        quantized = self.quantizer(self.style_encoder(self.bits(x)).movedim(1, 2).unsqueeze(3))
        styles = quantized.values.squeeze(3).movedim(2, 1)
        codes = self.codebook[y].detach()
        drawing = self.draw(codes, styles)
        losses = {
            "reconstruction": F.mse_loss(drawing, x),
            "commitment": self.commitment_cost * quantized.commitment,
        }
        if self._classifier and self.guidance and self.training:
            indices = torch.randint(self.style_codes, (len(x), self.styles), device=x.device)
            others = self.draw(codes, self.quantizer.codebook[indices])
            logits = self._classifier[0](torch.cat([drawing, others]).clamp(0, 1))
            losses["guidance"] = self.guidance * F.cross_entropy(logits, y.repeat(2))
        return losses

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        x, y = batch
        read = self.nearest(self.to_code(self.encoder(self.bits(x))))
        metrics = self._metrics(x, y, self.box(x, self.eps), len(x)) | {"clean": (read == y).float().mean()}
        self.log_dict({f"{stage}/{name}": value for name, value in metrics.items()}, batch_size=len(x), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """After the last epoch, find the styles that the classifier does not read as their class, and what stands in
        for them."""
        if self.trainer.current_epoch + 1 == self.trainer.max_epochs:
            for classifier in self._classifier:
                self.stand_in.copy_(self.stand_ins(classifier))

    @torch.no_grad()
    def stand_ins(self, classifier: Callable[[Tensor], Tensor]) -> Tensor:
        """For each class and combination of styles the number of the combination that is drawn instead, (K, M), int64:
        the combination itself if the classifier reads its drawing as the class, else the nearest that it does. A class
        none of whose drawings is read keeps all of them, with a warning: no image of it will be proved."""
        combinations = torch.arange(self.style_codes**self.styles, device=self.stand_in.device)
        styles = self.quantizer.codebook[self.unravelled(combinations)].flatten(1)
        table = []
        for label in range(self.num_classes):
            logits = torch.cat([classifier(self.drawings(label, chunk)) for chunk in combinations.split(512)])
            others = logits.clone()
            others[:, label] = -math.inf
            read = logits[:, label] - others.amax(1) > READ
            if not read.any():
                log.warning("the classifier reads no drawing of class %d as that class: train longer", label)
                read = torch.ones_like(read)
            nearest = torch.cat([torch.cdist(chunk, styles[read]).argmin(1) for chunk in styles.split(512)])
            table.append(torch.where(read, combinations, combinations[read][nearest]))
        return torch.stack(table)

    def illustrate(self, x: Tensor) -> dict[str, Tensor]:
        """Images to look at: ``x`` (N, 1, H, W), its first channel of bits, and the drawing."""
        return {"original": x, "noisy": self.bits(x)[:, :1], "reconstruction": self(x)}

    def configure_optimizers(self) -> Any:
        """Adam; the bounded encoder's rate and that of the rest fall by half a cosine each, see ``lr``."""
        bounded = [*self.encoder.parameters(), *self.to_code.parameters(), self.codebook]
        drawing = [*self.style_encoder.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.Adam(
            [{"params": bounded, "lr": self.lr}, {"params": drawing, "lr": self.drawing_lr}], fused=True
        )
        total = int(self.trainer.estimated_stepping_batches)

        first = max(1, min(200, total // 10))  # steps over which the rate is raised

        def late(step: int) -> float:
            return min(1.0, (step + 1) / first) * _half_cosine(2 * step / total - 1)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [late, lambda step: _half_cosine(step / total)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """The bounded encoder's gradient alone: at the end of the ramp a step can be very large."""
        nn.utils.clip_grad_norm_([*self.encoder.parameters(), *self.to_code.parameters(), self.codebook], 10.0)


def _half_cosine(share: float) -> float:
    """1 up to a share of 0, 0 from 1 on, half a cosine between."""
    return (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2


def _proved(margins: Tensor) -> Tensor:
    """Share of the images (rows) all of whose margins but their own are above zero."""
    return ((margins > 0).sum(1) == margins.shape[1] - 1).float().mean()


def _style_encoder(channels: int, hidden: int, quarter: int, codes: tuple[int, int]) -> nn.Sequential:
    """Bits (N, ``channels``, 4 ``quarter``, 4 ``quarter``) → the style's vectors (N, *codes)."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, 2 * hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * hidden * quarter**2, math.prod(codes)),
        nn.Unflatten(1, codes),
    )


def _decoder(dimension: int, hidden: int, quarter: int) -> nn.Sequential:
    """All codes of an image (N, ``dimension``) → its drawing (N, 1, 4 ``quarter``, 4 ``quarter``)."""
    return nn.Sequential(
        nn.Linear(dimension, 2 * hidden * quarter**2),
        nn.ReLU(),
        nn.Unflatten(1, (2 * hidden, quarter, quarter)),
        nn.ConvTranspose2d(2 * hidden, hidden, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(hidden, 1, 4, stride=2, padding=1),
    )
