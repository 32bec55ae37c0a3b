"""From the records of a study to what it shows: arms summarised and contrasts decided in numbers, then put in words."""

from leadline.stats import Decision
from leadline.verdict.analysis import analyze
from leadline.verdict.evidence import reads_probabilities
from leadline.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.verdict.headline import headline
from leadline.verdict.notes import notes
from leadline.verdict.output import decided_line, round_line, to_json, to_text
from leadline.verdict.sentences import contrast_sentence, effect_sentence, meta_sentence
from leadline.verdict.tables import arms_table, contrasts_table

__all__ = [
    "ArmFinding",
    "ContrastFinding",
    "Decision",
    "Findings",
    "analyze",
    "arms_table",
    "contrast_sentence",
    "contrasts_table",
    "decided_line",
    "effect_sentence",
    "headline",
    "meta_sentence",
    "notes",
    "reads_probabilities",
    "round_line",
    "to_json",
    "to_text",
]
