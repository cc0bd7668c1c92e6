"""What attacks follow: a gradient that does not vanish for confident models, and no entry that is not finite."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.attacks import fgsm, ifgsm, input_gradient, mifgsm, pgd
from src.attacks.budget import within_budget
from src.attacks.margin import margin_of
from src.attacks.transfer import transfer
from src.log_odds import log_odds_gradient
from tests.attacks.conftest import accuracy

ATTACKS = {"fgsm": fgsm, "ifgsm": ifgsm, "mifgsm": mifgsm, "pgd": pgd}


class Scaled(nn.Module):
    """``model`` with logits ``factor`` times as large: the same decisions."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.model(x)


class InBfloat16(nn.Module):
    """``model`` as it computes in bfloat16."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(x)


class SquareRoot(nn.Module):
    """``model`` behind a square root, whose derivative at a black pixel is infinite; with 0 / 0 it is NaN."""

    def __init__(self, model: nn.Module, nan: bool) -> None:
        super().__init__()
        self.model, self.nan = model, nan

    def forward(self, x: Tensor) -> Tensor:
        root = x.sqrt()
        return self.model(root * root / root.clamp_min(1e-3) if self.nan else root)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("factor", [10, 100, 1000])
def test_the_scale_of_the_logits_changes_nothing(attack, factor, knows_digits, real_digits):
    x, y = real_digits
    left = []
    for model in (knows_digits, Scaled(knows_digits, factor)):
        torch.manual_seed(0)
        left.append(accuracy(model, attack(model, x, y, eps=0.1), y))
    assert left[0] < 0.6  # the attack works at all
    assert left[1] == pytest.approx(left[0], abs=0.02)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_classifier_in_bfloat16_is_attacked_as_well(attack, knows_digits, real_digits):
    x, y = real_digits
    torch.manual_seed(0)
    expected = accuracy(knows_digits, attack(knows_digits, x, y, eps=0.1), y)
    torch.manual_seed(0)
    model = Scaled(InBfloat16(knows_digits), 100)
    assert accuracy(knows_digits, attack(model, x, y, eps=0.1), y) <= expected + 0.02


def test_the_direction_is_that_of_cross_entropy(small_net, images, labels):
    x = images.clone().requires_grad_()
    logits = small_net(x)
    cross_entropy = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), x, retain_graph=True)[0]
    ours = log_odds_gradient(logits, labels, x)
    cosines = F.cosine_similarity(ours.flatten(1), cross_entropy.flatten(1))
    assert torch.allclose(cosines, torch.ones(len(x)), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_have_a_gradient(dtype):
    z = torch.tensor([[6e4, -6e4], [float("inf"), 0.0], [0.0, float("-inf")]]).to(dtype).requires_grad_()
    gradient = log_odds_gradient(z, torch.zeros(3, dtype=torch.int64), z)
    assert torch.equal(gradient, torch.tensor([[-1.0, 1.0]]).expand(3, 2).to(dtype))


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_pixels_without_a_finite_gradient_do_not_stop_the_others(attack, nan, knows_digits, real_digits):
    x, y = real_digits
    model = SquareRoot(knows_digits, nan)
    gradient = input_gradient(model, x, y)
    assert not gradient.isfinite().all()
    assert accuracy(model, x, y) > 0.9
    # Where the gradient is NaN nothing tells which way to go, so black pixels stay as they are
    assert accuracy(model, attack(model, x, y, eps=0.2), y) < (0.85 if nan else 0.5)


def test_a_logit_that_is_nan_is_a_wrong_answer():
    z = torch.tensor([[1.0, 0.0], [1.0, float("nan")], [float("inf"), 0.0]])
    margins = margin_of(z, torch.zeros(3, dtype=torch.int64))
    assert margins[0] == -1 and margins[1] == float("inf") and -float("inf") < margins[2] < 0


def test_an_attack_that_writes_into_its_images_cannot_hide_what_it_spent(small_net, images, labels):
    def in_place(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(0.3).clamp_(0, 1)

    before = images.clone()
    with pytest.raises(ValueError, match=r"spent 0\.3"):
        within_budget(in_place, small_net, images, labels, 0.1)
    assert torch.equal(images, before)


def test_an_attack_asks_for_its_gradient_as_anybody_would(small_net, images, labels):
    """Evaluation runs without gradients; a user's attack need not know that."""

    def one_step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x.requires_grad_()
        nn.functional.cross_entropy(model(x), y).backward()
        return (x + 0.1 * x.grad.sign()).clamp(0, 1)

    with torch.no_grad():
        x_adv = within_budget(one_step, small_net, images, labels, 0.1)
    assert not x_adv.requires_grad
    assert (x_adv - images).abs().max() == pytest.approx(0.1, abs=1e-6)


def test_a_model_that_writes_into_its_images_cannot_change_them(small_net, images, labels):
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return small_net(x.mul_(0.5))

    before = images.clone()
    x_adv = ifgsm(InPlace(), images, labels, eps=0.1)
    assert torch.equal(images, before)
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: ((x * 255).byte(), y), "uint8"),
        (lambda x, y: (x * 255, y), "divide them by 255"),
        (lambda x, y: (x.half(), y), "float16"),
        (lambda x, y: (x, y + 5), "labels must be 0 to 9"),
        (lambda x, y: (x, y - 9), "labels must be 0"),
        (lambda x, y: (x, y.int()), "int64"),
    ],
)
def test_what_no_attack_can_work_with(attack, spoil, message, small_net, images):
    labels = torch.tensor([0, 9] * 6)
    with pytest.raises(ValueError, match=message):
        attack(small_net, *spoil(images, labels), eps=0.1)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_batch_normalization_in_training_mode_is_refused_and_learns_nothing(attack, small_net, images, labels):
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, small_net)
    with pytest.raises(ValueError, match=r"call eval\(\)"):
        attack(model.train(), images, labels, eps=0.1)
    assert norm.num_batches_tracked == 0
    attack(model.eval(), images, labels, eps=0.1)


def test_a_transfer_from_a_network_that_is_nan_is_refused(small_net, images, labels):
    with pytest.raises(ValueError, match="source"):
        transfer(small_net, images, labels, eps=0.1, source=Scaled(small_net, float("nan")), attack=fgsm)
