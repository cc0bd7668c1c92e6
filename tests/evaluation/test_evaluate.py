import json
import random
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from src.attacks import ifgsm
from src.defenses import Binarize, Identity
from src.encoded_images import decode_images
from src.errors import UserError
from src.evaluation import CellStore, Protocol
from src.evaluation.attacking import AttackedSets
from src.evaluation.evaluator import Evaluator, trainer_on
from src.evaluation.module import PurificationEvaluation
from src.models.checkpoint import weights_fingerprint


def test_a_cell_is_what_a_loop_by_hand_gives(evaluator, specify, digits, classifier):
    cell = evaluator(specify(eps=0.3, binarize=True))
    x_adv = ifgsm(classifier, digits.images, digits.labels, eps=0.3)
    x_hat = (x_adv > 0.5).float()
    predictions = classifier(x_hat).argmax(1)
    assert cell.predictions == predictions.tolist()
    assert cell.correct == int((predictions == digits.labels).sum())
    assert cell.outcomes == "".join(str(int(p == y)) for p, y in zip(predictions, digits.labels, strict=True))
    assert cell.perturbation_linf == pytest.approx(0.3, abs=1e-6)
    assert cell.perturbation_l2 == pytest.approx((x_adv - digits.images).flatten(1).norm(dim=1).mean().item(), rel=1e-4)
    assert cell.reconstruction_mse == pytest.approx((x_hat - digits.images).square().mean().item(), rel=1e-4)
    assert set(cell.stages) == {"attack", "purify", "classify"}
    assert cell.environment["threads"] == str(torch.get_num_threads())
    for k, (correct, images) in enumerate(cell.per_class):
        mine = digits.labels == k
        assert (correct, images) == (int((predictions[mine] == k).sum()), int(mine.sum()))
    assert len(cell.per_class) == 10
    assert cell.examples["confidences"] == pytest.approx(classifier(x_hat[:10]).softmax(1).amax(1).tolist(), abs=1e-3)


def test_a_cell_quotes_its_companions(evaluator, specify):
    cell = evaluator(specify(eps=0.3, binarize=True))
    assert cell.clean_accuracy == evaluator(specify(eps=0, binarize=True)).accuracy
    assert cell.undefended_accuracy == evaluator(specify(eps=0.3)).accuracy
    assert cell.undefended_accuracy < cell.accuracy <= cell.clean_accuracy
    assert len(evaluator.cells.keys()) == 4


def test_nothing_is_computed_twice(evaluator, another, specify, counting):
    first = evaluator(specify(eps=0.3, binarize=True))
    batches = counting.batches
    assert batches == 4  # one set of 64 images in batches of 16, though two cells were attacked
    assert evaluator(specify(eps=0.3, binarize=True)) == first
    assert another()(specify(eps=0.3, binarize=True)) == first
    assert counting.batches == batches


def test_one_trainer_tests_all_cells(evaluator, specify, monkeypatch):
    made = []
    monkeypatch.setattr(f"{Evaluator.__module__}.trainer_on", lambda *given: made.append(trainer_on(*given)) or made[0])
    first, second = evaluator(specify(eps=0.1)), evaluator(specify(eps=0.2, binarize=True))
    assert len(made) == 1
    assert first.key != second.key


def test_another_process_takes_the_attacked_set_from_disk(evaluator, another, specify, counting):
    evaluator(specify(eps=0.3))
    batches = counting.batches
    other = another()
    cell = other(specify(eps=0.3, binarize=True))
    assert counting.batches == batches
    assert cell.perturbation_linf == pytest.approx(0.3, abs=1e-6)


def test_a_damaged_attacked_set_is_named_and_made_again(evaluator, another, specify, counting, caplog, tmp_path):
    expected = evaluator(specify(eps=0.3))
    for cell in (tmp_path / "cells").iterdir():
        cell.unlink()
    (file,) = (tmp_path / "adversarial").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:5000])
    assert another()(specify(eps=0.3)).outcomes == expected.outcomes
    assert file.name in caplog.text
    assert counting.batches == 8


#: What may stand in an attacked set's place: x_adv (64, 1, 28, 28) -> another set, within the budget but for the last.
OTHER_SETS = {
    "the clean images": lambda x_adv, x: x,
    "moved a tenth of the way": lambda x_adv, x: x + 0.1 * (x_adv - x),
    "one pixel": lambda x_adv, x: x_adv.index_fill(3, torch.tensor([5]), 0).lerp(x_adv, 0.999),
    "out of its budget": lambda x_adv, x: torch.zeros_like(x),
}


@pytest.mark.parametrize("other", OTHER_SETS)
@pytest.mark.parametrize("keeps_its_digest", [False, True])
def test_another_attacked_set_does_not_count(
    evaluator, another, specify, counting, caplog, tmp_path, digits, other, keeps_its_digest
):
    expected = evaluator(specify(eps=0.3))
    for cell in (tmp_path / "cells").iterdir():
        cell.unlink()
    (file,) = (tmp_path / "adversarial").glob("*.safetensors")
    content = file.read_bytes()
    stored = safetensors.torch.load(content)["x_adv"]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header["__metadata__"] if keeps_its_digest else None
    safetensors.torch.save_file({"x_adv": OTHER_SETS[other](stored, digits.images).contiguous()}, file, metadata)
    assert another()(specify(eps=0.3)).outcomes == expected.outcomes
    assert file.name in caplog.text
    assert counting.batches == 8, "the attack was made again"


def test_an_attacked_set_under_the_key_of_another_does_not_count(
    evaluator, another, specify, counting, caplog, tmp_path
):
    evaluator(specify(eps=0.3))
    expected = evaluator(specify(eps=0.2))
    for cell in (tmp_path / "cells").iterdir():
        cell.unlink()
    strong, weak = (tmp_path / "adversarial" / f"{specify(eps=eps).attacked_key}.safetensors" for eps in (0.3, 0.2))
    strong.replace(weak)
    assert another()(specify(eps=0.2)).outcomes == expected.outcomes
    assert weak.name in caplog.text


def test_eps_zero_attacks_nobody(evaluator, specify, counting, digits):
    cell = evaluator(specify(eps=0))
    assert counting.batches == 0
    assert cell.perturbation_linf == 0
    assert cell.accuracy == cell.clean_accuracy == cell.undefended_accuracy == 1
    assert decode_images(cell.examples["original"]) == pytest.approx(digits.images[:10].numpy(), abs=1 / 500)


def test_results_do_not_depend_on_the_batch_size(evaluator, specify, tmp_path):
    cell = evaluator(specify(eps=0.3, binarize=True))
    other = replace(evaluator, batch_size=64)
    other.cells, other.attacked = type(evaluator.cells)(tmp_path / "b"), AttackedSets(None)
    assert other(specify(eps=0.3, binarize=True)).outcomes == cell.outcomes


def test_a_noisy_defense_gives_the_same_cell_whether_the_attack_was_replayed(specify, evaluator, tmp_path, another):
    class Noisy(torch.nn.Module):
        def forward(self, x):
            return (x + torch.randn_like(x)).clamp(0, 1)

    spec = specify(eps=0.3, defense=Noisy())
    first = evaluator(spec)  # its companion made the attacked set, this cell found it
    for cell in (tmp_path / "cells").iterdir():
        cell.unlink()
    for file in (tmp_path / "adversarial").iterdir():
        file.unlink()
    alone = another()
    alone.cells.put(evaluator(spec.without_defense()))
    alone.cells.put(evaluator(spec.without_attack()))
    alone.cells.put(evaluator(spec.without_attack().without_defense()))
    assert alone(spec).predictions == first.predictions


@pytest.mark.parametrize("draw", [np.random.random_sample, lambda size: np.array([random.random()] * np.prod(size))])
def test_noise_of_numpy_and_python_is_seeded_and_leaves_their_streams_alone(specify, evaluator, tmp_path, draw):
    class Noisy(torch.nn.Module):
        def forward(self, x):
            return (x + torch.from_numpy(draw(x.shape).reshape(x.shape)).to(x) - 0.5).clamp(0, 1)

    spec = specify(eps=0.1, defense=Noisy())
    streams = lambda: (random.getstate(), np.random.get_state()[1].tolist())  # noqa: E731, NPY002
    before = streams()
    cell = evaluator(spec)
    assert streams() == before
    np.random.seed(5)  # noqa: NPY002 - the stream of a user's component
    random.seed(5)
    other = replace(evaluator, cells=CellStore(tmp_path / "again"), attacked=AttackedSets(None))
    assert other(spec).predictions == cell.predictions
    assert cell.accuracy < 1


def test_clean_errors_count_where_the_protocol_says_so(evaluator, specify, shelf, digits, classifier):
    """The report's rule: what the bare classifier gets wrong stays wrong, even if the defense rescues it."""

    class Rescue(torch.nn.Module):
        def forward(self, x):
            return x.flip(2)

    with torch.no_grad():  # labels that only the defended classifier gets right, for the first twenty
        upside_down = classifier(digits.images.flip(2)).argmax(1)
    labels = torch.cat([upside_down[:20], digits.labels[20:]])
    rescued = (upside_down != classifier(digits.images).argmax(1))[:20]
    shelf.test_sets["digits"] = replace(digits, labels=labels)
    strict = Protocol("strict", clean_errors_count=True)

    def cell(protocol):
        return evaluator(specify(eps=0, protocol=protocol, defense=Rescue()))

    usual, counted = cell(Protocol()), cell(strict)
    assert usual.predictions == counted.predictions
    assert rescued.any()
    assert usual.outcomes[:20] == "1" * 20
    assert counted.outcomes[:20] == "".join("0" if each else "1" for each in rescued)
    assert usual.outcomes[20:] == counted.outcomes[20:]


def test_the_classifier_stays_as_it_was(evaluator, specify, classifier):
    before = weights_fingerprint(classifier.state_dict())
    evaluator(specify(eps=0.2, binarize=True))
    assert weights_fingerprint(classifier.state_dict()) == before


def test_attacks_see_no_rounded_convolutions(evaluator, specify):
    """On a GPU that has TensorFloat-32, cuDNN would use it unless told not to."""
    before, seen = torch.backends.cudnn.allow_tf32, []

    def looking(model, x, y, *, eps):
        seen.append(torch.backends.cudnn.allow_tf32)
        return x

    evaluator(specify(eps=0.3, attack=looking))
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_defense_of_another_shape_is_refused(evaluator, specify):
    spec = specify(eps=0, defense=torch.nn.AvgPool2d(2))
    with pytest.raises((ValueError, RuntimeError)):
        evaluator(spec)
    assert evaluator.cells.get(spec.key) is None


class Misspelled(torch.nn.Module):
    def forward(self, x):
        return x.clmap(0, 1)


def test_an_error_in_a_users_code_says_where(evaluator, specify):
    with pytest.raises(UserError, match=r"no attribute 'clmap' \(.*test_evaluate\.py:\d+, in forward\)$"):
        evaluator.rehearse(specify(eps=0, defense=Misspelled()))


def test_a_cheating_attack_is_caught(evaluator, specify):
    def too_far(model, x, y, *, eps):
        return (x + 2 * eps).clamp(0, 1)

    with pytest.raises(ValueError, match="spent"):
        evaluator(specify(eps=0.3, attack=too_far))
    assert evaluator.cells.keys() == [specify(eps=0).key]


def test_a_folder_that_cannot_be_written_is_one_line(evaluator, specify, tmp_path):
    (tmp_path / "adversarial").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        evaluator(specify(eps=0.3))


def test_the_module_stands_on_its_own(digits, classifier):
    """A user with a Trainer and a DataLoader needs none of our stores."""

    x_adv = ifgsm(classifier, digits.images, digits.labels, eps=0.3)
    for defense, expected in ((Identity(), 0.9), (Binarize(), None)):
        module = PurificationEvaluation(classifier, defense, num_classes=10)
        loader = DataLoader(TensorDataset(digits.images, x_adv, digits.labels), batch_size=20)
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        (metrics,) = trainer.test(module, loader, verbose=False)
        right = (module.predictions == digits.labels).float().mean().item()
        assert metrics["test/accuracy"] == pytest.approx(right)
        assert expected is None or right < expected
