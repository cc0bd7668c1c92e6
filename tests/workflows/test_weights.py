"""Trained networks as a folder for others: packed, fetched, verified, and nothing of the user's written over."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.models import VQVAE, Classifier
from src.models.checkpoint import load_module, read_checkpoint
from src.models.shared_weights import LAYOUT, SharedNetwork, index_text, shared_networks
from src.workflows.command import CONFIG_PATH, register_resolvers
from src.workflows.packing import ROBUST_FIRST, _judged
from src.workflows.schema import SCHEMAS
from src.workflows.settings import checked
from src.workflows.weights import shared_noises
from tests.reporting import reporting_factories as make
from tests.workflows.conftest import Command

NETWORKS = {"classifier": Classifier, "vqvae-noise0": VQVAE, "vqvae-noise0.5": VQVAE}
CELL = ("attack=fgsm", "eps=0.2", "defense=vqvae", "noise=0.5", "logger=none", "checks.images=0")


@pytest.fixture(scope="module")
def packed(trained: Path, run_command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m src.pack`` makes of the trained networks."""
    folder = tmp_path_factory.mktemp("packed") / "weights"
    run_command("src.pack", f"output={folder}", outputs=trained)
    return folder


@pytest.fixture
def mine(packed: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(packed, tmp_path / "weights"))


@pytest.fixture
def served(packed: Path) -> Iterator[str]:
    """The address of the packed folder on a web server of this machine."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(packed))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


Configure = Callable[..., DictConfig]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """``configure("sweep", source, "noise=0.5")``: the command's configuration, its missing checkpoints brought into
    ``tmp_path / "outputs"``."""
    register_resolvers()

    def call(command: str, source: object, *overrides: str) -> DictConfig:
        paths = [f"paths.outputs={tmp_path / 'outputs'}", f"paths.weights={source}"]
        with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
            return checked(compose(command, [*paths, *overrides]), SCHEMAS[command])

    return call


def brought(tmp_path: Path) -> list[str]:
    """Everything in the folders of checkpoints, hidden files included."""
    return sorted(path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder: Path, change: Callable[[list[SharedNetwork]], list[SharedNetwork]]) -> None:
    (folder / "index.json").write_text(index_text(change(shared_networks(str(folder)))))


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pack_is_checkpoints_index_card_and_licence(packed: Path, trained: Path) -> None:
    content = files(packed)
    assert set(content) == {f"mnist-{name}.ckpt" for name in NETWORKS} | {"index.json", "README.md", "LICENSE"}
    for network in shared_networks(str(packed)):
        original = trained / "checkpoints" / "mnist" / f"{network.name}.ckpt"
        assert content[network.file] == original.read_bytes()
        assert network.weights == read_checkpoint(original, "")[1].weights
        assert network.sha256.encode() in content["README.md"]
    for name in ("index.json", "README.md"):
        assert str(trained).encode() not in content[name]


def test_packing_again_makes_the_same_files(packed: Path, trained: Path, run_command: Command, tmp_path: Path) -> None:
    before = files(packed)
    for folder in (packed, tmp_path / "elsewhere"):
        run_command("src.pack", f"output={folder}", outputs=trained)
        assert files(folder) == before


def test_the_card_has_the_clean_accuracy_of_stored_cells_alone(
    packed: Path, swept: tuple[Path, str], run_command: Command, tmp_path: Path
) -> None:
    outputs, _ = swept
    run_command("src.pack", f"output={tmp_path / 'weights'}", outputs=outputs)
    (row,) = [line for line in (tmp_path / "weights" / "README.md").read_text().splitlines() if "| mnist/class" in line]
    cells = [json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")]
    (clean,) = [cell for cell in cells if not cell["eps"] and cell["defense"] == "none"]
    assert f"{clean['accuracy']:.2%} [{clean['ci_low']:.2%}, {clean['ci_high']:.2%}] of {clean['n']}" in row
    assert "%" not in "".join(line for line in (packed / "README.md").read_text().splitlines() if "| mnist/" in line)


def test_what_is_no_longer_packed_leaves_the_folder_and_other_folders_are_refused(
    mine: Path, trained: Path, run_command: Command, tmp_path: Path
) -> None:
    run_command("src.pack", f"output={mine}", "networks=[mnist/classifier]", outputs=trained)
    assert set(files(mine)) == {"mnist-classifier.ckpt", "index.json", "README.md", "LICENSE"}
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "README.md").write_text("mine")
    done = run_command("src.pack", f"output={tmp_path / 'letters'}", outputs=trained, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "output=" in done.stderr
    assert files(tmp_path / "letters") == {"README.md": b"mine"}
    done = run_command("src.pack", "networks=[mnist/none]", outputs=trained, check=False)
    assert done.returncode == 1 and "mnist/none.ckpt" in done.stderr


def test_a_damaged_checkpoint_is_left_out_and_named(trained: Path, run_command: Command, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "mnist" / "vqvae-noise0.ckpt").write_bytes(b"half")
    said = run_command("src.pack", outputs=tmp_path)
    assert "vqvae-noise0.ckpt" in said.stdout + said.stderr
    names = {network.name for network in shared_networks(str(tmp_path / "weights"))}
    assert names == set(NETWORKS) - {"vqvae-noise0"}


@pytest.mark.parametrize("place", ["folder", "web"])
def test_what_is_brought_is_the_network_that_was_packed(
    place: str, packed: Path, request: pytest.FixtureRequest, trained: Path, configure: Configure, tmp_path: Path
) -> None:
    source = packed if place == "folder" else request.getfixturevalue("served")
    for noise in (0, 0.5):
        configure("sweep", source, "defense=vqvae", f"noise={noise}")
    images = torch.rand(5, 1, 28, 28)
    for name, cls in NETWORKS.items():
        theirs, told = load_module(cls, tmp_path / "outputs" / "checkpoints" / "mnist" / f"{name}.ckpt", "")
        ours, ours_told = load_module(cls, trained / "checkpoints" / "mnist" / f"{name}.ckpt", "")
        assert told == ours_told
        assert torch.equal(theirs(images), ours(images))
    assert brought(tmp_path) == sorted(f"{name}.ckpt" for name in NETWORKS)


@pytest.mark.slow
def test_every_command_that_needs_networks_takes_them(
    packed: Path, trained: Path, run_command: Command, tmp_path: Path
) -> None:
    assert _swept(tmp_path / "sweep", run_command, f"paths.weights={packed}") == _swept(trained, run_command)
    small = ("images=2", "n=40", "n0=10", "logger=none", "noise=0.5")
    run_command("src.certify", *small, f"paths.weights={packed}", outputs=tmp_path / "certify")
    assert list((tmp_path / "certify" / "certified").glob("*.csv"))
    export = ("format=torch_export", "noise=0.5", f"paths.weights={packed}")
    run_command("src.export", *export, outputs=tmp_path / "export")
    assert list((tmp_path / "export" / "exported").glob("*.pt2"))


def _swept(outputs: Path, run_command: Command, *more: str) -> tuple[str, str]:
    """Key and outcomes of the cell that the command computes."""
    run_command("src.sweep", *CELL, *more, outputs=outputs)
    cells = [json.loads(path.read_text()) for path in (outputs / "cells").glob("*.json")]
    (cell,) = [each for each in cells if each["eps"] and each["defense"] == "vqvae" and each["noise"] == 0.5]
    return cell["key"], cell["outcomes"]


@pytest.mark.parametrize(
    ("command", "overrides", "needed"),
    [
        ("sweep", ["defense=none"], ["classifier.ckpt"]),
        ("sweep", ["defense=none", "classifier=cifar10_resnet18"], []),
        ("play", ["defense=vqvae", "noise=0"], ["classifier.ckpt", "vqvae-noise0.ckpt"]),
        ("purify", ["defense=vqvae", "noise=0.5", "input=a", "output=b"], ["vqvae-noise0.5.ckpt"]),
        ("certify", ["noise=0.5"], ["classifier.ckpt", "vqvae-noise0.5.ckpt"]),
        ("certify", ["noise=0.5", "denoise=false"], ["classifier.ckpt"]),
        ("export", ["noise=0"], ["classifier.ckpt", "vqvae-noise0.ckpt"]),
        ("export", ["noise=0", "part=purifier"], ["vqvae-noise0.ckpt"]),
        ("export", ["noise=0", "part=classifier"], ["classifier.ckpt"]),
        ("train", ["model=vqvae", "noise=0.5"], []),  # what is to be trained is not what others have trained
        ("train", ["model=vqvae_smooth", "noise=0.5"], ["classifier.ckpt"]),  # which guides it
        ("prepare", [], []),
    ],
)
def test_what_a_command_needs_is_brought_and_no_more(
    command: str, overrides: list[str], needed: list[str], packed: Path, configure: Configure, tmp_path: Path
) -> None:
    configure(command, packed, *overrides)
    assert brought(tmp_path) == needed


def test_the_playground_offers_the_noises_that_are_there(packed: Path, configure: Configure) -> None:
    assert shared_noises(configure("play", packed)) == {0, 0.5}
    assert shared_noises(configure("play", packed, "seed=0", "data=fashion_mnist")) == set()
    assert shared_noises(configure("play", "null")) == set()


def test_a_checkpoint_that_is_there_stays_as_it_is(packed: Path, configure: Configure, tmp_path: Path) -> None:
    own = tmp_path / "outputs" / "checkpoints" / "mnist" / "classifier.ckpt"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    before = own.stat().st_mtime_ns
    configure("sweep", packed, "defense=vqvae", "noise=0.5")
    assert (own.read_bytes(), own.stat().st_mtime_ns) == (b"mine", before)
    assert brought(tmp_path) == ["classifier.ckpt", "vqvae-noise0.5.ckpt"]


@pytest.mark.parametrize("at", [0, 1000, -1])
def test_one_other_byte_is_refused(at: int, mine: Path, configure: Configure, tmp_path: Path) -> None:
    content = bytearray((mine / "mnist-classifier.ckpt").read_bytes())
    content[at] ^= 1
    (mine / "mnist-classifier.ckpt").write_bytes(content)
    said = refused(lambda: configure("sweep", mine, "defense=none"))
    assert "SHA-256" in said and "python -m src.train model=classifier" in said
    assert brought(tmp_path) == []


def test_another_network_under_the_name_is_refused(mine: Path, configure: Configure, tmp_path: Path) -> None:
    def other_content(networks: list[SharedNetwork]) -> list[SharedNetwork]:
        """The index says noise 0.5, and points to the file of noise 0, with its hash."""
        told, held = (_named(networks, name) for name in ("vqvae-noise0.5", "vqvae-noise0"))
        return [replace(told, file=held.file, sha256=held.sha256)]

    def other_name(networks: list[SharedNetwork]) -> list[SharedNetwork]:
        """The index is right about the network of noise 0, and gives it the name of the other."""
        return [replace(_named(networks, "vqvae-noise0"), name="vqvae-noise0.5")]

    index = (mine / "index.json").read_text()
    for change, reason in ((other_content, "another network"), (other_name, "noise 0, not 0.5")):
        (mine / "index.json").write_text(index)
        rewrite(mine, change)
        said = refused(lambda: configure("purify", mine, "noise=0.5", "input=a", "output=b"))
        assert reason in said and "python -m src.train model=vqvae noise=0.5" in said
        assert brought(tmp_path) == []


def _named(networks: list[SharedNetwork], name: str) -> SharedNetwork:
    return next(network for network in networks if network.name == name)


def test_what_is_not_in_the_folder_has_to_be_trained(packed: Path, run_command: Command, tmp_path: Path) -> None:
    asked = ("defense=vqvae", "noise=0.25", "logger=none", f"paths.weights={packed}")
    done = run_command("src.sweep", *asked, outputs=tmp_path / "outputs", check=False)
    (said,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "python -m src.train model=vqvae noise=0.25" in said
    assert said.count("has no mnist/vqvae-noise0.25") == 1
    assert "vqvae-noise0.25.ckpt" not in brought(tmp_path)


def _nobody() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("source", ["nobody", "nowhere", "ftp://somewhere/weights", "http://", "not served"])
def test_a_place_without_networks_is_named(source: str, served: str, configure: Configure, tmp_path: Path) -> None:
    places = {"nobody": _nobody(), "nowhere": str(tmp_path / "nowhere"), "not served": f"{served}deeper"}
    asked = places.get(source, source)
    said = refused(lambda: configure("sweep", asked, "defense=none"))
    assert asked in said and "index.json" in said
    assert brought(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"layout": LAYOUT + 1, "networks": "other"}), f"layout {LAYOUT + 1}"),
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps({"layout": LAYOUT, "networks": [{"data": "mnist"}]}), "damaged"),
    ],
)
def test_an_index_of_another_kind_is_refused(
    content: str, said: str, mine: Path, configure: Configure, tmp_path: Path
) -> None:
    (mine / "index.json").write_text(content)
    assert said in refused(lambda: configure("sweep", mine, "defense=none"))
    assert brought(tmp_path) == []


@pytest.mark.parametrize("file", ["../mnist-classifier.ckpt", "/etc/passwd", ".hidden", ""])
def test_a_file_is_never_looked_for_elsewhere(file: str, mine: Path, configure: Configure) -> None:
    rewrite(mine, lambda networks: [replace(networks[0], file=file)])
    assert "damaged" in refused(lambda: configure("sweep", mine, "defense=none"))


def test_a_network_of_another_version_is_named_as_such(mine: Path, configure: Configure, tmp_path: Path) -> None:
    rewrite(mine, lambda networks: [replace(networks[0], schema=99)])
    said = refused(lambda: configure("sweep", mine, "defense=none"))
    assert "a newer version (schema 99" in said and "python -m src.train" in said
    assert brought(tmp_path) == []


NETWORK = {"_target_": "src.defenses.VQVAEPurifier.from_checkpoint", "checkpoint": "w", "clip": True}
CHAIN = "src.defenses.Chain"


@pytest.mark.parametrize(
    ("name", "defense", "judged"),
    [
        ("vqvae", NETWORK, "w"),
        ("vqvae", NETWORK | {"inference_noise": 0.25}, None),
        ("vqvae", NETWORK | {"clip": False}, None),
        ("mine", {"_target_": CHAIN, "_args_": [{"_target_": "src.defenses.MedianFilter"}, NETWORK]}, None),
        ("vqvae_robust", {"_target_": CHAIN, "_args_": [ROBUST_FIRST, NETWORK]}, "w"),
        ("vqvae_robust", {"_target_": CHAIN, "_args_": [ROBUST_FIRST | {"threshold": 0.4}, NETWORK]}, None),
    ],
)
def test_a_network_is_judged_by_a_cell_of_itself_alone(
    name: str, defense: dict[str, object], judged: str | None
) -> None:
    where = make.coordinates(eps=0.0, defense=name)
    cell = make.cell(where, data={"name": "mnist"}, protocol={"clean_errors_count": False}, defense=defense)
    assert _judged(cell) == judged


def test_the_card_knows_the_chain_of_vqvae_robust() -> None:
    published = OmegaConf.load(Path(CONFIG_PATH) / "defense" / "vqvae_robust.yaml")
    assert published.first == ROBUST_FIRST
