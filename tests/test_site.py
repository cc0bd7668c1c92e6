"""The documentation as a site, as ``make docs`` built it before (.ci/run does), in a real browser."""

import pytest

from tests.conftest import REPO

SITE = REPO / "outputs" / "site"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="there is no site: make docs"),
]


@pytest.mark.parametrize(("colors", "rules"), [("light", {}), ("dark", {"runOnly": ["color-contrast"]})])
def test_axe_finds_nothing_that_keeps_people_out(browser, colors, rules):
    """axe-core's rules, of WCAG and of good practice (https://github.com/dequelabs/axe-core); in the dark, of color."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, violations = browser.new_page(color_scheme=colors), {}
    for path in sorted(set(SITE.rglob("*.html")) - {SITE / "404.html"}):  # which finds its styles on a server only
        page.goto(path.as_uri())
        for rule in axe.run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]:
            violations[path.name, rule["id"]] = [node["target"] for node in rule["nodes"]]
    page.close()
    assert violations == {}
