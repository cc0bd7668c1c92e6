"""Reasons not to believe the grid, in words."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from src.evaluation.suspicion import Finding

TITLE = "Reasons for suspicion"
EXPLAINED = (
    "Signs that an attack may have failed for another reason than the defense's strength, so that the defense is "
    "weaker than it looks. docs/checks.md says what each means and what to do."
)


def suspicion_sentences(findings: Sequence[Finding]) -> list[str]:
    """A sentence a finding: ``zero-gradient (pgd eps 0.3 · vqvae 0.5 · adaptive): the loss gradient is …``."""
    return [f"{each.name} ({each.where}): {each.message}." for each in findings]


def suspicions_to_json(findings: Sequence[Finding]) -> str:
    """``findings.json``: a list of objects with "name", "where" (the cell's coordinates) and "message"."""
    return json.dumps([asdict(each) for each in findings], indent=1, ensure_ascii=False) + "\n"
