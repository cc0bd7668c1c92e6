"""The VQ-VAE whose class code is trained by interval bounds."""

import pytest
import torch
from torch import Tensor, nn

from src.models import CertifiedVQVAE

SMALL = {
    "convolutions": ((8, 5, 2, 2), (8, 4, 2, 1)),
    "linears": (32,),
    "thresholds": (0.35, 0.65),
    "style_codes": 4,
    "style_dimension": 3,
    "hidden": 4,
    "drawn": 8,
    "eps": 0.1,
    "warmup": 0.3,
    "ramp": 0.5,
    "drawing_lr": 1e-2,
    "guidance": 1.0,
}


class Training:
    """As much of a trainer as the module asks for."""

    def __init__(self, steps: int) -> None:
        self.estimated_stepping_batches, self.global_step, self.current_epoch, self.max_epochs = steps, 0, 0, 1


def attach(network: CertifiedVQVAE, steps: int) -> Training:
    training = Training(steps)
    type(network).global_step = property(lambda self: training.global_step)
    type(network).trainer = property(lambda self: training)
    network.log_dict = lambda *_, **__: None
    return training


def untrained(classifier: nn.Module) -> CertifiedVQVAE:
    torch.manual_seed(0)

    class Untrained(CertifiedVQVAE):
        """A class of its own, for the properties that :func:`attach` gives it."""

    return Untrained.guided_by(classifier, **SMALL)


@pytest.fixture
def network(knows_digits: nn.Module) -> CertifiedVQVAE:
    return untrained(knows_digits)


@pytest.fixture(scope="module")
def trained(knows_digits: nn.Module, real_digits: tuple[Tensor, Tensor]) -> CertifiedVQVAE:
    """A network that learned the first 128 of the real digits, in ``eval()``; not to be changed."""
    network = untrained(knows_digits)
    learn(network, real_digits[0][:128], real_digits[1][:128], 120)
    return network


def learn(network: CertifiedVQVAE, x: Tensor, y: Tensor, steps: int) -> None:
    training = attach(network, steps)
    configured = network.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for step in range(steps):
        training.global_step = step
        optimizer.zero_grad()
        order = torch.randperm(len(x))  # the drawing is trained on the first images of a batch
        network.on_train_batch_start((x[order], y[order]), step)
        network.training_step((x[order], y[order]), step).backward()
        network.configure_gradient_clipping(optimizer)
        optimizer.step()
        schedule.step()
    network.on_train_epoch_end()
    network.eval().requires_grad_(False)


@pytest.mark.slow
def test_training_makes_its_codes_provable_and_its_drawings_readable(network, trained, knows_digits, real_digits):
    x, y = real_digits[0][:128], real_digits[1][:128]

    def proved(network: CertifiedVQVAE) -> float:
        margins = network.eval().margins(network.box(x, 0.1), y)
        return ((margins > 0).sum(1) == 9).float().mean().item()

    assert proved(network) < 0.2 and proved(trained) > 0.6
    assert (knows_digits(trained(x).clamp(0, 1)).argmax(1) == y).float().mean() > 0.8


def test_eps_is_raised_from_nothing_to_all(network):
    training, seen = attach(network, 100), []
    for training.global_step in range(101):
        network.on_train_batch_start()
        seen.append(network.eps_now.item())
    assert seen[30] == 0 < seen[31] and seen[80] == seen[100] == pytest.approx(network.eps) and seen == sorted(seen)
    assert 0.04 < seen[55] < 0.06


def test_bits_are_what_is_above_a_threshold_with_a_gradient_straight_through(network, images):
    x = images.clone().requires_grad_()
    bits = network.bits(x)
    assert torch.equal(bits, torch.cat([(images > 0.35).float(), (images > 0.65).float()], 1))
    (gradient,) = torch.autograd.grad(bits.sum(), x)
    assert torch.equal(gradient, torch.full_like(images, 2.0))


def test_the_box_holds_all_that_eps_can_do_and_no_bit_more(network, images):
    box = network.box(images, 0.2)
    seen = torch.stack([network.bits((images + e).clamp(0, 1)) for e in torch.linspace(-0.2, 0.2, 41)])
    assert torch.equal(box.centre + box.radius, seen.amax(0)) or (
        (box.centre + box.radius - seen.amax(0)).abs().mean() < 1e-3  # a pixel at the very edge
    )
    assert ((seen <= box.centre + box.radius) & (seen >= box.centre - box.radius)).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_box_of_training_is_a_part_of_what_eps_can_do_around_an_attacked_image(network, real_digits, share):
    x, y = (part[:16] for part in real_digits)
    network.subselection = share
    averages = [buffer.clone() for buffer in network.encoder.buffers()]
    box, whole = network.training_box(x, y, 0.2), network.box(x, 0.2)
    assert network.encoder.training
    assert all(map(torch.equal, averages, network.encoder.buffers()))
    low, high = box.centre - box.radius, box.centre + box.radius
    assert ((low >= whole.centre - whole.radius) & (high <= whole.centre + whole.radius)).all()
    for bits in (low, high):
        assert (bits[:, 0] >= bits[:, 1]).all(), "what is above 0.65 is above 0.35"
    reach = whole.radius.sum()
    assert abs(box.radius.sum() / reach - share) < 0.1
    fixed = (whole.radius > 0) & (box.radius == 0)
    other = torch.where(fixed, 2 * whole.centre - box.centre, box.centre)  # the same box with those at their other ends
    assert share == 1 or (loss(network, box.centre, y) > loss(network, other, y)).float().mean() > 0.9


def loss(network: CertifiedVQVAE, bits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each image's scores, (N,)."""
    network.encoder.eval()
    scores = network.scores(network.to_code(network.encoder(bits)))
    return nn.functional.cross_entropy(scores, y, reduction="none")


def test_training_bounds_the_training_box_at_the_eps_of_the_step(network, real_digits, monkeypatch):
    attach(network, 10)
    network.eps_now.fill_(0.07)
    asked = []
    monkeypatch.setattr(network, "training_box", lambda x, y, eps: asked.append(float(eps)) or network.box(x, eps))
    network.training_step((real_digits[0][:8], real_digits[1][:8]), 0)
    assert asked == [pytest.approx(0.07)]


def test_without_subselection_the_box_is_the_whole_and_no_random_number_is_drawn(network, real_digits):
    before = torch.get_rng_state()
    box, whole = network.training_box(*real_digits, 0.1), network.box(real_digits[0], 0.1)
    assert all(map(torch.equal, box, whole))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_passes_from_the_image_to_the_drawing_but_codes(network, images):
    network.eval()
    drawn = network(images)
    classes = network.nearest(network.to_code(network.encoder(network.bits(images))))
    for image, label in zip(drawn, classes.tolist(), strict=True):
        every = torch.arange(network.style_codes**network.styles)
        style = network.quantizer.codebook[network.unravelled(every)]
        drawings = network.draw(network.codebook[label].expand(len(style), -1), style)
        assert (drawings - image).abs().flatten(1).amax(1).min() < 1e-5
    assert torch.equal(network.ravelled(network.unravelled(every)), every)


def test_a_style_that_the_classifier_misreads_has_a_stand_in(network):
    network.eval()
    nn.init.constant_(network.decoder[-1].bias, 0.5)  # grey: what is clipped to black would look alike in all styles
    known = network.drawings(3, torch.arange(16))
    assert len(known.unique(dim=0)) == 16

    def classifier(drawings: Tensor) -> Tensor:
        """Reads every drawing as class 3, but those in odd combinations of styles as 5."""
        odd = (drawings[:, None] - known).abs().flatten(2).amax(2).argmin(1) % 2
        return nn.functional.one_hot(torch.where(odd == 1, 5, 3), 10).float()

    network.stand_in.copy_(network.stand_ins(classifier))
    assert (network.stand_in[3] % 2 == 0).all() and torch.equal(network.stand_in[3][::2], torch.arange(16)[::2])
    styles = network.quantizer.codebook[network.unravelled(torch.arange(16))].flatten(1)
    distances = torch.cdist(styles, styles[::2])
    chosen = distances.gather(1, network.stand_in[3][:, None] // 2).flatten()
    assert torch.allclose(chosen, distances.amin(1))  # the nearest of those that are read


def test_the_classifier_reads_the_class_that_the_code_says_whatever_the_style(trained, knows_digits, real_digits):
    every = torch.arange(trained.style_codes**trained.styles)
    for label in range(10):
        assert (knows_digits(trained.drawings(label, trained.stand_in[label])).argmax(1) == label).all()
    x = real_digits[0]
    noisy = torch.cat([x, (x + 0.4 * torch.randn_like(x)).clamp(0, 1), torch.rand_like(x)])
    classes = trained.nearest(trained.to_code(trained.encoder(trained.bits(noisy))))
    assert len(classes.unique()) == 10
    assert torch.equal(knows_digits(trained(noisy).clamp(0, 1)).argmax(1), classes)
    read = knows_digits(trained.drawings(3, every)).argmax(1) == 3
    assert torch.equal(trained.stand_in[3][read], every[read])  # no style is replaced without need


def test_what_is_drawn_is_the_digit_that_was_written(trained, real_digits):
    x, y = real_digits[0][:128], real_digits[1][:128]
    drawn = trained(x).clamp(0, 1)
    means = torch.stack([x[y == label].mean(0) for label in range(10)])
    nearest = (drawn[:, None] - means).square().flatten(2).mean(2).argmin(1)
    assert (nearest == y).float().mean() > 0.8  # to people it looks like its class, not to the classifier alone


def test_an_attacker_gets_a_gradient(network, images):
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.eval()(x).square().sum(), x)
    assert torch.isfinite(gradient).all() and (gradient.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"thresholds": ()}, "thresholds"),
        ({"thresholds": (0.5, 1.2)}, "thresholds"),
        ({"eps": 1.0}, "eps"),
        ({"warmup": 0.5, "ramp": 0.6}, "sum to 1"),
        ({"in_channels": 3}, "one channel"),
        ({"dimension": 9}, "dimension"),
        ({"subselection": 1.5}, "subselection"),
        ({"drawn": 0}, "drawn"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CertifiedVQVAE(**(SMALL | wrong))
