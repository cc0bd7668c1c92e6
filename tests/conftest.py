"""What tests of several rooms share; the fixtures are in tests/fixtures.py."""

import os
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

#: Files that take longest, longest first but for the three after the first: they need no trained network while it
#: trains them.
#: Test processes take files in this order (--no-loadscope-reorder), so that none is left with a long one.
LONGEST = (
    *("test_training", "test_page", "test_documentation", "test_settings", "test_sweep", "test_bad_input"),
    *("test_reliability", "test_launchers", "test_certify", "test_distributed"),
    *("test_play", "test_wandb_session", "test_loggers"),
    *("test_variants", "test_other_images", "test_robust", "test_certified_commands", "test_learned_baselines"),
    *("test_adaptive", "test_playground", "test_cli_help", "test_ecosystem"),
    *("test_torchattacks_adapter", "test_own_classifier", "test_own_defense", "test_exporting", "test_purifying"),
    *("test_verdict_commands",),
)

os.environ.setdefault("WANDB_MODE", "offline")  # no test may depend on somebody's key


def python_blocks(page: str) -> list[str]:
    """The blocks of Python of a page in Markdown."""
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_configure(config: pytest.Config) -> None:
    """Fixtures come with PyTorch. The process that only hands out tests to others needs neither, and so begins at once:
    there is nothing for the others to do before."""
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("tests.fixtures")
