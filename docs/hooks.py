"""What the site needs beyond MkDocs: tutorials as pages and notebooks, and links out of ``docs/`` and Sphinx's roles in
docstrings as code."""

import os
import re
from pathlib import Path
from typing import Any

import griffe
import jupytext
from mkdocs.structure.files import File, Files
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")
EMPTY_HEADER = re.compile(r"<th([^>]*)></th>")
PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")

#: What a notebook begins with. Jupyter's own arguments would be taken for the script's.
SETUP_WORDS = """\
Run this notebook in the folder of the project, with its packages installed (`make setup`). In Colab, first bring the
project there and install it:

```
!git clone ADDRESS-OF-THE-PROJECT project
%cd project
%pip install -e .
!python -m src.prepare data=mnist
```"""
SETUP_CODE = """\
import sys

sys.argv = sys.argv[:1]"""


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """The site's files, and a notebook for each tutorial."""
    for script in sorted((DOCS / "tutorials").glob("*.py")):
        notebook = jupytext.writes(as_notebook(script.read_text(encoding="utf-8")), "ipynb")
        files.append(File.generated(config, f"tutorials/{script.stem}.ipynb", content=notebook))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page, with links that lead out of the site as code. The page of the changelog is the file at the top, and a
    tutorial's is its script."""
    if page.file.src_uri == "changelog.md":
        return linked_within((REPO / "CHANGELOG.md").read_text(encoding="utf-8"), REPO, DOCS)
    source = DOCS / page.file.src_uri
    if source.parent.name == "tutorials":
        markdown = as_page(source.with_suffix(".py").read_text(encoding="utf-8"))
    return linked_within(markdown, source.parent, source.parent)


def on_page_content(html: str, **_: Any) -> str:
    """The page, with plain cells for the headers without a word that tables have above their row labels."""
    return EMPTY_HEADER.sub(r"<td\1></td>", html)


def as_page(script: str) -> str:
    """A script in percent cells as Markdown. What stands before the first cell is left out.

    Args:
        script: its text; a cell begins with the line ``# %% [markdown]`` or ``# %%``.
    """
    return "\n\n".join(map(_in_markdown, _cells(script))) + "\n"


def as_notebook(script: str) -> NotebookNode:
    """The same script as a notebook, after a cell on how to run it."""
    notebook = jupytext.reads(script, "py:percent")
    notebook.cells = [new_markdown_cell(SETUP_WORDS), new_code_cell(SETUP_CODE), *_cells(script)]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random ones would make each build another
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return notebook


def _cells(script: str) -> list[NotebookNode]:
    cells: list[NotebookNode] = jupytext.reads(script[script.index("# %%") :], "py:percent").cells
    return cells


def _in_markdown(cell: NotebookNode) -> str:
    source: str = cell.source
    return source if cell.cell_type == "markdown" else f"```python\n{source}\n```"


def linked_within(markdown: str, place: Path, page_place: Path) -> str:
    """``markdown`` with the path in place of each link to what the site does not have: a folder, a file outside of
    ``docs/``. A link that leads nowhere is left as it is; a strict build ends with it.

    Args:
        place: the folder that links are relative to.
        page_place: the folder of the page that they will stand on.
    """

    def mended(found: re.Match[str]) -> str:
        label, path, anchor = found[1], found[2], found[3] or ""
        target = Path(os.path.normpath(place / path))
        if ":" in path or not target.exists():
            return found[0]
        if target.is_file() and target.is_relative_to(DOCS):
            return f"[{label}]({os.path.relpath(target, page_place)}{anchor})"
        name = target.relative_to(REPO).as_posix()
        return f"`{name}`" if label.strip("`") == name else f"{label} (`{name}`)"

    parts = re.split(r"(^```.*?^```|`[^`\n]+`)", markdown, flags=re.MULTILINE | re.DOTALL)  # odd parts are code
    return "".join(part if i % 2 else LINK.sub(mended, part) for i, part in enumerate(parts))


class Roles(griffe.Extension):
    """``:func:`f``` in docstrings becomes the code ``f``, the number of a paper a link to it, and a module's
    arguments, which its functions share, a list."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = ROLE.sub(r"`\1`", obj.docstring.value).replace("\nShared arguments:\n", "\nArgs:\n")
            obj.docstring.value = PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
