"""``--help`` says what there is, and nothing in it, nor in the README, is out of date."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from src.workflows.arguments import named
from src.workflows.cli_help import WIDTH
from src.workflows.command import CONFIG_PATH, TRACEBACK, register_resolvers, run
from src.workflows.schema import SCHEMAS, section_of
from tests.conftest import REPO

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher")

CONF = Path(CONFIG_PATH)
COMMANDS = ("prepare", "train", "sweep", "certify", "report", "dashboard", "play", "export", "purify", "pack")
COMMAND = re.compile(r"\.?\s*python -m src\.(\w+)(.*?)(?: {2,}.*| # .*|`.*)?$", re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> dict[tuple[str, ...], str]:
    """What has been shown before. Help says the same each time."""
    return {}


@pytest.fixture
def show(monkeypatch, capsys, shown):
    """``show("sweep", "eps=0.1")``: what ``python -m src.sweep --help eps=0.1`` prints."""

    def call(command: str, *arguments: str) -> str:
        if (command, *arguments) in shown:
            return shown[command, *arguments]
        monkeypatch.setattr(sys, "argv", [command, "--help", *arguments])
        for name in ("HYDRA_FULL_ERROR", TRACEBACK):  # set, so that the variables are gone again after the test
            monkeypatch.setenv(name, "0")
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as exit_:
            run(importlib.import_module(f"src.{command}").main)
        assert not exit_.value.code
        shown[command, *arguments] = capsys.readouterr().out
        return shown[command, *arguments]

    yield call
    GlobalHydra.instance().clear()


@pytest.fixture
def compose():
    """``compose("sweep", "-m eps=0,0.1", jobs=2)``: the configurations of that many of its jobs. Together they have
    every value that is swept, if there are jobs enough, but not every combination of them."""
    register_resolvers()
    loader = ConfigLoaderImpl(create_config_search_path(CONFIG_PATH))

    def call(command: str, arguments: str, jobs: int) -> list[DictConfig]:
        given = named(shlex.split(arguments), ("input", "output") if command == "purify" else ())
        multirun = "-m" in given
        overrides = [each for each in given if each != "-m"]
        master = loader.load_configuration(command, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
        if not multirun:
            return [master]
        OmegaConf.set_readonly(master.hydra, False)
        swept = [f"{name}={value}" for name, value in (master.hydra.sweeper.get("params") or {}).items()]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(swept + overrides)
        chosen = {each.get_key_element(): BasicSweeper.split_arguments([each], None)[0] for each in parsed}
        points = [[each[i % len(each)][0] for each in chosen.values()] for i in range(max(map(len, chosen.values())))]
        return [loader.load_sweep_config(master, point) for point in points[:jobs]]

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_readable_and_complete(show, command):
    said = show(command)
    lines = said.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) < 70, "a wall"
    assert "_target_" not in said
    assert "$" not in said
    assert lines[0] and lines[1] and not lines[2], "two lines say what the command does"
    assert len([line for line in lines if line.startswith(f"  python -m src.{command}")]) == 3

    defaults = OmegaConf.load(CONF / f"{command}.yaml").defaults
    defaults = [*(OmegaConf.load(CONF / "sweep.yaml").defaults if "sweep" in defaults else ()), *defaults]
    chosen = {name: option for each in defaults if not isinstance(each, str) for name, option in each.items()}
    listed = said.partition("Groups")[2].partition("Values")[0]
    chosen |= {
        group: chosen[f"override {group}"]
        for group in chosen.keys() & {"defense", "logger"}
        if f"override {group}" in chosen
    }
    for group, option in chosen.items():
        if group.startswith("override"):
            continue
        (row,) = re.findall(rf"^  {group}={option} (.*(?:\n {{4,}}.*)*)", listed, re.MULTILINE)
        others = {path.stem for path in (CONF / group).glob("*.yaml")} - {option}
        assert set(re.findall(r"\w+", row)) == {"or", *others}
    options = sum(not group.startswith("override") for group in chosen)
    assert listed.count("=") == options + bool(options)  # and that of the heading


@pytest.mark.very_slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_that_has_imported_nothing_says_it_too(command):
    """The quick tests have some commands in processes of their own: sweep, report, play, purify."""
    said = subprocess.run([sys.executable, "-m", f"src.{command}", "--help"], cwd=REPO, capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr
    assert f"python -m src.{command}" in said.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_value_of_the_yaml_has_a_sentence_of_the_schema(show, command):
    shown = " ".join(show(command).split())
    schema, written = SCHEMAS[command], OmegaConf.load(CONF / f"{command}.yaml")
    names = [name for name in written if name not in ("defaults", "hydra", "trainer")]
    assert len(names) >= {"prepare": 0, "pack": 2, "report": 2, "dashboard": 2}.get(command, 4)
    for name in names:
        field = schema.model_fields[name]
        section = section_of(field.annotation)
        assert section or field.description, name
        inherited = command == "play" and name in SCHEMAS["sweep"].model_fields
        said = {name: field.description}
        if section:
            said = {f"{name}.{inner}": value.description for inner, value in section.model_fields.items()}
        for path, sentence in said.items():
            if sentence and not inherited:
                assert re.search(rf" '?{re.escape(path)}(=[^=]+)? {re.escape(sentence)}", shown), path


def test_no_command_is_without_a_schema():
    assert SCHEMAS.keys() == set(COMMANDS)


def test_values_are_what_they_would_be(show):
    said = show("certify", "noise=0.25", "alpha=0.01")
    assert re.search(r"^  noise=0\.25 +which VQ-VAE", said, re.MULTILINE)
    assert re.search(r"^  sigma=0\.25 ", said, re.MULTILINE)
    assert re.search(r"^  alpha=0\.01 ", said, re.MULTILINE)
    assert re.search(r"^  denoise=true ", said, re.MULTILINE)
    assert re.search(r"^  skip=null ", said, re.MULTILINE)
    assert re.search(r"^  classifier=my:own +another", show("sweep", "classifier=my:own"), re.MULTILINE)


def test_options_of_the_users_are_listed(show):
    said = show("sweep", f"hydra.searchpath=[file://{REPO}/tests/workflows/conf]", "defense=blur")
    assert re.search(r"^  defense=blur +or [\w, \n]*binarize,[\w, \n]*none,[\w, \n]*vqvae", said, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_examples_can_be_composed(show, compose, command):
    for name, arguments in COMMAND.findall(re.split(r"\n(?:Groups|Values) ", show(command))[0]):
        assert compose(name, arguments, jobs=4), arguments


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_so_can_every_experiment(compose, experiment):
    jobs = compose("sweep", f"-m +experiment={experiment}", jobs=4)
    assert len(jobs) > 1 and all(job.eps is not None and job.defense.name for job in jobs)


#: Pages whose commands are there to be typed. The research log has commands of the past.
PAGES = [
    REPO / "README.md",
    *(REPO / "docs" / f"{name}.md" for name in ("index", "start", "results", "use", "machines", "extend", "verdicts")),
    REPO / "docs" / "tutorials" / "honest_number.py",
]


@pytest.mark.slow
def test_so_can_those_of_readme_and_docs(compose):
    found = [pair for page in PAGES for pair in COMMAND.findall(page.read_text().replace("\\\n", ""))]
    assert len(found) > 40
    for name, arguments in dict.fromkeys(found):
        assert "…" in arguments or compose(name, arguments, jobs=1), (name, arguments)


@pytest.mark.slow
def test_so_can_the_makefiles(compose):
    targets = ["demo", "reproduce", "robust", "certified", "board", "ablations", "weights"]
    said = subprocess.run(["make", "-n", *targets], cwd=REPO, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"-m src\.(\w+) ?(.*?)(?: \|\| exit; done)?$", said.replace("\\\n", ""), re.MULTILINE)
    assert len(found) > 30
    for name, arguments in dict.fromkeys(found):
        assert compose(name, arguments.replace("$noise", "0.25"), jobs=1), (name, arguments)


def test_a_reader_that_goes_away_leaves_no_trace():
    command = f"{sys.executable} -m src.pack --help | true"
    assert subprocess.run(["bash", "-c", command], cwd=REPO, capture_output=True, text=True).stderr == ""


def test_a_command_without_groups_has_no_list_of_them(command_server):
    assert "Groups" not in command_server.run("src.pack", "--help").stdout
    assert "Groups (group=option)" in command_server.run("src.train", "--help").stdout


ASKED = """
import sys
import src.sweep
from src.workflows.command import run
sys.argv[0] = "sweep"
try:
    run(src.sweep.main)
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""


@pytest.mark.parametrize("several", [(), ("-m",)])
def test_who_mistyped_a_value_does_not_wait_for_pytorch(several, tmp_path):
    command = [sys.executable, "-c", ASKED, *several, "eps=8", f"paths.outputs={tmp_path}"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert (
        done.stdout
        == "error: eps=8 is not a number from 0 to 1 (L∞ budget in pixel units); did you mean 8/255? False\n"
    )
