"""From a store to the numbers that a study shows, with no more read than they rest on."""

from leadline.analysis.verdict import (
    RECORD_COLUMNS,
    TRIAL_COLUMNS,
    Findings,
    analyze,
    reads_probabilities,
    reads_records,
)
from leadline.analysis.verdict.tuned import Tuning
from leadline.store.reading import Reader
from leadline.study.expand import ExpandedStudy
from leadline.study.search import tuning_of


def analyze_stored(store: Reader, study: ExpandedStudy, tuning: Tuning | None = None) -> Findings:
    """Return what the trials of a study that are stored show, in numbers.

    Raises:
        StoreError: there is no such study.
    """
    trials = store.trials_frame(study.name, TRIAL_COLUMNS)
    records = store.records_frame(study.name, only=reads_records(study), columns=RECORD_COLUMNS)
    outputs = store.each_output(study.name, reads_probabilities(study))
    return analyze(study, trials, records, outputs, tuning)


def read_findings(store: Reader, name: str) -> Findings:
    """Return what a stored study shows, in numbers.

    Raises:
        StoreError: there is no such study.
    """
    study = store.study(name).expand()
    return analyze_stored(store, study, tuning_of(store, study))
