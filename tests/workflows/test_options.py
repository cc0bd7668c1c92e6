"""An option that is accepted acts."""

import importlib
import sys
import traceback
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from src.attacks import check_adversarial
from src.errors import in_code_of_the_users
from src.evaluation import AttackSpec, CellStore
from src.workflows.arguments import in_one_piece
from src.workflows.building import build
from src.workflows.command import CONFIG_PATH, TRACEBACK, register_resolvers, run
from src.workflows.schema import SCHEMAS
from src.workflows.sweeping import _whose
from tests.workflows.components import AwkwardError, Fragile
from tests.workflows.conftest import copy_of

COMMANDS = ("prepare", "train", "sweep", "certify", "report", "dashboard", "play")


@pytest.fixture
def show(monkeypatch, capsys):
    """``show("sweep", "--cfg", "job")``: what a command prints that computes nothing."""

    def call(command: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [command, *arguments])
        for name in ("HYDRA_FULL_ERROR", TRACEBACK):
            monkeypatch.setenv(name, "0")
        GlobalHydra.instance().clear()
        run(importlib.import_module(f"src.{command}").main)
        return capsys.readouterr().out

    yield call
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_configuration_can_be_shown_resolved(show, command):
    config = OmegaConf.create(show(command, "--cfg", "job", "--resolve"))
    assert config.paths.outputs == "outputs"
    assert "${" not in OmegaConf.to_yaml(config)


@pytest.mark.parametrize("command", SCHEMAS)
def test_what_runs_leave_lies_below_the_outputs(command):
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        hydra = compose(command, ["paths.outputs=elsewhere"], return_hydra_config=True).hydra
    assert hydra.run.dir.startswith("elsewhere/") and hydra.sweep.dir.startswith("elsewhere/")


@pytest.mark.parametrize(
    ("line", "ordered"),
    [
        ("a=1 -m b=2", "a=1 b=2 -m"),
        ("a=1 --cfg job b=2 --resolve ~c", "a=1 b=2 ~c --cfg job --resolve"),
        ("a=1 --config-na sweep b=2 -i", "a=1 b=2 --config-na sweep -i"),
        ("a=1 -i defaults b=2", "a=1 b=2 -i defaults"),
        ("a=1 -i b=2", "a=1 b=2 -i"),
        ("a=1 --config-dir=x b=2", "a=1 b=2 --config-dir=x"),
        ("a=1 -m stray b=2", "a=1 stray b=2 -m"),  # for Hydra to refuse
        *((line, line) for line in ("", "-m", "-m a=1 b=2", "a=1 b=2 -m", "-cjob a=1", "-mc job a=1", "-c job a=1 -m")),
    ],
)
def test_options_may_stand_among_overrides(line, ordered):
    assert in_one_piece(line.split()) == ordered.split()
    get_args_parser().parse_args(in_one_piece(line.split()))


def test_so_they_may_in_a_real_command(run_command, tmp_path):
    shown = run_command("src.sweep", "logger=none", "--cfg", "job", "attack=ifgsm", outputs=tmp_path)
    assert OmegaConf.create(shown.stdout).attack.name == "ifgsm"
    swept = run_command("src.sweep", "logger=none", "-m", "attack=fgsm", "eps=2", outputs=tmp_path, check=False)
    assert swept.returncode == 1 and swept.stderr.startswith("error: eps=2 is not a number from 0 to 1")
    assert len(swept.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "arguments", "project", "folder"),
    [
        ({}, [], "defense-vqvae", "outputs"),
        ({"WANDB_PROJECT": "mine", "WANDB_DIR": "/runs"}, [], "mine", "/runs"),
        ({"WANDB_PROJECT": "mine"}, ["logger.project=its"], "its", "outputs"),
        ({"WANDB_PROJECT": ""}, [], "defense-vqvae", "outputs"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep", "certify", "report", "dashboard"])
def test_wandbs_own_variables_say_where_runs_go(monkeypatch, command, environment, arguments, project, folder):
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
        config = compose(command, overrides=arguments)
    settings = build(config.logger.cells)
    assert (settings.project, str(settings.folder)) == (project, folder)


def test_a_sweep_takes_what_the_command_line_names_in_whatever_way():
    from hydra_plugins.grid_sweeper import GridSweeper

    usual = {"attack": "fgsm,ifgsm", "eps": "0,0.1", "noise": "0,0.5"}
    sweeper = GridSweeper(max_batch_size=None, params=usual)
    sweeper.hydra_context = SimpleNamespace(config_loader=None)
    points = sweeper._points(["++eps=0.3", "attack=pgd", "+attack.more=1", "~noise"])
    assert points == [["++eps=0.3", "attack=pgd", "+attack.more=1", "~noise=null"]]
    assert len(sweeper._points(["limit=5"])) == 8
    assert OverridesParser.create().parse_overrides(points[0])


@pytest.mark.slow
def test_hydras_basic_sweeper_computes_cells_that_stand_alone(run_command, trained, tmp_path):
    outputs = copy_of(trained, tmp_path)
    asked = ("-m", "hydra/sweeper=basic", "attack=fgsm", "eps=0.1,0.2", "defense=none", "noise=0", "logger=none")
    done = run_command("src.sweep", *asked, outputs=outputs)
    assert done.stdout.count("fgsm eps") == 2
    store = CellStore(outputs / "cells")
    found = [store.get(path.stem) for path in (outputs / "cells").glob("*.json")]
    assert {cell.coordinates.eps for cell in found} == {0, 0.1, 0.2}


@pytest.mark.parametrize("choice", ["disabled", "stdout", "default"])
def test_hydras_other_settings_of_logging_can_be_chosen(run_command, trained, tmp_path, choice):
    outputs = copy_of(trained, tmp_path)
    done = run_command("src.sweep", f"hydra/job_logging={choice}", "logger=none", "limit=10", outputs=outputs)
    assert ("fgsm eps 0.3" in done.stdout) == (choice != "disabled")
    assert bool(list(outputs.rglob("sweep.log"))) == (choice == "default")


def failure(call, *arguments) -> Exception:
    """What a call raises, with the part of the traceback below this file, which would be a user's own code, too."""
    with pytest.raises((ValueError, AwkwardError)) as raised:
        call(*arguments)
    trace = raised.value.__traceback__
    while traceback.extract_tb(trace)[0].filename == __file__:
        trace = trace.tb_next
    return raised.value.with_traceback(trace)


def test_a_failure_is_put_down_to_whose_code_it_is_in(images):
    def by(target, **members):
        return SimpleNamespace(attack=AttackSpec("attack", target and {"_target_": target}, members=members))

    theirs, ours = by("somebodys.attack"), by("src.attacks.fgsm")
    spent = failure(check_adversarial, images + 0.3, images, 0.1)
    assert "somebodys.attack" in _whose(spent, theirs)
    assert "bug" in _whose(spent, ours)
    assert "somebodys.attack" in _whose(spent, by(None, one=ours.attack, other=theirs.attack))
    assert "bug" in _whose(spent, by(None, one=ours.attack))

    raised = failure(Fragile(), images)
    where = in_code_of_the_users(raised)
    assert where is not None and "components.py" in where and "in forward" in where
    assert "no part of defense-vqvae" in _whose(raised, ours)
