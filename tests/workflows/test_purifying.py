"""A folder of images through a purifier, by the real command."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from torch import nn

from src.defenses import Binarize, VQVAEPurifier
from src.errors import UserError
from src.models import VQVAE
from src.models.checkpoint import load_module
from src.workflows.arguments import named, quoted
from src.workflows.purifying import planned, purify_files
from tests.conftest import REPO


@pytest.fixture
def folder(real_digits, tmp_path):
    """Three real digits in a folder and a folder in it, and a file that is no image."""
    for name, image in zip(("a.png", "deep/b.PNG", "deep/c.bmp"), real_digits[0], strict=False):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("mine")
    return tmp_path / "in"


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def purify(run_command, trained, folder, tmp_path):
    """``purify("defense=binarize")``: the command on the folder, into ``out``."""

    def call(*arguments, check=True):
        named_folders = (f"input={folder}", f"output={tmp_path / 'out'}")
        return run_command("src.purify", *named_folders, *arguments, outputs=trained, check=check)

    return call


def test_every_image_is_purified_and_the_input_stays(purify, folder, real_digits, tmp_path):
    before = files(folder)
    said = purify("defense=binarize").stdout
    assert "3 images through binarize" in said
    assert said.splitlines()[-1].endswith("; files of other endings left out: 1")
    assert files(folder) == before
    assert sorted(files(tmp_path / "out")) == ["a.png", "deep/b.png", "deep/c.png"]
    for name, image in zip(("a.png", "deep/b.png", "deep/c.png"), real_digits[0], strict=False):
        assert np.array_equal(pixels(tmp_path / "out" / name), (Binarize()(image[None])[0, 0] * 255).byte().numpy())


def test_a_trained_purifier_writes_what_it_returns(purify, trained, real_digits, tmp_path):
    purify("defense=vqvae", "noise=0.5")
    vqvae = load_module(VQVAE, trained / "checkpoints" / "mnist" / "vqvae-noise0.5.ckpt", "")[0]
    expected = (VQVAEPurifier(vqvae)(real_digits[0][:1])[0, 0] * 255).round()
    assert np.abs(pixels(tmp_path / "out" / "a.png").astype(int) - expected.numpy()).max() <= 1


def test_what_cannot_be_purified_is_named_and_the_rest_is_done(purify, folder, tmp_path):
    (folder / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (28, 28)).save(folder / "colour.png")
    Image.new("L", (27, 28)).save(folder / "odd.png")
    done = purify("defense=vqvae", "noise=0.5", check=False)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    for name, reason in (("broken", "cannot identify"), ("colour", "grey images"), ("odd", "divisible by 4")):
        assert any(f"{name}.png: " in line and reason in line for line in lines), name
    assert "3 of 6 images were not purified; files of other endings left out: 1" in done.stderr.splitlines()[-1]
    assert sorted(files(tmp_path / "out")) == ["a.png", "deep/b.png", "deep/c.png"]


class Stretched(nn.Module):
    """The contrast of an image stretched to [0, 1]; a flat one has none."""

    def forward(self, x):
        return (x - x.min()) / (x.max() - x.min())


def test_values_that_are_not_finite_become_no_image(folder, tmp_path):
    Image.new("L", (28, 28), 128).save(folder / "flat.png")
    failed = purify_files(Stretched(), {folder / name: tmp_path / "out" / name for name in ("a.png", "flat.png")})
    assert failed == {folder / "flat.png": "the purifier made values of it that are not finite"}
    assert sorted(files(tmp_path / "out")) == ["a.png"]


def test_coloured_images_of_any_size_go_through_what_learns_nothing(purify, folder, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)).save(folder / "colour.png")
    purify("defense=median")
    assert pixels(tmp_path / "out" / "colour.png").shape == (21, 30, 3)


@pytest.mark.parametrize("where", ["in", "in/deep", ".", "link"])
def test_nothing_is_written_over_the_input(purify, folder, tmp_path, where):
    (tmp_path / "link").symlink_to(folder)
    before = files(folder)
    done = purify("defense=binarize", f"output={tmp_path / where}", check=False)
    assert done.returncode == 1 and "within one another" in done.stderr
    assert files(folder) == before


def test_nor_over_anything_else_unless_asked(purify, folder, tmp_path):
    purify("defense=binarize")
    before = files(tmp_path / "out")
    again = purify("defense=median", check=False)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert files(tmp_path / "out") == before
    purify("defense=median", "overwrite=true")
    assert files(tmp_path / "out") != before
    Image.new("L", (28, 28)).save(folder / "a.bmp")
    both = purify("defense=median", "overwrite=true", check=False)
    assert both.returncode == 1 and "would both become" in both.stderr


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("to", ["in/deep", "in/deep/new", "elsewhere", "elsewhere/new"])
def test_no_folder_of_the_output_may_lead_into_the_input(folder, tmp_path, to, overwrite):
    """in/linked is read from, too, wherever it is."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(tmp_path / to)
    with pytest.raises(UserError, match=r"out/deep/b.png is .*: nothing is written over the input") as error:
        planned(folder, tmp_path / "out", overwrite)
    assert "\n" not in str(error.value)


def test_nor_may_a_file_of_it_be_one_that_the_input_links_to(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (folder / "a.png").rename(tmp_path / "out" / "a.png")
    (folder / "a.png").symlink_to(tmp_path / "out" / "a.png")
    with pytest.raises(UserError, match=r"out/a.png is .*, which belongs to input"):
        planned(folder, tmp_path / "out", overwrite=True)


def test_the_command_writes_nothing_where_the_output_leads_into_the_input(purify, folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").symlink_to(folder / "deep")
    before = files(folder)
    done = purify("defense=binarize", "overwrite=true", check=False)
    assert done.returncode == 1 and "nothing is written over the input" in done.stderr
    assert files(folder) == before and list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "deep"]


def test_links_to_folders_are_followed_and_never_in_circles(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "twin").symlink_to(folder / "deep")
    (folder / "deep" / "circle").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    plan = planned(folder, tmp_path / "out", overwrite=False)
    names = ["a.png", "deep/b.PNG", "deep/c.bmp", "linked/d.png", "twin/b.PNG", "twin/c.bmp"]
    assert [str(path.relative_to(folder)) for path in plan.files] == names


def test_hidden_images_are_passed_over_and_others_counted(folder, tmp_path):
    for name in (".a.png", ".hidden/b.png", "deep/._c.png", "deep/d.tif", "e.GIF", ".notes"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    plan = planned(folder, tmp_path / "out", overwrite=False)
    assert [str(path.relative_to(folder)) for path in plan.files] == ["a.png", "deep/b.PNG", "deep/c.bmp"]
    assert plan.others == 3  # notes.txt as well


def test_a_link_to_nothing_is_an_image_that_cannot_be_purified(folder, tmp_path):
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    failed = purify_files(Binarize(), planned(folder, tmp_path / "out", overwrite=False).files)
    assert list(failed) == [folder / "gone.png"] and "No such file" in failed[folder / "gone.png"]


@pytest.mark.slow
def test_folders_without_a_name_are_input_and_output(command_server, folder, tmp_path):
    odd = tmp_path / "it's, {odd}=1"
    folder.rename(odd)
    arguments = [str(odd), str(tmp_path / "out"), "defense=binarize", f"paths.outputs={tmp_path}/outputs"]
    subprocess.run([sys.executable, "-m", "src.purify", *arguments], cwd=REPO, check=True)
    assert len(files(tmp_path / "out")) == 3
    done = command_server.run("src.purify", str(odd))
    assert done.returncode == 1 and "say which folder is the output" in done.stderr


def test_options_and_overrides_stay_as_they_are():
    arguments = ["in/", "--help", "noise=0.5", "out", "+a.b=1", "more"]
    assert named(arguments, ("input", "output")) == [
        *("input='in/'", "--help", "noise=0.5", "output='out'", "+a.b=1", "more"),
    ]
    options = ["--config-dir", "conf", "in", "out"]
    assert named(options, ("input", "output")) == ["--config-dir", "conf", "input='in'", "output='out'"]
    assert quoted("a'b") == r"'a\'b'"
    assert quoted("a\\") == r"'a\\'"
