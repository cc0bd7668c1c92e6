"""What stands in several files of the repository says the same in each."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from src import __version__
from tests.conftest import REPO


def read(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


def test_commits_are_checked_by_the_ruff_that_lints() -> None:
    (hooks,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert f"ruff=={hooks['rev'].removeprefix('v')}" in read("constraints.txt").splitlines()


def test_the_version_to_cite_is_that_of_the_package() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == __version__
    assert cited["license"] == tomllib.loads(read("pyproject.toml"))["project"]["license"]


def test_continuous_integration_takes_the_steps_of_the_clean_machine() -> None:
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    taken = {step["run"] for step in job["steps"] if "run" in step}
    assert set(re.findall(r"\bmake [\w-]+", read(".ci/run"))) <= taken
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_front_page_leads_to(page: str) -> None:
    assert f"]({page})" in read("README.md")


def test_what_contributors_are_pointed_to_exists() -> None:
    said = read("CONTRIBUTING.md")
    assert len(said.splitlines()) <= 80
    named = re.findall(r"`((?:src|conf|tests|\.ci)/[\w./-]+)`|\]\(([\w./-]+)\)", said)
    paths = [path for pair in named for path in pair if path and "NAME" not in path]
    assert len(paths) > 10
    assert [path for path in paths if not (REPO / path).exists()] == []


PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]


def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert not anchor or anchor in _anchors(place), target


def test_the_front_page_is_short_enough_to_be_read() -> None:
    assert len(read("README.md").splitlines()) <= 150
