"""Checks of the models that are evaluated: before, that their numbers will mean something; afterwards, that they are
what they were."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from src.defended import DefendedClassifier
from src.errors import UserError
from src.randomness import seeded

#: Images that :func:`check_model` looks at.
PROBED = 8

#: By how much logits may differ, relative to the largest of them, and still be the same but for rounding.
ROUNDING = 1e-3


@torch.no_grad()
def check_model(classifier: nn.Module, defense: nn.Module, x: Tensor, num_classes: int) -> None:
    """Refuse a classifier and a defense whose numbers would mean nothing.

    Args:
        classifier: images → logits (N, K).
        defense: images → images of the same shape.
        x: clean images (N, C, H, W) in [0, 1]; the first :data:`PROBED` are used.
        num_classes: K.

    Raises:
        ValueError: logits are not (N, K), or NaN for every image; pixels of the defense are not finite in every image;
            or what comes out for an image depends on the other images of its batch.
    """
    x = x[:PROBED]
    defended = DefendedClassifier(classifier, defense)
    if not _seeded_answer(defense, x).isfinite().flatten(1).all(1).any():
        raise ValueError(f"the defense returned pixels that are not finite in each of {len(x)} clean images")
    for name, model in (("classifier", classifier), ("defended classifier", defended)):
        logits = _seeded_answer(model, x)
        if logits.shape != (len(x), num_classes):
            raise ValueError(f"the {name} returned {tuple(logits.shape)}, not logits ({len(x)}, {num_classes})")
        if logits.isnan().any(1).all():
            raise ValueError(f"the {name} returned NaN for each of {len(x)} clean images: its accuracy means nothing")
        if _depends_on_the_batch(model, x, logits):
            raise ValueError(
                f"the {name} answers an image differently when other images stand beside it in the batch, so that its "
                "accuracy would depend on batch_size; let it use running statistics instead of the batch's"
            )


def _seeded_answer(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What ``model`` makes of a copy of ``x``; a random model draws the same numbers each time."""
    with seeded(0):
        return model(x.clone())


def _depends_on_the_batch(model: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor) -> bool:
    """Whether the first image of ``x`` (N, C, H, W) gets other logits than the first of ``logits`` (N, K) in a batch of
    copies of it. Both batches have one size, so that rounding is the same."""
    beside_copies = _seeded_answer(model, x[:1].expand_as(x))[0].nan_to_num()
    beside_others = logits[0].nan_to_num()
    largest_difference = (beside_copies - beside_others).abs().max()
    return bool(largest_difference > ROUNDING * beside_others.abs().max())


@contextmanager
def frozen(**modules: nn.Module) -> Iterator[None]:
    """Keeps the parameters and buffers of ``modules`` as they are: other cells use the same modules.

    Raises:
        UserError: one of them is another after the block. It is put back.
    """
    states = {of: {name: value.clone() for name, value in _state(module).items()} for of, module in modules.items()}
    changed = []
    try:
        yield
    finally:
        for of, module in modules.items():
            for name, value in _state(module).items():
                if name in states[of] and not _same(value, states[of][name]):
                    value.copy_(states[of][name])
                    changed.append(f"{name} of the {of}")
    if changed:
        raise UserError(f"the evaluation changed {changed[0]}, which must be frozen: numbers would depend on the order")


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved included; the memory itself, without a gradient."""
    return {name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape are equal; NaN is equal to NaN."""
    b = b.to(a.device)
    if a.shape != b.shape:
        return False
    equal = a.eq(b)
    return bool(equal.all()) or bool((equal | (a.ne(a) & b.ne(b))).all())
