"""From a store to a study's report: its records, what they show, and what theory predicts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leadline.analysis.diagnostics import TRAINING_TIME, Diagnostics, diagnose
from leadline.analysis.variance import analyze_variance, spread_sentence, variance_notes, variance_table
from leadline.analysis.verdict import Findings, analyze, reads_probabilities, reads_records
from leadline.analysis.verdict.tuned import Tuning, tuning_sentences
from leadline.data.network_input import INPUT, NetworkInput
from leadline.errors import LeadlineError
from leadline.parts.metrics import Outputs
from leadline.pretraining.image_grids import ImageGrids
from leadline.reports.charts.fit import SPLITS
from leadline.reports.charts.frames import Curves
from leadline.reports.charts.pretraining import pretraining_figures
from leadline.reports.charts.tuning import tuning_figures
from leadline.reports.charts.variance import variance_figure
from leadline.reports.mistakes import mistakes_section
from leadline.reports.networks import setup_section
from leadline.reports.page import Section, write
from leadline.reports.theory_chapters import theory_section
from leadline.reports.tuning_tables import tuning_tables
from leadline.specs import NetworkSpec, TrialSpec
from leadline.store.reading import Reader
from leadline.study.expand import ExpandedStudy
from leadline.study.search import tuning_of
from leadline.text import join

if TYPE_CHECKING:
    import pandas as pd

MOST_PROBABILITIES = 100_000_000
"""Probabilities that a report reads to draw calibration, 4 bytes each: of 1,000 trials on MNIST."""

PREDICTED_ARMS = 6
"""Arms of which random networks are built for a report, the first and the last among them."""


@dataclass(frozen=True)
class StoredStudy:
    """A stored study with everything that its report says."""

    study: ExpandedStudy
    trials: "pd.DataFrame"
    records: "pd.DataFrame"  # but for those that only curves are drawn from
    curves: Curves
    findings: Findings
    diagnostics: Diagnostics
    sections: tuple[Section, ...]


def read_study(store: Reader, name: str, data_dir: Path | None = None) -> StoredStudy:
    """Return a stored study with everything that its report says.

    Raises:
        StoreError: there is no such study.
    """
    study = store.study(name).expand()
    trials, flow = store.trials_frame(name), store.measurements(name, "flow")
    records = store.records_frame(name, only=_wanted(store, study, bool(flow)))
    curves = Curves(store.means_frame(name, SPLITS), store.records_frame(name, SPLITS, unfinished=True))
    tuning = tuning_of(store, study)
    outputs, unread = _outputs(store, study)
    findings = analyze(study, trials, records, outputs.items(), tuning)
    probes = {key: probe for arm in study.arms for key, probe in arm.trial.probes.snapshots().items()}
    stored = {key: (probe, found) for key, probe in probes.items() if (found := store.measurements(name, key))}
    diagnostics = diagnose(trials, records, flow, stored, {arm.name: arm.trial.data for arm in study.arms})
    inputs = _inputs(store, name, trials)
    sections = (
        *mistakes_section(study, trials, outputs, inputs, data_dir, findings, unread),
        *_variance(study, trials, outputs),
        *_tuning(tuning),
        *_pretraining(store, name, trials, records),
        *_predict(study, diagnostics, data_dir),
        *theory_section(study),
        setup_section(study, inputs, data_dir),
    )
    return StoredStudy(study, trials, records, curves, findings, diagnostics, sections)


def write_report(store: Reader, name: str, folder: Path, data_dir: Path | None = None) -> Path:
    """Write the report of a stored study into a folder and return the path of its HTML file.

    Raises:
        StoreError: there is no such study.
        LeadlineError: a file cannot be written.
    """
    one = read_study(store, name, data_dir)
    return write(
        one.study,
        one.findings,
        one.trials,
        one.records,
        folder,
        diagnostics=one.diagnostics,
        sections=one.sections,
        curves=one.curves,
    )


def _wanted(store: Reader, study: ExpandedStudy, measured: bool) -> set[tuple[str, str]]:
    """Return split and name of the records that a report reads one by one: not those that only curves are drawn of."""
    timed = {TRAINING_TIME} if measured else set()
    return {
        (split, name)
        for split, name in store.series()
        if (split, name) in reads_records(study) | timed or split not in (*SPLITS, TRAINING_TIME[0])
    }


def _outputs(store: Reader, study: ExpandedStudy) -> tuple[dict[str, Outputs], int]:
    """Return what networks gave for the test images, and how many probabilities of them are too many to be read.

    Probabilities are read if a verdict needs them or memory suffices.
    """
    outputs = store.outputs(study.name, reads_probabilities(study))
    if any(one.probabilities is not None for one in outputs.values()):
        return outputs, 0
    classes = 1 + max((int(one.labels.max()) for one in outputs.values() if one.labels.dtype.kind in "iu"), default=0)
    probabilities = classes * sum(len(one.labels) for one in outputs.values())
    if probabilities > MOST_PROBABILITIES:
        return outputs, probabilities
    return store.outputs(study.name), 0


def _inputs(store: Reader, name: str, trials: "pd.DataFrame") -> dict[str, NetworkInput]:
    """Return what the networks of each arm take, of the arms that have a finished trial."""
    stored = store.measurements(name, INPUT)
    of_trials = zip(trials["arm"], trials["trial"], strict=True)
    return {arm: NetworkInput.from_bytes(stored[trial][-1][1]) for arm, trial in of_trials if trial in stored}


def _tuning(tuning: Tuning | None) -> Iterator[Section]:
    if tuning is not None:
        yield Section("tuning", "Tuning", tuning_sentences(tuning), tuning_figures(tuning), tuning_tables(tuning))


def _variance(study: ExpandedStudy, trials: "pd.DataFrame", outputs: Mapping[str, Outputs]) -> Iterator[Section]:
    found = analyze_variance(study, trials, outputs)
    if found is not None:
        said = (*map(spread_sentence, found.spreads), *variance_notes(found))
        tables = tuple(map(variance_table, found.spreads))
        yield Section("variance", "Where the spread between seeds comes from", said, (variance_figure(found),), tables)


def _pretraining(store: Reader, name: str, trials: "pd.DataFrame", records: "pd.DataFrame") -> Iterator[Section]:
    # one each, of epoch 0: pre-training comes before the first
    grids = {
        trial: ImageGrids.from_bytes(content)
        for trial, [(_, content)] in store.measurements(name, "pretraining").items()
    }
    if records["split"].str.startswith("pretraining-").any():
        said = (
            "Hidden layers were trained one after the other, each on the codes of the layer below and without labels,"
            " before the whole network was trained (Hinton, Osindero & Teh 2006; Bengio et al. 2006). The time of a"
            " trial includes its pre-training."
        )
        yield Section("pretraining", "Pre-training", (said,), tuple(pretraining_figures(grids, trials, records)))


def _predict(study: ExpandedStudy, diagnostics: Diagnostics, data_dir: Path | None) -> Iterator[Section]:
    """Yield the predictions of mean-field theory for the arms that it covers, compared with random networks."""
    if diagnostics.frame.empty:
        return
    from leadline.data.metadata import describe
    from leadline.reports.charts.chart import spread
    from leadline.theory.meanfield_figures import prediction_figure
    from leadline.theory.prediction import Prediction, predict_depth
    from leadline.theory.random_networks import MeasuredBlocks, measure_blocks

    predictions: dict[str, Prediction] = {}
    measured: list[MeasuredBlocks] = []
    refused: dict[str, list[str]] = {}
    chosen = spread(list(study.arms), PREDICTED_ARMS)
    for arm in chosen:
        network = arm.trial.network
        if reason := _not_drawn(arm.trial):
            refused.setdefault(reason, []).append(arm.name)
            continue
        try:
            shape, _ = describe(arm.trial.data, data_dir)
            predictions[arm.name] = predict_depth(network, shape, twin=False)
        except LeadlineError as error:
            refused.setdefault(str(error), []).append(arm.name)
            continue
        assert isinstance(network, NetworkSpec)
        measured.append(measure_blocks(network, shape, seeds=3, images=2))
    said = [f"{arm}: {prediction.words()}" for arm, prediction in predictions.items()]
    left_out = [f"{join(arms, len(arms))}: {reason}." for reason, arms in refused.items()]
    if len(chosen) < len(study.arms):
        left_out.append(
            f"These are {len(chosen)} of {len(study.arms)} arms, evenly over all; leadline predict-depth predicts the"
            " network of any other."
        )
    figures = (prediction_figure(list(predictions.values()), measured, list(predictions)),) if predictions else ()
    yield Section("predicted", "Predicted before training", (*said, *left_out), figures)


def _not_drawn(trial: TrialSpec) -> str:
    """Return why a trial's initial weights are not those of a random network; empty where they are."""
    if trial.pretraining is not None:
        return "pre-training replaces the initial weights"
    if trial.training.weights is not None:
        return "training starts from weights that were read from a file"
    return "the first convolution is computed from the images" if trial.training.whitening else ""
