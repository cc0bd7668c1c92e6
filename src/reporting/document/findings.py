"""Reasons not to believe the grid, in words."""

import json
from dataclasses import asdict

from src.evaluation.sanity_checks import CHECKS, CheckReport

NOTHING_CHECKED = CheckReport()
TITLE = "Reasons for suspicion"
EXPLAINED = (
    "Signs that an attack may have failed for another reason than the defense's strength, so that the defense is "
    "weaker than it looks. docs/checks.md says what each means and what to do."
)


def check_sentences(found: CheckReport) -> list[str]:
    """What was checked, and a sentence a finding: ``zero-gradient (pgd eps 0.3 · vqvae 0.5 · adaptive): the loss
    gradient is …``. Nothing at all of a grid in which there is nothing to check."""
    if not found.judged and not found.findings:
        return []
    return [_checked(found), *(f"{each.name} ({each.where}): {each.message}." for each in found.findings)]


def _checked(found: CheckReport) -> str:
    """How much was checked. A grid without findings must not look like one without checks."""
    outcome = f"{len(found.findings)} found" if found.findings else "None found"
    runs = f"{found.probed} extra runs of attacks" if found.asked else "no extra run of an attack"
    without = "" if found.asked else ", without which two of them cannot be made"
    missing = f" ({found.asked - found.probed} more are missing)" if found.probed < found.asked else ""
    return f"{outcome} by {len(CHECKS)} checks of {found.judged} cells, with {runs}{missing}{without}."


def findings_to_json(found: CheckReport) -> str:
    """``findings.json``: a list of objects with "name", "where" (the cell's coordinates) and "message"."""
    return json.dumps([asdict(each) for each in found.findings], indent=1, ensure_ascii=False) + "\n"
