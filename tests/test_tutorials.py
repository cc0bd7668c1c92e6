"""The tutorials run as they are, on a slice of real digits, and show what their words say."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from tests.conftest import REPO, python_blocks

pytestmark = pytest.mark.slow

TUTORIALS = REPO / "docs" / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.py"))


def numbers(name: str, root: Path) -> dict[str, float]:
    """What a tutorial prints: accuracies in percent, by what stands before them."""
    command = [sys.executable, str(TUTORIALS / f"{name}.py"), str(root)]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^(.+?) +([\d.]+)%  \[([\d.]+)%, ([\d.]+)%\]$", done.stdout, re.MULTILINE)
    assert all(float(low) <= float(share) <= float(high) for _, share, low, high in told)
    return {" ".join(what.split()): float(share) for what, share, _, _ in told}


def test_each_tutorial_has_a_page() -> None:
    assert NAMES == ["honest_number", "own_purifier"]
    for name in NAMES:
        assert (TUTORIALS / f"{name}.md").is_file()
        assert f"tutorials/{name}.md" in (REPO / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_honest_number_is_less_than_the_reports(slice_root: Path) -> None:
    told = numbers("honest_number", slice_root)
    adaptive = {what: share for what, share in told.items() if what.startswith("adaptive")}
    worst = adaptive.pop("adaptive, worst of all, VQ-VAE")
    assert told["clean, VQ-VAE"] > 60
    assert told["gray-box FGSM, no purifier"] + 10 < told["gray-box FGSM, VQ-VAE"] < told["clean, VQ-VAE"]
    assert worst <= min(adaptive.values()) and worst + 5 < told["gray-box FGSM, VQ-VAE"]
    blind, seeing = (told[f"rounding + VQ-VAE, PGD with {what}"] for what in ("a zero gradient", "BPDA"))
    assert seeing + 20 < blind


def test_the_own_purifier_is_measured_under_both_attackers(slice_root: Path) -> None:
    told = numbers("own_purifier", slice_root)
    clean, gray, adaptive = (told[f"BlurAndThreshold {what}"] for what in ("clean", "gray-box", "adaptive"))
    assert clean > gray > adaptive > told["Identity adaptive"]


@pytest.fixture
def hooks() -> ModuleType:
    """What the site adds to MkDocs."""
    spec = importlib.util.spec_from_file_location("hooks", REPO / "docs" / "hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_the_script_in_its_order(hooks: ModuleType, name: str) -> None:
    page = hooks.as_page((TUTORIALS / f"{name}.py").read_text(encoding="utf-8"))
    title = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8").splitlines()[0]
    assert page.startswith(f"{title}\n")
    assert "# %%" not in page
    code = python_blocks(page)
    compile("\n".join(code), name, "exec")
    assert len(code) > 3 and "import torch" in code[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_the_script_after_its_setup(
    hooks: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (TUTORIALS / f"{name}.py").read_text(encoding="utf-8")
    notebook = hooks.as_notebook(script)
    nbformat.validate(notebook)
    assert notebook == hooks.as_notebook(script)
    setup, *code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    statements = [ast.dump(statement) for statement in ast.parse("\n".join(code)).body]
    assert statements == [ast.dump(statement) for statement in ast.parse(script).body[1:]]
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    exec(setup, {})
    assert len(sys.argv) == 1, "the script's argument is a folder of MNIST"
