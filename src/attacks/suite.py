"""Several attacks, one after the other, on the images that still stand: robust accuracy for the least work."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from src.attacks.budget import check_budget, within_budget
from src.attacks.verdict import fooled
from src.signatures import accepts


def survivors(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attacks: Mapping[str, Callable[..., Tensor]],
    early_stop: bool = False,
) -> Tensor:
    """Run ``attacks`` one after the other, each on the images that still stand.

    An image that fools ``model`` is done, as in AutoAttack (Croce & Hein, arXiv:2003.01690, section 5). So the cheap
    attacks should come first. The images left at the end are those of the worst case over the single attacks, up to the
    random numbers that some of them draw. How many images each attack alone would leave is not known.

    Args:
        model, x, y, eps: as in :mod:`src.attacks.gradient`.
        attacks: (model, x, y, *, eps) → x_adv, by name. One that takes ``early_stop`` gets it as true.
        early_stop: that an image that fools ``model`` may be left alone: ``model`` itself is judged, and gives the same
            answer each time.

    Returns:
        Attacked images, (N, C, H, W), in [0, 1], within ``eps`` of ``x``. An image that no attack changes the class of
        comes from the last attack.

    Examples:
        FGSM fools the classifier with the first image; PGD is tried on the second alone.

        >>> import torch
        >>> from src.attacks import fgsm, pgd
        >>> brighter = torch.nn.Flatten()
        >>> x, y = torch.tensor([[[[0.6, 0.4]]], [[[0.9, 0.1]]]]), torch.tensor([0, 0])
        >>> attacks = {"fgsm": fgsm, "pgd": pgd}
        >>> brighter(survivors(brighter, x, y, eps=0.125, attacks=attacks, early_stop=True)).argmax(1)
        tensor([1, 0])

    Raises:
        ValueError: ``early_stop`` is false, arguments out of range, or an attack spent more than ``eps``.
    """
    check_budget(x, y, eps)
    if eps == 0 or not len(x):
        return x
    if not early_stop:
        raise ValueError(
            "early_stop is false, so which images still stand is not known: the attacked model is not the one that is "
            "judged, or it answers at random; in a sweep set attack.survivors=false"
        )
    x_adv, standing = x.clone(), (~fooled(model, x, y)).nonzero().flatten()
    for attack in attacks.values():
        if not len(standing):
            break
        bound = partial(attack, eps=eps, **({"early_stop": True} if accepts(attack, "early_stop") else {}))
        attacked = within_budget(bound, model, x[standing], y[standing], eps)
        x_adv[standing] = attacked
        standing = standing[~fooled(model, attacked, y[standing])]
    return x_adv
