"""From a store to the numbers that a study shows, with no more read than they rest on."""

from leadline.analysis.verdict import Findings, analyze, reads_probabilities, reads_records
from leadline.store.reading import Reader
from leadline.study.search import tuning_of


def read_findings(store: Reader, name: str) -> Findings:
    """Return what a stored study shows, in numbers.

    Raises:
        StoreError: there is no such study.
    """
    study = store.study(name).expand()
    outputs = store.outputs(name, reads_probabilities(study))
    records = store.records_frame(name, only=reads_records(study))
    return analyze(study, store.trials_frame(name), records, outputs, tuning_of(store, study))
