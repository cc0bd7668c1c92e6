import inspect
import sys

import pytest
import torch
import torchattacks
from torch import nn

from src.attacks import fgsm, from_torchattacks
from src.attacks.margin import margin
from src.defended import DefendedClassifier
from src.errors import UserError
from src.straight_through import straight_through

ATTACKS = {
    "APGD": {"steps": 5, "loss": "ce"},
    "APGD-DLR": {"attack": "APGD", "steps": 5, "loss": "dlr", "n_restarts": 2},
    "APGDT": {"steps": 2},
    "FAB": {"steps": 3},
    "Square": {"n_queries": 20},
    "AutoAttack": {"version": "rand"},
    "PGD": {"steps": 3},
    "Pixle": {},  # draws from NumPy's stream
}
WITH_EPS = [name for name in ATTACKS if name != "Pixle"]


def attacked(name, model, x, y, eps=0.1, **options):
    return from_torchattacks(model, x, y, eps=eps, **({"attack": name} | ATTACKS[name] | options))


@pytest.fixture
def model(small_net, asked):
    return asked(small_net)


@pytest.fixture(params=[False, True])
def early_stop(request):
    return request.param


@pytest.fixture
def seen(small_net, images):
    """Labels that the small net agrees with, but for the first two images."""
    y = small_net(images).argmax(1)
    y[:2] = (y[:2] + 1) % 10
    return y


@pytest.mark.parametrize("name", WITH_EPS)
def test_stays_in_the_ball_and_leaves_its_arguments_alone(name, model, images, seen, early_stop):
    x, y = images.clone(), seen.clone()
    x_adv = attacked(name, model, x, y, early_stop=early_stop)
    assert x_adv.shape == images.shape and x_adv.dtype == images.dtype and not x_adv.requires_grad
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert (x_adv - images).abs().max() <= 0.1 + 1e-6
    assert torch.equal(x, images) and torch.equal(y, seen)
    assert (margin(model, x_adv, y) > margin(model, x, y)).any()


@pytest.mark.parametrize("name", WITH_EPS)
def test_eps_zero_changes_nothing_and_asks_for_nothing(name, model, images, seen):
    assert attacked(name, model, images, seen, eps=0) is images
    assert model.asked == 0
    assert len(attacked(name, model, images[:0], seen[:0])) == 0


@pytest.mark.parametrize("name", ["APGD", "Square", "AutoAttack", "PGD"])
def test_is_repeated_by_its_seed_and_differs_without(name, model, images, seen, undisturbed):
    def run(seed):
        torch.manual_seed(seed)
        return attacked(name, model, images, seen)

    with undisturbed():
        first = run(1)
    after = torch.rand(())
    assert torch.equal(run(1), first)
    assert not torch.equal(run(2), first)
    torch.manual_seed(1)
    torch.randint(2**31 - 1, ())  # the seed of the library's stream: the one number that was drawn outside
    assert torch.rand(()) == after
    torch.manual_seed(1)
    assert not torch.equal(attacked(name, model, images, seen), attacked(name, model, images, seen))  # batch by batch


def test_numpys_stream_is_seeded_and_put_back(images, small_net, undisturbed, monkeypatch):
    monkeypatch.setattr(torchattacks, "PGD", WithNumpy)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with undisturbed():
            results.append(from_torchattacks(small_net, images, torch.zeros(12).long(), eps=0.5, attack="PGD"))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


class WithNumpy(torchattacks.Pixle):
    """Distance Measure : Linf"""

    def __init__(self, model, eps):
        super().__init__(model)

    def forward(self, images, labels):
        import random

        import numpy as np

        shift = 0.2 * np.random.rand() + 0.2 * random.random()  # noqa: NPY002
        return (images + shift).clamp(0, 1)


@pytest.mark.parametrize("name", WITH_EPS)
def test_single_images_right_and_wrong(name, model, images, seen):
    for i in (0, 2):
        assert attacked(name, model, images[i : i + 1], seen[i : i + 1]).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("name", WITH_EPS)
def test_works_where_gradients_are_off(name, model, images, seen):
    torch.manual_seed(1)
    expected = attacked(name, model, images, seen)
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(attacked(name, model, images, seen), expected)


@pytest.mark.parametrize("name", ["APGD", "FAB", "Square", "PGD"])
def test_a_model_without_parameters(name, parameterless, images, capsys):
    y = parameterless(images).argmax(1)
    x_adv = attacked(name, parameterless, images, y, eps=0.3)
    assert margin(parameterless, x_adv, y).mean() > margin(parameterless, images, y).mean()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["APGD", "FAB", "AutoAttack"])
def test_mode_and_parameters_stay_as_they_are(name, images, seen):
    network = nn.Sequential(nn.Conv2d(1, 2, 5), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(1152, 10))
    network.train()
    network[1].eval()  # in training mode it is refused
    network[3].eval()
    network[4].bias.requires_grad_(False)
    modes = [part.training for part in network.modules()]
    attacked(name, network, images, seen)
    assert [part.training for part in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == [True, True, True, True, True, False]
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", ["APGD", "FAB", "Square"])
def test_colour_images_in_another_memory_format(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = network.eval().to(memory_format=torch.channels_last)
    x = torch.rand(4, 3, 12, 12).to(memory_format=torch.channels_last)
    y = network(x).argmax(1)
    x_adv = attacked(name, network, x, y)
    assert (margin(network, x_adv, y) > margin(network, x, y)).any()


def test_logits_may_be_a_view_of_the_images():
    x = torch.rand(6, 1, 2, 5)
    x_adv = attacked("Square", nn.Flatten(), x, x.flatten(1).argmax(1), eps=0.3)
    assert (nn.Flatten()(x_adv).argmax(1) != x.flatten(1).argmax(1)).any()


def with_classes(k):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, k)).eval()


@pytest.mark.parametrize(
    ("name", "options", "needed"),
    [
        ("APGD-DLR", {}, 3),
        ("APGDT", {}, 4),
        ("AutoAttack", {"version": "rand"}, 3),
        ("AutoAttack", {"version": "standard"}, 4),
    ],
)
def test_a_loss_that_needs_more_classes_is_refused(name, options, needed, images):
    with pytest.raises(UserError, match=f"needs {needed} classes for its loss; the model has {needed - 1}"):
        attacked(name, with_classes(needed - 1), images, torch.zeros(12).long(), **options)
    if options != {"version": "standard"}:  # slow
        attacked(name, with_classes(needed), images[:2], torch.zeros(2).long(), **options)


def test_grey_images_are_refused_where_the_library_smooths_colour_images(images, labels, small_net):
    with pytest.raises(UserError, match="TIFGSM is made for images of 3 channels; these have 1"):
        from_torchattacks(small_net, images, labels, eps=0.1, attack="TIFGSM")
    x, network = torch.rand(2, 3, 28, 28), nn.Sequential(nn.Flatten(), nn.Linear(3 * 784, 10))
    y = network(x).argmax(1)
    x_adv = from_torchattacks(network, x, y, eps=0.1, attack="TIFGSM")
    assert (margin(network, x_adv, y) > margin(network, x, y)).all()


@pytest.mark.parametrize("k", [5, 13])
def test_as_many_classes_as_the_model_has(k, images):
    """The library's default is ten: it would miss classes, or index those that do not exist."""
    model = with_classes(k)
    y = model(images).argmax(1)
    for name in ("APGDT", "FAB"):
        options = {"multi_targeted": True} if name == "FAB" else {}
        x_adv = attacked(name, model, images, y, eps=0.3, early_stop=True, **options)
        assert (model(x_adv).argmax(1) != y).all()


def test_goes_on_unless_it_may_stop_early(small_net, images, seen, asked):
    """The first two labels are wrong from the start: the library sees nothing left to do."""
    for name, options in (("APGD", {"steps": 20}), ("Square", {"n_queries": 200})):
        stopping, going_on = asked(small_net), asked(small_net)
        stopped = attacked(name, stopping, images, seen, early_stop=True, **options)
        pressed = attacked(name, going_on, images, seen, **options)
        assert torch.equal(stopped[:2], images[:2])
        assert not torch.equal(pressed[:2], images[:2])
        assert (margin(small_net, pressed[:2], seen[:2]) > margin(small_net, stopped[:2], seen[:2])).all()
        assert stopping.asked < going_on.asked


def test_an_ensemble_that_goes_on_is_no_weaker_than_its_parts(knows_digits, real_digits, asked):
    x, y = (part[:32] for part in real_digits)
    model = asked(knows_digits)
    torch.manual_seed(1)
    ensemble = attacked("AutoAttack", model, x, y, eps=0.05)
    torch.manual_seed(1)
    part = attacked("APGD", model, x, y, eps=0.05, steps=10, eot_iter=20)
    assert (margin(model, ensemble, y) >= margin(model, part, y) - 1e-4).all()


class Trembling(nn.Module):
    """A network that adds noise to what it sees."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x + 1e-3 * torch.randn_like(x))


def test_gradients_are_averaged_of_a_random_model_alone(small_net, images, labels, asked):
    images = images.round()

    def run(model, eot_iter):
        torch.manual_seed(1)
        return attacked("APGD", model, images, labels, steps=3, eot_iter=eot_iter)

    steady, once, random = asked(small_net), asked(small_net), asked(Trembling(small_net))
    assert torch.equal(run(steady, 20), run(once, 1))
    assert steady.asked == once.asked
    run(random, 20)
    assert random.asked > 5 * steady.asked
    hiding = asked(nn.Sequential(Threshold(), small_net))
    run(DefendedClassifier(hiding, Trembling(nn.Identity())), 20)
    assert hiding.asked > 5 * steady.asked, "the noise is asked of the defense"


class Threshold(nn.Module):
    """Hides small noise in images of black and white."""

    def forward(self, x):
        return straight_through((x > 0.5).to(x), x)


def test_is_as_strong_as_it_is_said_to_be(knows_digits, real_digits):
    x, y = real_digits
    model = knows_digits

    def left(x_adv):
        return (margin(model, x_adv, y) < 0).float().mean().item()

    def left_by(name, eps, **options):
        return left(attacked(name, model, x, y, eps=eps, early_stop=True, **options))

    assert left(x) == 1
    single = left(fgsm(model, x, y, eps=0.05))
    assert left_by("APGD", 0.05, steps=20) <= single
    assert left_by("APGD-DLR", 0.05, steps=20) <= single
    assert left_by("Square", 0.3, n_queries=60) < 0.5
    assert left_by("AutoAttack", 0.05, version="rand") <= single


def test_standard_autoattack(knows_digits, real_digits):
    """All images that APGD fools, and what a targeted loss adds: so many that Square has nothing left to ask."""
    x, y = (part[:32] for part in real_digits)
    model = knows_digits
    single = margin(model, attacked("APGD", model, x, y, eps=0.15, steps=10), y) > 0
    found = attacked("AutoAttack", model, x, y, eps=0.15, version="standard", early_stop=True)
    whole = margin(model, found, y) > 0
    assert single.sum() > 16 and (whole >= single).all()


def test_every_part_of_an_ensemble_takes_the_steps_asked_for(knows_digits, real_digits, asked):
    """torchattacks' own AutoAttack takes a tenth of its authors' steps, and cannot be told to take more."""
    x, y = (part[:4] for part in real_digits)
    few, many = asked(knows_digits), asked(knows_digits)
    attacked("AutoAttack", few, x, y, eps=0.05)
    attacked("AutoAttack", many, x, y, eps=0.05, steps=30)
    assert many.asked > 2 * few.asked
    with pytest.raises(UserError, match="takes no steps"):
        from_torchattacks(knows_digits, x, y, eps=0.05, attack="FGSM", steps=5)


def test_torchattacks_is_not_installed(small_net, images, labels, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(UserError, match=r"pip install --editable '\.\[attacks\]' --constraint constraints\.txt"):
        from_torchattacks(small_net, images, labels, eps=0.1, attack="APGD")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attack": "apgd"}, "no attack apgd; it has APGD"),
        ({"attack": "Sqare"}, "it has Square"),
        ({"attack": "wholly unlike"}, "it has .*APGD"),
        ({"attack": "CW"}, "no eps"),
        ({"attack": "MultiAttack"}, "no eps"),
        ({"attack": "APGD", "stesp": 3}, "no option stesp; it has .*steps"),
        ({"attack": "PGDL2"}, "PGDL2 is bounded in L2; only"),
        ({"attack": "PGDRSL2"}, "PGDRSL2 is bounded in L2; only"),
        ({"attack": "APGD", "norm": "L2"}, "must have norm=Linf.*got norm=L2"),
        ({"attack": "AutoAttack", "norm": "L2", "version": "rand"}, "must have norm=Linf.*got norm=L2"),
        ({"attack": "FAB", "norm": "L1"}, "must have norm=Linf.*got norm=L1"),
        ({"attack": "Square", "norm": "L2"}, "must have norm=Linf.*got norm=L2"),
    ],
)
def test_what_torchattacks_does_not_have(options, said, small_net, images, labels):
    with pytest.raises(UserError, match=said) as error:
        from_torchattacks(small_net, images, labels, eps=0.1, **options)
    assert "\n" not in str(error.value)


LINF = {
    *("FGSM", "BIM", "RFGSM", "PGD", "EOTPGD", "FFGSM", "TPGD", "MIFGSM", "UPGD", "APGD", "APGDT", "DIFGSM", "TIFGSM"),
    *("Jitter", "NIFGSM", "PGDRS", "SINIFGSM", "VMIFGSM", "VNIFGSM", "SPSA", "FAB", "AutoAttack", "Square"),
}
STEP_BY_STEP = sorted(name for name in LINF if "alpha" in inspect.signature(getattr(torchattacks, name)).parameters)


class RecordedError(Exception):
    """Stands for an attack that got as far as to be made."""


def options_of(name, monkeypatch, model, x, y, **options):
    """What the class ``name`` of torchattacks is called with."""
    cls = getattr(torchattacks, name)

    def record(self, model, **options):
        raise RecordedError(options)

    record.__signature__ = inspect.signature(cls.__init__)
    with monkeypatch.context() as patch:
        patch.setattr(cls, "__init__", record)
        with pytest.raises(RecordedError) as recorded:
            from_torchattacks(model, x, y, attack=name, **options)
    return recorded.value.args[0]


@pytest.mark.parametrize("name", torchattacks.__all__)
def test_of_all_that_it_has_only_attacks_in_linf_are_run(name, small_net, images, labels, monkeypatch):
    if name in LINF:
        options = {"lr": 0.1} if name == "SPSA" else {}
        assert options_of(name, monkeypatch, small_net, images, labels, eps=0.1, **options)["eps"] == 0.1
    else:
        with pytest.raises(UserError, match=r"no eps|bounded in L2"):
            from_torchattacks(small_net, images, labels, eps=0.1, attack=name)


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_the_steps_reach_eps(name, small_net, images, labels, monkeypatch):
    """Those of torchattacks reach 20/255, whatever eps is."""

    def step_size(**options):
        return options_of(name, monkeypatch, small_net, images, labels, **options)["alpha"]

    one_step = name == "FFGSM"
    assert step_size(eps=0.3) == pytest.approx(0.375 if one_step else 0.075)
    assert step_size(eps=torch.tensor(0.3)) == pytest.approx(0.375 if one_step else 0.075)
    assert step_size(eps=0.3, alpha=None) == pytest.approx(0.375 if one_step else 0.075)
    assert step_size(eps=0.3, alpha=0.31) == 0.31
    if not one_step:
        assert step_size(eps=0.3, steps=100) == pytest.approx(0.0075)
        assert step_size(eps=0.3, steps=7, alpha=0.3 / 7) == 0.3 / 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"attack": "PGD", "alpha": 0.02},
            r"eps=0.3: 10 · alpha is 10 · 0.02 = 0.2; alpha must be 0.03 or more, or",
        ),
        ({"attack": "MIFGSM", "alpha": 0.05, "steps": 5}, "eps=0.3: 5 · alpha is 5 · 0.05 = 0.25; .* 0.06 or more"),
        ({"attack": "PGD", "alpha": float("nan")}, "alpha must be 0.03 or more"),
        ({"attack": "PGD", "alpha": -1.0}, "alpha must be 0.03 or more"),
        ({"attack": "FFGSM", "alpha": 0.1}, "1 · alpha is 1 · 0.1 = 0.1; alpha must be 0.3 or more$"),
        ({"attack": "SPSA"}, "1 · lr is 1 · 0.01 = 0.01; lr must be 0.3 or more, or nb_iter larger"),
        ({"attack": "PGD", "steps": 0}, "steps must be at least 1; got 0"),
    ],
)
def test_steps_that_cannot_reach_eps_are_refused(options, said, small_net, images, labels):
    with pytest.raises((UserError, ValueError), match=said) as error:
        from_torchattacks(small_net, images, labels, eps=0.3, **options)
    assert isinstance(error.value, ValueError if options.get("steps") == 0 else UserError)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["DIFGSM", "TPGD", "UPGD", "PGD"])
def test_attacks_with_a_step_size_of_their_own_use_the_budget(name, knows_digits, real_digits):
    x, y = (part[:64] for part in real_digits)
    torch.manual_seed(1)
    x_adv = from_torchattacks(knows_digits, x, y, eps=0.3, attack=name)
    assert (x_adv - x).abs().max() == pytest.approx(0.3, abs=1e-5)
    assert (margin(knows_digits, x_adv, y) < 0).float().mean() < 0.25


@pytest.mark.parametrize(
    ("excess", "said"), [(5e-7, None), (1e-3, "spent 0.101"), (float("nan"), "left"), (-float("inf"), "left")]
)
def test_rounding_is_forgiven_and_no_more(excess, said, small_net, labels, monkeypatch):
    monkeypatch.setattr(torchattacks.FGSM, "forward", lambda self, x, y: x + 0.1 + excess)
    x = torch.full((12, 1, 28, 28), 0.25)
    if said is None:
        x_adv = from_torchattacks(small_net, x, labels, eps=0.1, attack="FGSM")
        assert (x_adv - x).max() <= 0.1 + 1e-7
    else:
        with pytest.raises(ValueError, match=said):
            from_torchattacks(small_net, x, labels, eps=0.1, attack="FGSM")


def test_refuses_what_is_no_logits(images, labels):
    with pytest.raises(ValueError, match=r"logits \(N, K\)"):
        from_torchattacks(nn.Identity(), images, labels, eps=0.1, attack="APGD")
