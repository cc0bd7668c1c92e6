"""What a user can do wrong gets one clear line and a non-zero exit, before any work starts."""

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import src.certify
import src.dashboard
import src.export
import src.play
import src.prepare
import src.report
import src.sweep
import src.train
from src.workflows.command import TRACEBACK, run

COMMANDS = {
    "prepare": src.prepare.main,
    "train": src.train.main,
    "sweep": src.sweep.main,
    "report": src.report.main,
    "certify": src.certify.main,
    "dashboard": src.dashboard.main,
    "play": src.play.main,
    "export": src.export.main,
}
WITHOUT_DATA = ("report", "dashboard")
WITHOUT_LOGGER = ("prepare", "export")

Refuse = Callable[..., str]


@pytest.fixture
def refuse(monkeypatch, capsys, trained, slice_root) -> Refuse:
    """``refuse("sweep", "-m", "eps=2")``: run a command that must fail; returns its one line."""

    def call(command: str, *arguments: str, outputs: Path = trained, root: Path = slice_root) -> str:
        data = [f"data.root={root}", "data.source=null", "data.val_size=100"] if command not in WITHOUT_DATA else []
        named = any(argument.lstrip("+~").startswith("logger") for argument in arguments)
        logger = ["logger=none"] if command not in WITHOUT_LOGGER and not named else []
        monkeypatch.setattr(sys, "argv", [command, *arguments, *data, f"paths.outputs={outputs}", *logger])
        for name in ("HYDRA_FULL_ERROR", TRACEBACK):  # set, so that the variables are gone again after the test
            monkeypatch.setenv(name, "0")
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as exit_:
            run(COMMANDS[command])
        message = exit_.value.code
        assert isinstance(message, str), "the exit code says success, or nothing is said"
        assert message.startswith("error: ")
        assert "\n" not in message
        beside = capsys.readouterr().err
        assert "Traceback" not in beside
        assert "Error executing job" not in beside
        return message

    yield call
    GlobalHydra.instance().clear()
    logging.getLogger().handlers.clear()  # Hydra's, writing to a captured stream that is closed by now


SWEEP = ("-m", "attack=fgsm", "defense=none", "noise=0")


def test_a_noise_for_a_model_without_one(refuse):
    assert "has no effect: model=classifier has none" in refuse("train", "model=classifier", "noise=2")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("eps=0,0.3", "eps=0,0.3 has several values: put -m before it for a job each"),
        ("eps=0,", "eps=0, ends with a comma: values are written without spaces"),
        ("outputs/sweeps", "outputs/sweeps is not name=value"),
        ("threat.bare.view.eot_samples=5", "threat.bare is the threat itself without a defense"),
    ],
)
def test_overrides_that_cannot_be_read(refuse, override, said):
    assert said in refuse("sweep", "attack=fgsm", "defense=none", "threat=adaptive", override)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "my_broken.Blur cannot be imported: ModuleNotFoundError: No module named 'my_broken'; a file of yours"),
        ("class Blur(nn.Module): pass", "my_broken.Blur cannot be imported: NameError: name 'nn' is not defined"),
    ],
)
def test_a_users_own_file_that_cannot_be_imported(refuse, tmp_path, monkeypatch, code, said):
    if code:
        (tmp_path / "my_broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert said in refuse("sweep", *SWEEP, "defense.purifier._target_=my_broken.Blur")


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("sweep", SWEEP),
        pytest.param("certify", ("denoise=false", "images=20", "n=10", "n0=5"), marks=pytest.mark.slow),
        pytest.param("play", ("noises=[0]",), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("classifier", "said"),
    [("nan_everywhere", "returned NaN for each of 8 clean images"), ("of_batch_statistics", "depend on batch_size")],
)
def test_a_network_whose_numbers_would_mean_nothing(refuse, trained, command, more, classifier, said):
    before = set(trained.rglob("*.json")) | set(trained.rglob("*.csv"))
    assert said in refuse(command, *more, f"classifier=tests.workflows.components:{classifier}")
    assert set(trained.rglob("*.json")) | set(trained.rglob("*.csv")) == before, "work had begun"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("attack=nonsense",), ["nonsense", "fgsm", "ifgsm", "mifgsm", "pgd"]),
        (("defense=nonsense",), ["nonsense", "none", "kmeans", "binarize", "vqvae"]),
        (("eps=-0.1",), ["eps=-0.1", "0 to 1"]),
        (("eps=nan",), ["eps=nan", "0 to 1"]),
        (("eps=0.1,1.5",), ["eps=1.5", "0 to 1"]),
        (("eps=big",), ["eps=big", "0 to 1"]),
        (("noise=-1",), ["noise=-1"]),
        (("noise=inf",), ["noise=inf"]),
        (("limit=0",), ["limit=0"]),
        (("limit=121",), ["limit=121", "120"]),
        (("split=train",), ["split=train", "'test' or 'val'"]),
        (("classifier.checkpoint=null",), ["classifier=None", "a checkpoint (a file, .ckpt)"]),
        (("defense=vqvae", "defense.purifier.checkpoint=null"), ["checkpoint=None is not the path of a file"]),
        (("seed=-1",), ["seed=-1"]),
        (("batch_size=0",), ["batch_size=0"]),
        (("hydra.sweeper.max_batch_size=0",), ["max_batch_size=0"]),
        (("hydra.launcher._target_=hydra_plugins.hydra_x_launcher.X",), ["pip install hydra-x-launcher"]),
        (("nonsense=1",), ["no nonsense here"]),
        (("epss=0.1",), ["no epss here", "did you mean eps?"]),
        (("atack=fgsm",), ["did you mean attack?"]),
        (("attack=fgms",), ["no attack=fgms", "did you mean fgsm?", "mifgsm"]),
        (("attack=fgsm,null",), ["attack=null", "fgsm, ifgsm"]),
        (("~attack=[fgsm]",), ["~attack=[fgsm]", "fgsm, ifgsm"]),
        (("logger=false",), ["logger=false", "none"]),
        (("trainer.precision=16-mixed",), ["no trainer.precision here"]),
        (("trainer.devices=2",), ["no trainer.devices here"]),
        (("++eps=7",), ["eps=7", "0 to 1"]),
        (("defense=vqave",), ["did you mean vqvae?"]),
        (("attack=ifgsm", "attack.stesp=4"), ["no attack.stesp", "did you mean attack.steps?"]),
        (("attack=ifgsm", "atack.steps=4"), ["no atack here", "did you mean attack?"]),
        (("attack=ifgsm", "iterative.steps=x"), ["ifgsm: steps=x is not a whole number"]),
        (("eps",), ["eps is not name=value"]),
        (("model=vqvae",), ["no model to choose: leave model=vqvae out"]),
        (("eps=[0.1",), ["eps=[0.1 cannot be read"]),
        (("checks=5",), ["checks=5", "checks.…="]),
        (("protocol=report",), ["protocol=report", "protocol.…="]),
        (("iterative=3",), ["iterative=3", "iterative.…="]),
        (("clip_output=no",), ["clip_output=no", "neither true nor false"]),
        (("iterative.refresh_gradient=off",), ["refresh_gradient=off", "neither true nor false"]),
        (("compare_published=perhaps",), ["compare_published=perhaps", "neither true nor false"]),
        (("defense=vqvae", "noise=0,0.5,0.6"), ["vqvae-noise0.6.ckpt", "python -m src.train model=vqvae noise=0.6"]),
        (("seed=7",), ["classifier-seed7.ckpt", "python -m src.train model=classifier", "seed=7"]),
        (("attack=transfer",), ["classifier-seed1.ckpt", "python -m src.train model=classifier data=mnist data.root="]),
        (("attack=apgd_ce", "attack.attack=APDG"), ["no attack APDG", "APGD"]),
        (("attack=apgd_ce", "+attack.stesp=5"), ["no option stesp", "steps"]),
    ],
)
def test_sweep(refuse, trained, arguments, said):
    cells = trained / "cells"
    before = set(cells.glob("*"))
    message = refuse("sweep", *SWEEP, *arguments)
    assert all(each in message for each in said), message
    assert set(cells.glob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("attack=nonsense",), ["nonsense", "fgsm"]),
        (("eps=2",), ["eps=2"]),
        (("eps=0,0.1",), ["eps=0,0.1 has several values", "-m"]),
        (("experiment=report",), ["+experiment=report"]),
        (("data=some/path",), ["no data=some/path", "data can be", "mnist"]),
        (("attack=null",), ["attack=null", "fgsm, ifgsm"]),
        (("threat.view=3",), ["3 is no component"]),
        (("defense.purifier=3",), ["3 is no component"]),
        (("defense=vqvae", "noise=0.6"), ["python -m src.train model=vqvae noise=0.6"]),
        (("attack=ifgsm", "attack.steps=0"), ["steps"]),
        (("defense=kmeans", "defense.purifier.k=0"), ["k and iterations"]),
        (("defense=kmeans", "+defense.purifier.colour=0"), ["colour"]),
        (("trainer=gpu",), ["gpu"]),
    ],
)
def test_single_cell(refuse, arguments, said):
    if "trainer=gpu" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    message = refuse("sweep", *arguments)
    assert all(each in message for each in said), message


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nowhere.at_all:factory", ["cannot import nowhere.at_all", "PYTHONPATH"]),
        ("tests.workflows.components:nothing", ["tests.workflows.components has no nothing"]),
        ("tests.workflows.components:no_module", ["dict", "nn.Module"]),
        ("tests.workflows.components:Blur.nothing", ["has no Blur.nothing"]),
        ("tests.workflows.components:in_need", ["called without arguments", "'n'"]),
        ("tests.workflows.components:five_classes", ["(2, 5)", "(2, 10)"]),
        ("tests.workflows.components:Blur", ["into (2, 1, 28, 28)", "(2, 10)"]),
        ("tests.workflows.components:Broken", ["fails on images (2, 1, 28, 28)", "this defense is broken"]),
        ("tests.workflows.components:InPlace", ["in place"]),
        ("tests.workflows.components:WritesIntoDark", ["in place"]),
        ("tests.workflows.components.InPlace", ["package.module:factory", "checkpoint"]),
        ("nowhere.ckpt", ["no checkpoint nowhere.ckpt", "model.checkpoint=nowhere.ckpt"]),
        ("null", ["package.module:factory"]),
    ],
)
def test_a_classifier_that_is_none(refuse, trained, asked, said):
    cells = set((trained / "cells").glob("*"))
    one_of_each_kind = asked.startswith("nowhere") or asked.endswith((":Blur", ":InPlace"))
    for arguments in ((), SWEEP) if one_of_each_kind else ((),):
        message = refuse("sweep", *arguments, f"classifier={asked}")
        assert all(each in message for each in said), message
    assert set((trained / "cells").glob("*")) == cells


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model=nonsense",), ["nonsense", "classifier", "vqvae"]),
        (("model=clasifier",), ["no model=clasifier", "did you mean classifier?"]),
        (("modl=vqvae",), ["no modl here", "did you mean model?"]),
        (("model=null",), ["model=null", "classifier, diffusion, vae, vqvae"]),
        (("model=vqvae", "model.module.num_embedings=5"), ["did you mean model.module.num_embeddings?"]),
        (("-m", "model=vqvae,classifier", "model.module.num_embeddings=64"), ["no model.module.num_embeddings here"]),
        (("-m", "model=vqvae,classifier", "model.module.patience=3"), ["no model.module.patience here"]),
        (("model=vqvae", "budget=tiny"), ["budget=tiny", "full, demo"]),
        (("model=vqvae", "overwrite=no"), ["overwrite=no", "neither true nor false nor 'different'"]),
        (("model=vqvae", "noise=-0.1"), ["noise=-0.1"]),
        (("model=vqvae", "noise=nan"), ["noise=nan"]),
        (("model=classifier", "seed=x"), ["seed=x"]),
        (("model=classifier", "resume=true"), ["no checkpoint", "classifier.last.ckpt"]),
        (("model=classifier", "trainer.precision=nonsense"), ["precision=nonsense", "32-true", "bf16-mixed"]),
        (("model=classifier", "trainer.precision=64-true"), ["precision=64-true", "32-true"]),
        (("model=classifier", "trainer.limit_train_batches=1e-7"), ["limit_train_batches", "leaves no batch"]),
        (("model=classifier", "+trainer.overfit_batches=5"), ["overfit_batches", "limit_train_batches=5"]),
        (("model=classifier", "+trainer.logger=true"), ["trainer.logger", "logger="]),
        (("model=classifier", "+trainer.callbacks=[{_target_:torch.nn.Identity}]"), ["no Lightning callback"]),
        (("model=classifier", "+trainer.nonsense=1"), ["nonsense"]),
        (("model=classifier", "hydra.job.chdir=true"), ["hydra.job.chdir", "paths.outputs"]),
        (("model=classifier", "overwrite=perhaps"), ["overwrite=perhaps", "different"]),
    ],
)
def test_train(refuse, tmp_path, arguments, said):
    message = refuse("train", *arguments, outputs=tmp_path)
    assert all(each in message for each in said), message
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sigma=0",), ["sigma=0", "above 0"]),
        (("sigma=-0.5",), ["sigma=-0.5", "above 0"]),
        (("sigma=nan",), ["sigma=nan"]),
        (("noise=0",), ["sigma=0", "noise unless given"]),
        (("n=0",), ["n=0", "at least"]),
        (("n=50",), ["n=50", "n0=100"]),
        (("n0=0",), ["n0=0", "at least 1"]),
        (("n=1e5",), ["n=100000.0"]),
        (("precision=half",), ["precision=half", "float32", "bfloat16"]),
        (("alpha=0",), ["alpha=0", "between 0 and 1"]),
        (("alpha=1",), ["alpha=1", "between 0 and 1"]),
        (("images=0",), ["images=0"]),
        (("images=121",), ["images=121", "120"]),
        (("images=20", "skip=10"), ["images=20", "12 with skip=10"]),
        (("skip=0",), ["skip=0"]),
        (("denoise=perhaps",), ["denoise=perhaps"]),
        (("batch_size=0",), ["batch_size=0"]),
        (("seed=7",), ["classifier-seed7.ckpt", "python -m src.train model=classifier"]),
        (("model=nonsense",), ["nonsense", "vqvae"]),
        (("model=classifier",), ["model=classifier", "denoiser", "model=vqvae"]),
        (("noise=0.6",), ["vqvae-noise0.6.ckpt", "python -m src.train model=vqvae noise=0.6"]),
        (("noise=0", "sigma=0.5", "denoiser.noise=0.25"), ["trained with noise 0, not 0.25"]),
        (
            ("noise=0.5", "denoiser.checkpoint=${classifier.checkpoint}"),
            ["model=classifier: it is no VQVAE"],
        ),
        (("noise=0.5", "+denoiser.clamp=true"), ["VQVAEPurifier", "clamp"]),
    ],
)
def test_certify(refuse, trained, arguments, said):
    small = () if any(each.startswith("images=") for each in arguments) else ("images=10",)
    message = refuse("certify", *small, *arguments)
    assert all(each in message for each in said), message
    assert not (trained / "certified").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("port=http",), ["port=http", "0 to 65535"]),
        (("host=192.0.2.1",), ["host=192.0.2.1", "127.0.0.1"]),
        (("eps=2",), ["eps=2", "0 to 1"]),
        (("noises=0.5",), ["noises=0.5", "noises=[0,0.5]"]),
        (("patience=0",), ["patience=0", "above 0"]),
        (("thumbnails=0",), ["thumbnails=0"]),
        (("attack=nonsense",), ["nonsense", "fgsm"]),
        (("attack=transfer",), ["python -m src.train model=classifier data=mnist data.root="]),
        (("defense=vqvae", "noise=0.6"), ["python -m src.train model=vqvae noise=0.6"]),
    ],
)
def test_play(refuse, arguments, said):
    pytest.importorskip("gradio")
    message = refuse("play", "port=0", "trainer=cpu", *arguments)
    assert all(each in message for each in said), message


def test_play_without_a_classifier_says_what_a_sweep_says(refuse):
    pytest.importorskip("gradio")
    assert refuse("play", "port=0", "seed=7") == refuse("sweep", "seed=7")


def test_an_empty_data_folder(refuse, tmp_path):
    message = refuse("sweep", *SWEEP, root=tmp_path / "nothing")
    assert str(tmp_path / "nothing") in message


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """An outputs folder to spoil."""
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def test_a_truncated_checkpoint(refuse, copied):
    path = copied / "checkpoints" / "mnist" / "classifier.ckpt"
    path.write_bytes(path.read_bytes()[:100_000])
    message = refuse("sweep", *SWEEP, outputs=copied)
    assert str(path) in message
    assert "python -m src.train model=classifier" in message


def test_a_checkpoint_of_another_network(refuse, copied):
    folder = copied / "checkpoints" / "mnist"
    shutil.copy(folder / "vqvae-noise0.ckpt", folder / "classifier.ckpt")
    assert "was trained with model=vqvae: it is no Classifier" in refuse("sweep", outputs=copied)


def test_a_checkpoint_of_another_noise(refuse, copied):
    folder = copied / "checkpoints" / "mnist"
    shutil.copy(folder / "vqvae-noise0.ckpt", folder / "vqvae-noise0.75.ckpt")
    message = refuse("sweep", "-m", "defense=vqvae", "noise=0.75", outputs=copied)
    assert "trained with noise 0, not 0.75" in message


@pytest.mark.parametrize(("command", "arguments"), [("sweep", SWEEP), ("export", ("part=classifier",))])
def test_a_checkpoint_of_other_data(refuse, copied, mnist, command, arguments):
    message = refuse(command, *arguments, outputs=copied, root=mnist.root)
    assert "was trained on mnist" in message
    assert "python -m src.train model=classifier" in message


def test_the_advised_command_is_for_the_same_folders(refuse, copied):
    message = refuse("sweep", "defense=vqvae", "noise=0.3", outputs=copied)
    assert "python -m src.train model=vqvae noise=0.3" in message
    assert f"paths.outputs={copied}" in message


def test_a_function_that_is_called_too_early_is_told_of_partial(refuse, copied):
    message = refuse("sweep", "~attack._partial_", outputs=copied)
    assert "missing" in message and message.endswith("add _partial_: true to its YAML")


OTHER_SPLIT = ("split=val", "data.split_seed=1")
OWN = "classifier=tests.workflows.components:linear_classifier"


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("sweep", OTHER_SPLIT, ["classifier.ckpt", "data.split_seed=0 data.val_size=100", "data.split_seed=1"]),
        ("sweep", ("defense=vqvae", *OTHER_SPLIT, OWN), ["vqvae-noise0.ckpt"]),
        ("sweep", ("attack=transfer", *OTHER_SPLIT, OWN), ["transferred.ckpt"]),
        ("certify", OTHER_SPLIT, ["classifier.ckpt"]),
        ("train", ("model=classifier", "resume=true", "data.split_seed=1"), ["another configuration"]),
    ],
)
def test_validation_images_that_were_trained_on(refuse, copied, command, arguments, said):
    checkpoints = copied / "checkpoints" / "mnist"
    shutil.copy(checkpoints / "classifier.ckpt", checkpoints / "transferred.ckpt")
    transfer = [f"attack.source.checkpoint={checkpoints}/transferred.ckpt"] if "attack=transfer" in arguments else []
    message = refuse(command, *arguments, *transfer, outputs=copied)
    assert all(each in message for each in said), message


def test_certificates_that_cannot_be_written(refuse, copied):
    (copied / "certified").write_text("in the way")
    assert "cannot write" in refuse("certify", "images=1", "n=100", "denoise=false", outputs=copied)


def test_cells_that_cannot_be_written(refuse, copied):
    (copied / "cells").write_text("in the way")
    assert "cannot write" in refuse("sweep", outputs=copied)


def test_outputs_that_cannot_be_written(refuse, copied):
    (copied / "sweeps").write_text("in the way")
    assert "cannot write" in refuse("sweep", *SWEEP, outputs=copied)


@pytest.mark.parametrize("multirun", [(), ("-m",)])
@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_that_cannot_be_made(refuse, tmp_path, command, multirun):
    (tmp_path / "file").write_text("in the way")
    for outputs, reason in ((Path("/proc/nothing"), "No such file"), (tmp_path / "file" / "outputs", "Not a dir")):
        message = refuse(command, *multirun, outputs=outputs)
        assert all(each in message for each in (str(outputs), reason, "paths.outputs")), message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("multirun", [(), ("-m",), ("-m", "noise=0,0.5")])
def test_training_without_a_model(refuse, tmp_path, multirun):
    message = refuse("train", *multirun, outputs=tmp_path)
    assert all(each in message for each in ("model=", "classifier", "vqvae")), message
    assert not list(tmp_path.iterdir())


def test_a_report_on_nothing(refuse, tmp_path):
    assert "python -m src.sweep -m" in refuse("report", outputs=tmp_path)
    assert "is no sweep" in refuse("report", f"sweep={tmp_path}", outputs=tmp_path)
    assert "neither true nor false" in refuse("report", "compare_published=yes", outputs=tmp_path)
