"""Reasons not to believe the grid, in words."""

import json
from dataclasses import asdict

from src.evaluation.sanity_checks import CHECKS, CheckReport
from src.reporting.analysis.labels import listed

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
    made = f"{len(CHECKS) - len(report.idle)} of " if report.idle else ""
    cells = f"{report.judged} cell{'' if report.judged == 1 else 's'}"
    runs = f"{report.probed} extra runs of attacks" if report.asked else "no extra run of an attack"
    missing = f" ({report.asked - report.probed} more are missing)" if report.probed < report.asked else ""
    idle = f". The grid has no cells for {listed(list(report.idle))}" if report.idle else ""
    return f"{outcome} by {made}{len(CHECKS)} checks of {cells}, with {runs}{missing}{idle}."


def findings_to_json(report: CheckReport) -> str:
    """``findings.json``: a list of objects with "name", "where" (the cell's coordinates) and "message"."""
    return json.dumps([asdict(finding) for finding in report.findings], indent=1, ensure_ascii=False) + "\n"
