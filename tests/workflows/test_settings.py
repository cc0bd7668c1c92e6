"""The schema of the commands' values: what fits, and the one line for what does not. No command is run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.data import ImageDataModule
from src.errors import UserError
from src.evaluation import AttackSpec, CellSpec, DataSpec, DefenseSpec, ThreatSpec
from src.workflows.building import build, check_arguments, plain
from src.workflows.cells import attack_spec, unsearched_thresholds
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.component_cache import ComponentCache
from src.workflows.schema import SCHEMAS, pixel_units
from src.workflows.settings import checked, unread


@pytest.fixture(scope="module")
def settings():
    """``settings("sweep eps=8/255")``: the checked configuration of a command line."""
    register_resolvers()
    with initialize_config_dir(CONFIG_PATH, version_base="1.3"):

        def call(line: str) -> DictConfig:
            command, *overrides = line.split()
            return checked(compose(command, overrides=overrides, return_hydra_config=True), SCHEMAS[command])

        yield call


class ByConfiguration(ComponentCache):
    """Components as they are configured: no checkpoint of theirs is looked for."""

    def identified(self, component: Any, data: Any, split: str) -> Any:
        return component


def attack_of(config: DictConfig) -> AttackSpec:
    return attack_spec(config, ImageDataModule("none", "nowhere"), ByConfiguration())


@pytest.mark.parametrize("command", sorted(SCHEMAS.keys() - {"purify"}))  # which has to be told its folders
def test_every_commands_own_values_fit(settings, command):
    assert settings(command).seed == 0


@pytest.mark.parametrize("experiment", ["report", "adaptive", "robust", "certified", "board", "demo"])
def test_so_do_experiments(settings, experiment):
    assert settings(f"{'train' if experiment == 'demo' else 'sweep'} +experiment={experiment}")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("sweep eps=8/255", "eps", 8 / 255),
        ("sweep ++eps=8/255", "eps", 8 / 255),
        ("sweep eps=0.30000000000000004", "eps", 0.3),
        ("sweep defense=vqvae noise=1/4", "defense.purifier.noise", 0.25),
        (
            "sweep defense=vqvae noise=1/4",
            "defense.purifier.checkpoint",
            "outputs/checkpoints/mnist/vqvae-noise0.25.ckpt",
        ),
        ("sweep inference_noise=1/8 defense=vqvae", "defense.purifier.inference_noise", 0.125),
        ("sweep checks.eps=1/2", "checks.eps", 0.5),
        ("sweep attack=threshold attack.thresholds=[1/4,0.5]", "attack.thresholds", [0.25, 0.5]),
        ("train model=vqvae noise=1/4", "model.module.noise", 0.25),
        ("train model=vqvae_robust model.module.eps=8/255", "model.module.eps", pytest.approx(8 / 255)),
        ("certify noise=1/4", "sigma", 0.25),
        ("play noises=[0,1/4]", "noises", [0, 0.25]),
    ],
)
def test_an_eps_or_noise_may_be_a_fraction(settings, line, name, value):
    found = settings(line)
    for part in name.split("."):
        found = found[part]
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


def test_numbers_that_differ_by_rounding_are_one():
    assert pixel_units(0.1 * 3) == pixel_units(0.3) == 0.3
    assert pixel_units("8/255") == pixel_units(8 / 255)
    assert [pixel_units(each) for each in ("1/0", "x/2", "${noise}", 1, None)] == ["1/0", "x/2", "${noise}", 1, None]


REFUSED = {
    "sweep eps=2": "eps=2 is not a number from 0 to 1 (L∞ budget in pixel units)",
    "sweep eps=300/255": "eps=1.17647058824 is not a number from 0 to 1",
    "sweep eps=true": "eps=true is not a number from 0 to 1",
    "sweep eps=null": "eps=null is not",
    "sweep eps=nan": "eps=nan is not",
    "sweep eps=[0.1]": "eps=[0.1] is not a number",
    "sweep limit=1.5": "limit=1.5 is not a whole number, at least 1 or null",
    "sweep limit=true": "limit=true is not a whole number",
    "sweep seed=-1": "seed=-1 is not a whole number from 0 to 2147483647",
    "sweep eot_samples=0": "eot_samples=0 is not a whole number, at least 1",
    "sweep batch_size=abc": "batch_size=abc is not a whole number, at least 1 or null",
    "sweep iterative.rel_step=-1": "iterative.rel_step=-1 is not a number above 0 (step size / eps) or null",
    "sweep checks=5": "checks=5 is out of place",
    "sweep +checks.image=5": "there is no checks.image here; did you mean checks.images?",
    "sweep protocol.clean_errors_count=1": "protocol.clean_errors_count=1 is neither true nor false",
    "sweep paths.outputs=null": "paths.outputs=null is not a text",
    "sweep attack=[fgsm,ifgsm]": "chooses several where one is wanted; for one job each: -m attack=fgsm,ifgsm",
    "sweep defense=[none,binarize]": "-m defense=none,binarize",
    "sweep logger=[wandb,csv]": "chooses several",
    "sweep logger=tensorboard": "for trainings",
    "sweep logger=csv": "for trainings",
    "certify logger=tensorboard": "for trainings",
    "sweep logger.tags=abc": "logger.tags=abc is not a list such as logger.tags=[a,b]",
    "train logger.tags=abc": "logger.tags=abc is not a list such as logger.tags=[a,b]",
    "sweep ~attack": "there is no attack here",
    "sweep ~eps": "there is no eps here",
    "train ~model": "there is no model here",
    "sweep ~defense.uses_noise": "the YAML of defense=none has no line uses_noise: …",
    "sweep ~defense.name": "a YAML of group defense has no line name: …",
    "sweep attack.family=iteratve": "attack.family=iteratve is not 'one-step', 'iterative', ",
    "sweep eps=8": "eps=8 is not a number from 0 to 1 (L∞ budget in pixel units); did you mean 8/255?",
    "sweep attack.name=null": "attack.name=null is not a text",
    "sweep attack=worst attack.members=null": "attack.members=null is no component",
    "sweep threat.knows_defense=maybe": "threat.knows_defense=maybe is neither true nor false",
    "sweep threat.view=null": "threat.view=null is no component",
    "sweep defense.purifier=3": "defense.purifier=3 is no component",
    "sweep defense.bpda=no": "defense.bpda=no is neither true nor false",
    "sweep +foo=1": "+foo=1 has no effect",
    "sweep ++foo.bar=1": "++foo.bar=1 has no effect",
    "train +lr=1": "+lr=1 has no effect",
    "sweep +defense.colour=1": "+defense.colour=1 has no effect",
    "sweep +threat.colour=1": "+threat.colour=1 has no effect",
    "sweep +trainer.callbacks=[]": "+trainer.callbacks=[] has no effect here",
    "sweep +trainer.precision=16": "+trainer.precision=16 has no effect here",
    "certify +trainer.devices=2": "+trainer.devices=2 has no effect here",
    **{
        f"sweep +attack.{name}=0.01": f"attack.{name} is out of place: the evaluation gives an attack model, x, y, eps "
        "and gradient; the budget is eps=…"
        for name in ("eps", "gradient", "model", "x", "y")
    },
    "play ++attack.eps=0.01": "attack.eps is out of place",
    "sweep attack=worst +attack.members.pgd.eps=0.01": "attack.members.pgd.eps is out of place",
    "sweep attack=transfer +attack.attack.eps=0.01": "attack.attack.eps is out of place",
    "certify n=50": "n=50 is too small: at least n0=100",
    "certify noise=0": "sigma=0 is not a number above 0, at most 10 (σ of the smoothing",
    "certify alpha=1": "alpha=1 is not a number between 0 and 1 (a probability)",
    "certify precision=half": "precision=half is not 'float32' or 'bfloat16'",
    "play noises=[0,-1]": "noises.1=-1 is not a number from 0 to 10",
    "play patience=0": "patience=0 is not a number above 0 (seconds)",
    "report compare_published=yes": "compare_published=yes is neither true nor false",
    "report sweep=5": "sweep=5 is not a text",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(settings, line):
    with pytest.raises(UserError) as refused:
        settings(line)
    assert REFUSED[line] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "train +trainer.max_steps=3",  # Lightning's
        "train model=classifier +model.precision=auto",  # read by trainer.precision
        "sweep attack=worst +attack@attack.members.more=apgd_t",
        "sweep attack=ifgsm +attack.decay=1",  # for the attack itself to take or refuse
        "sweep logger=none",
        "train logger=csv",
        "prepare data=fashion_mnist",
        "dashboard sweep=latest",
        "sweep logger.tags=[abc]",
    ],
)
def test_what_is_read_somewhere_is_accepted(settings, line):
    assert settings(line)


@pytest.mark.parametrize(
    ("line", "without_effect"),
    [
        ("sweep attack=fgsm iterative.steps=3", ["iterative.steps=3"]),
        ("sweep attack=mifgsm iterative.steps=3", []),
        ("sweep attack=worst iterative.refresh_gradient=false", []),  # by one of its members
        ("sweep surrogate=smooth inference_noise=0.1", ["surrogate=smooth", "inference_noise=0.1"]),
        ("sweep threat=adaptive surrogate=smooth defense=vqvae inference_noise=0.1", []),
    ],
)
def test_a_value_that_no_component_reads_is_known(settings, line, without_effect):
    assert unread(line.split()[1:], [settings(line)]) == without_effect


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ({"_target_": "src.attacks.pgd", "random_start": "maybe"}, "src.attacks.pgd: random_start=maybe"),
        ({"_target_": "src.attacks.ifgsm", "rel_step": "abc"}, "src.attacks.ifgsm: rel_step=abc"),
        ({"_target_": "src.attacks.ifgsm", "steps": 1.5}, "src.attacks.ifgsm: steps=1.5"),
        ({"_target_": "src.defenses.KMeansCompression", "k": "abc"}, "src.defenses.KMeansCompression: k=abc"),
        ({"_target_": "src.defenses.Binarize", "threshold": None}, "src.defenses.Binarize: threshold=null"),
        (
            {"_target_": "src.defenses.Chain", "_args_": [{"_target_": "src.defenses.Binarize", "threshold": "x"}]},
            "src.defenses.Binarize: threshold=x",
        ),
        ({"_target_": "src.models.RobustVQVAE", "blocks": 2}, "src.models.RobustVQVAE: blocks=2 is not a list"),
        (
            {"_target_": "src.models.RobustVQVAE", "blocks": [1, "two"]},
            r"RobustVQVAE: blocks=\[1, two\] has two, which is not a whole number",
        ),
        ({"_target_": "src.models.RobustVQVAE.guided_by", "head": "x"}, "guided_by: head=x is not"),  # of a base class
        (
            {"_target_": "src.models.CertifiedVQVAE", "convolutions": [[32, 5, 2, 2], 64]},
            "has 64, which is not a list",
        ),
    ],
)
def test_a_components_argument_of_another_type_is_named(component, said):
    with pytest.raises(UserError, match=said) as refused:
        build(component)
    assert "\n" not in str(refused.value)


def groups(config: DictConfig) -> list[Any]:
    return [plain(config[name]) for name in config if name not in ("hydra", "trainer")]  # precision=auto is ours


@pytest.mark.parametrize(
    "command", ["sweep", *(f"train model={name}" for name in ("vqvae", "vqvae_robust", "vqvae_certified")), "certify"]
)
@pytest.mark.parametrize("data", ["mnist", "fashion_mnist"])
def test_our_own_components_have_arguments_of_the_types_that_they_name(settings, command, data):
    check_arguments(groups(settings(f"{command} data={data}")))


@pytest.mark.parametrize("attack", sorted(path.stem for path in Path(CONFIG_PATH).glob("attack/*.yaml")))
def test_so_have_our_attacks(settings, attack):
    check_arguments(groups(settings(f"sweep attack={attack} threat=adaptive")))


@pytest.mark.parametrize("defense", sorted(path.stem for path in Path(CONFIG_PATH).glob("defense/*.yaml")))
def test_so_have_our_defenses(settings, defense):
    check_arguments(groups(settings(f"sweep defense={defense} noise=0.5")))


@pytest.mark.parametrize("command", ["sweep", "train", "certify"])
def test_an_apple_gpu_that_is_not_there_ends_a_command_at_once(run_command, tmp_path, command):
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    asked = ("model=classifier",) if command == "train" else ()
    done = run_command(f"src.{command}", "trainer=mps", "logger=none", *asked, outputs=tmp_path, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "error: trainer=mps: PyTorch finds no Apple GPU on this machine; trainer=cpu does without"
    )


def test_an_attack_is_told_the_precision_of_its_gradients(settings, monkeypatch):
    """Those of float32 are not told of it, so that their cells keep their keys. Square has no gradient."""

    def precisions(line: str, native: bool = False) -> dict[str, str | None]:
        monkeypatch.setattr("src.precision.native_bfloat16", lambda accelerator: native)
        suite = attack_of(settings(line))
        return {name: (member.component or {}).get("precision") for name, member in suite.members.items()}

    suite = "sweep attack=worst ~attack.members.transfer attack_precision="
    of_ours = dict.fromkeys(("fgsm", "ifgsm", "mifgsm", "pgd", "threshold"), "bfloat16")
    of_others = dict.fromkeys(("apgd_ce", "apgd_dlr", "square", "uniform"))
    assert precisions(f"{suite}bfloat16") == precisions(f"{suite}auto", native=True) == of_ours | of_others
    for line in (f"{suite}float32", f"{suite}auto", suite.split(" attack_precision")[0]):
        assert set(precisions(line).values()) == {None}
    with pytest.raises(UserError, match="attack_precision=float16"):
        settings("sweep attack_precision=float16")


def test_an_attack_of_a_family_of_ones_own_comes_last_among_survivors(settings):
    asked = "sweep threat=adaptive attack=worst_gradient attack.survivors=true attack.members.fgsm.family="
    for family in ("mine", "''"):
        suite = attack_of(settings(asked + family))
        assert suite.component is not None
        *known, own = suite.component["attacks"]
        assert own == "fgsm" and known


@pytest.mark.parametrize("survivors", ["false", "true"])
def test_a_proof_is_no_member_of_a_worst_case(settings, survivors):
    asked = f"sweep attack=worst threat=adaptive attack.survivors={survivors} +attack@attack.members.proof=certified"
    with pytest.raises(UserError) as refused:
        attack_spec(settings(asked), None, None)
    said = "attack.members.proof is a proof and no attack: leave it out, and run it as attack=certified"
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("threat=adaptive attack=threshold", ""),
        ("threat=gray_box attack=threshold defense.purifier.threshold=0.4", ""),
        ("threat=adaptive attack=pgd defense.purifier.threshold=0.4", ""),
        ("threat=adaptive attack=threshold defense.purifier.threshold=0.4", "attack.thresholds=[0.4]"),
        (
            "threat=adaptive attack=worst ~attack.members.transfer defense.purifier.threshold=0.4",
            "attack.members.threshold.thresholds=[0.4]",
        ),
    ],
)
def test_thresholds_that_the_search_leaves_out_are_named(settings, line, said):
    asked = settings(f"sweep defense=binarize {line}")
    attack = attack_of(asked)
    defense = DefenseSpec("binarize", plain(asked.defense.purifier))
    threat = ThreatSpec(asked.threat.name, {}, knows_defense=asked.threat.knows_defense)
    spec = CellSpec(DataSpec("mnist", "", 1), "", attack, 0.3, threat, defense)
    expected = said and f"binarize quantizes at 0.4; the threshold search is stronger with {said}"
    assert unsearched_thresholds(spec, build) == expected


def test_without_a_search_for_thresholds_no_defense_is_built_for_a_warning(settings):
    attack = attack_of(settings("sweep threat=adaptive attack=pgd"))
    defense = DefenseSpec("own", {"_target_": "broken.Defense"})
    spec = CellSpec(DataSpec("mnist", "", 1), "", attack, 0.3, ThreatSpec("adaptive", {}, True), defense)
    assert unsearched_thresholds(spec, lambda component: pytest.fail(f"{component} was built")) == ""


def test_a_suite_on_survivors_is_one_attack_whose_cheap_parts_come_first(settings):
    asked = settings("sweep threat=adaptive attack=worst ~attack.members.transfer attack.survivors=true")
    suite = attack_of(asked)
    assert suite.component is not None and suite.name == "worst" and suite.early_stop and not suite.members
    order = list(suite.component["attacks"])
    assert order == ["fgsm", "uniform", "ifgsm", "mifgsm", "pgd", "apgd_ce", "apgd_dlr", "threshold", "square"]
    assert list(build(suite.component).keywords["attacks"]) == order
    once, twice = (spec.component["attacks"]["pgd"]["steps"] for spec in (suite, suite.strengthened()))
    assert twice == 2 * once
    with pytest.raises(UserError, match=r"attack\.survivors=true needs threat=adaptive"):
        attack_of(settings("sweep attack=worst attack.survivors=true"))
