"""From the records of a study to what it shows: arms summarised, contrasts decided, in numbers and in words."""

from leadline.stats import Decision
from leadline.verdict.evidence import find
from leadline.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.verdict.output import decided_line, round_line, to_json, to_text

__all__ = [
    "ArmFinding",
    "ContrastFinding",
    "Decision",
    "Findings",
    "decided_line",
    "find",
    "round_line",
    "to_json",
    "to_text",
]
