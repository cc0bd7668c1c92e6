"""The Python of README and docs/use.md runs, block after block, on networks that its comments ask for."""

import PIL.Image
import pytest

from tests.conftest import REPO, python_blocks

pytestmark = pytest.mark.slow

#: The pages' own values, and quicker ones.
QUICKER = {'"test", 100': '"test", 10', '"attack.members.pgd.steps=50"': '"attack.members.square.n_queries=20"'}
SHORT = ("logger=none", "trainer.max_epochs=1", "trainer.limit_train_batches=20")


@pytest.fixture(scope="module")
def folder(command_server, mnist, tmp_path_factory):
    """A working folder with what the pages' commands leave there."""
    folder = tmp_path_factory.mktemp("pages")
    outputs = folder / "outputs"
    (outputs / "data").mkdir(parents=True)
    (outputs / "data" / "mnist").symlink_to(mnist.root.absolute())
    paths = (f"paths.outputs={outputs}", f"data.root={outputs / 'data' / 'mnist'}")
    for command, *arguments in (
        ("src.train", "model=classifier", *SHORT),
        ("src.train", "model=vqvae", "noise=0.25", *SHORT),
        ("src.export", "defense=vqvae", "noise=0.25"),
    ):
        done = command_server.run(command, *arguments, *paths)
        assert done.returncode == 0, done.stderr
    PIL.Image.fromarray((mnist.held_out("test", 1)[0][0, 0] * 255).byte().numpy()).save(folder / "digit.png")
    return folder


@pytest.mark.parametrize("page", ["README.md", "docs/use.md"])
def test_the_python_of_a_page_runs(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    for block in python_blocks((REPO / page).read_text()):
        for written, quicker in QUICKER.items():
            block = block.replace(written, quicker)
        exec(compile(block, page, "exec"), names)
    moved = (names["x_adv"] - names["x"]).abs().max()
    if page == "README.md":
        assert moved == pytest.approx(0.3, abs=1e-6)
    else:  # a suite leaves images alone that are wrong already, as many are after so short a training
        assert moved <= 0.3 + 1e-6 and 0 <= names["robust_accuracy"] <= 1 and names["logits"].shape == (1, 10)
