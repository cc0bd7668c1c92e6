"""The documentation as a site, as ``make docs`` built it before (.ci/run does), in a real browser."""

import pytest

from tests.conftest import REPO

SITE = REPO / "outputs" / "site"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="there is no site: make docs"),
]


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=str)
def test_axe_finds_nothing_that_keeps_people_out(browser, settings):
    """axe-core's rules, of WCAG and of good practice (https://github.com/dequelabs/axe-core)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, violations = browser.new_page(**settings), {}
    for path in sorted(set(SITE.rglob("*.html")) - {SITE / "404.html"}):  # which finds its styles on a server only
        page.goto(path.as_uri())
        for rule in axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
            violations[path.name, rule["id"]] = [node["target"] for node in rule["nodes"]]
    page.close()
    assert violations == {}
