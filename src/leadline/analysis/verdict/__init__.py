"""From the records of a study to what it shows: arms summarised and contrasts decided in numbers, then put in words."""

from leadline.analysis.stats import Decision
from leadline.analysis.verdict.analysis import analyze
from leadline.analysis.verdict.design import (
    Contrast,
    Design,
    DesignArm,
    computes_from_probabilities,
    design_of,
    reads_probabilities,
    reads_records,
)
from leadline.analysis.verdict.evidence import RECORD_COLUMNS, TRIAL_COLUMNS
from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.analysis.verdict.wording.headline import headline
from leadline.analysis.verdict.wording.notes import notes
from leadline.analysis.verdict.wording.output import decided_line, round_line, to_blocks, to_json, to_text
from leadline.analysis.verdict.wording.pointers import depth_sentence, gap_sentence
from leadline.analysis.verdict.wording.sentences import (
    contrast_sentence,
    detail_sentences,
    effect_sentence,
    meta_sentence,
    provisional_sentence,
)
from leadline.analysis.verdict.wording.tables import arms_table, contrasts_table

__all__ = [
    "RECORD_COLUMNS",
    "TRIAL_COLUMNS",
    "ArmFinding",
    "Contrast",
    "ContrastFinding",
    "Decision",
    "Design",
    "DesignArm",
    "Findings",
    "analyze",
    "arms_table",
    "computes_from_probabilities",
    "contrast_sentence",
    "contrasts_table",
    "decided_line",
    "depth_sentence",
    "design_of",
    "detail_sentences",
    "effect_sentence",
    "gap_sentence",
    "headline",
    "meta_sentence",
    "notes",
    "provisional_sentence",
    "reads_probabilities",
    "reads_records",
    "round_line",
    "to_blocks",
    "to_json",
    "to_text",
]
