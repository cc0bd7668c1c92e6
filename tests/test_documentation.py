"""The documentation's site: built without a network, complete, and nothing of it fetched from elsewhere."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPO, python_blocks
from tests.test_packaging import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

NOWHERE = "http://127.0.0.1:9"
ROOMS = ["attacks", "data", "defenses", "evaluation", "models"]


def build(into: Path) -> subprocess.CompletedProcess[str]:
    """The command of `make docs`, on a machine whose every way out is closed."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(into)]
    closed = {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "all_proxy": NOWHERE, "no_proxy": ""}
    return subprocess.run(command, cwd=REPO, env=os.environ | closed, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


class Elements(HTMLParser):
    """The elements of a page, its words, and its identifiers."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.elements if "id" in attributes}

    @property
    def fetched(self) -> list[str]:
        """Addresses that a browser fetches by itself."""
        return [
            attributes[name]
            for tag, attributes in self.elements
            for name in ("src", "srcset", "href", "data", "poster")
            if name in attributes and tag != "a"
        ]


@pytest.mark.slow
def test_each_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    sources = [page.relative_to(REPO / "docs") for page in PAGES[1:]]
    assert len(sources) > 20
    assert [page for page in sources if not (site / page.with_suffix(".html")).exists()] == []


@pytest.mark.slow
def test_each_page_is_reached_from_the_first(site: Path) -> None:
    links = {attributes.get("href", "") for tag, attributes in Elements(site / "index.html").elements if tag == "a"}
    unreached = [page for page in PAGES[1:] if f"{page.relative_to(REPO / 'docs').with_suffix('.html')}" not in links]
    assert unreached in ([], [REPO / "docs" / "index.md"])


@pytest.mark.slow
def test_no_page_names_a_file_of_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    fetched = {address for page in pages for address in Elements(page).fetched}
    assert any(address.endswith(".css") for address in fetched)
    assert any(address.endswith(".svg") for address in fetched)
    assert [address for address in fetched if re.match(r"(\w+:)?//", address)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_pictures_of_pages_are_there_and_whole_by_themselves(site: Path) -> None:
    pictures = sorted(site.glob("concepts/*.svg"))
    drawn = sorted((REPO / "docs").glob("concepts/*.svg"))
    assert [picture.name for picture in pictures] == [picture.name for picture in drawn] != []
    for picture in pictures:
        drawing = picture.read_text(encoding="utf-8")
        assert "<title>" in drawing
        assert "href" not in drawing and "@import" not in drawing


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def windows(browser: "Browser") -> "Iterator[BrowserContext]":
    """Where the pages are opened: a browser that has what they share from the first."""
    with browser.new_context() as context:
        yield context


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index", "start", "concepts", "architecture", "results", "api/attacks", "api/models"])
def test_a_browser_asks_nobody_else_and_need_not_scroll_sideways(
    served: str, windows: "BrowserContext", page: str
) -> None:
    asked: list[str] = []
    with windows.new_page() as window:
        window.set_viewport_size({"width": 1280, "height": 800})
        window.on("request", lambda request: asked.append(request.url))
        window.goto(f"{served}/{page}.html", wait_until="networkidle")
        assert window.evaluate("document.documentElement.scrollWidth") <= 1280
        window.set_viewport_size({"width": 360, "height": 800})
        window.wait_for_function("innerWidth === 360")
        window.wait_for_function("document.documentElement.scrollWidth <= 360", timeout=5000)  # once it has moved
    assert len(asked) > 2
    assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_the_api_has_each_public_name(site: Path, room: str) -> None:
    ids = Elements(site / "api" / f"{room}.html").ids
    names = importlib.import_module(f"src.{room}").__all__
    assert [name for name in names if f"src.{room}.{name}" not in ids] == []


@pytest.mark.slow
def test_the_api_has_signatures_and_what_arguments_mean(site: Path) -> None:
    text = Elements(site / "api" / "attacks.html").text
    signature = text[text.index("ifgsm( model") :].partition("-> Tensor")[0]
    for argument in ("x: Tensor", "eps: float", "steps: int = 10"):
        assert argument in signature
    assert "L∞ budget in pixel units" in text
    assert "attacked images" in Elements(site / "api" / "defended.html").text


@pytest.mark.slow
def test_docstrings_are_read_as_text_not_as_markup(site: Path) -> None:
    pages = {page: Elements(page) for page in (site / "api").glob("*.html")}
    assert len(pages) == 7
    for page, read in pages.items():
        assert not re.search(r":(func|class|meth|mod|data|attr):|``", read.text), page
    attacks = pages[site / "api" / "attacks.html"]
    assert "src.log_odds.log_odds_gradient" in attacks.text
    assert ("a", {"href": "https://arxiv.org/abs/1412.6572"}) in attacks.elements


@pytest.mark.slow
def test_the_changelog_is_the_one_at_the_top(site: Path) -> None:
    page = Elements(site / "changelog.html")
    assert "Numbers that were wrong without a sign" in page.text
    assert "verdicts.html" in [attributes.get("href") for _, attributes in page.elements]


SMALL = """
site_name: small
docs_dir: {docs}
strict: true
validation: {validation}
hooks: [{hooks}]
"""


@pytest.fixture
def ends_well(tmp_path: Path) -> Callable[[str], bool]:
    """``ends_well("[here](#page)")``: whether a site of one page builds that says so, by the rules of our own."""
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    rules = re.search(r"^validation:\n(.*?)^\S", (REPO / "mkdocs.yml").read_text(), re.MULTILINE | re.DOTALL)
    assert rules
    validation = "{" + ", ".join(line.strip() for line in rules[1].splitlines() if line.strip()) + "}"
    (tmp_path / "docs").mkdir()
    config = tmp_path / "mkdocs.yml"
    config.write_text(SMALL.format(docs=tmp_path / "docs", validation=validation, hooks=REPO / "docs" / "hooks.py"))

    def call(said: str) -> bool:
        (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{said}\n")
        try:
            build_site(load_config(str(config), site_dir=str(tmp_path / "site")))
        except Abort:
            return False
        return True

    return call


def test_a_link_that_leads_somewhere_does_not_end_the_build(ends_well: Callable[[str], bool]) -> None:
    assert ends_well("[here](#page)")


@pytest.mark.parametrize(
    "link", ["nowhere.md", "../src/nowhere.py", "nowhere.png", "nowhere/", "index.md#nowhere", "#nowhere"]
)
def test_a_link_that_leads_nowhere_ends_the_build(ends_well: Callable[[str], bool], link: str) -> None:
    assert not ends_well(f"[here]({link})")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[data](../conf/data/mnist.yaml)", "data (`conf/data/mnist.yaml`)"),
        ("[conf/data](../conf/data)", "`conf/data`"),
        ("[the cells](robust.csv)", "[the cells](robust.csv)"),
        ("[certified](certified)", "certified (`docs/certified`)"),
        ("[Use](use.md#commands)", "[Use](use.md#commands)"),
        ("`[data](../conf)`", "`[data](../conf)`"),
        ("```\n[data](../conf)\n```", "```\n[data](../conf)\n```"),
        ("[lost](../nowhere)", "[lost](../nowhere)"),
        ("![page](page-360.png)", "![page](page-360.png)"),
    ],
)
def test_a_link_out_of_the_site_is_shown_as_its_path(monkeypatch: pytest.MonkeyPatch, written: str, shown: str) -> None:
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(str(REPO / "docs"))
    hooks = importlib.import_module("hooks")
    assert hooks.linked_within(written, REPO / "docs", REPO / "docs") == shown


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(REPO)}-{number}")
    for page in [REPO / "CONTRIBUTING.md", *PAGES]
    for number, block in enumerate(python_blocks(page.read_text()))
]


@pytest.mark.parametrize("group", ["attack", "defense"])
def test_each_attack_and_defense_is_in_a_table(group: str) -> None:
    rows = re.findall(r"^\| (`.*?) \|", (REPO / "docs" / "use.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {path.stem for path in (REPO / "conf" / group).glob("*.yaml")} <= named


def test_there_is_python_on_the_pages() -> None:
    assert len(BLOCKS) >= 7


@pytest.mark.parametrize("block", BLOCKS)
def test_python_on_the_pages_is_python(block: str) -> None:
    compile(dedent(block), "page", "exec")


def test_the_clean_machine_builds_the_site() -> None:
    assert "make docs" in (REPO / ".ci" / "run").read_text().splitlines()
    commands = subprocess.run(["make", "-n", "docs"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert "mkdocs build --strict" in commands
