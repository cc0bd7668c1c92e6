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


def check_sentences(report: CheckReport) -> list[str]:
    """What was checked, and a sentence a finding: ``zero-gradient (pgd eps 0.3 · vqvae 0.5 · adaptive): the loss
    gradient is …``. Empty for a grid in which there is nothing to check."""
    if not report.judged and not report.findings:
        return []
    return [_checked(report), *(f"{finding.name} ({finding.where}): {finding.message}." for finding in report.findings)]


def _checked(report: CheckReport) -> str:
    """How much was checked. A grid without findings must not look like one without checks."""
    outcome = f"{len(report.findings)} found" if report.findings else "None found"
    runs = f"{report.probed} extra runs of attacks" if report.asked else "no extra run of an attack"
    without = "" if report.asked else ", without which two of them cannot be made"
    missing = f" ({report.asked - report.probed} more are missing)" if report.probed < report.asked else ""
    return f"{outcome} by {len(CHECKS)} checks of {report.judged} cells, with {runs}{missing}{without}."


def findings_to_json(report: CheckReport) -> str:
    """``findings.json``: a list of objects with "name", "where" (the cell's coordinates) and "message"."""
    return json.dumps([asdict(finding) for finding in report.findings], indent=1, ensure_ascii=False) + "\n"
