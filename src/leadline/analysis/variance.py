"""Where the spread between seeds comes from: what the trials of an orthogonal array of seeds show, and its words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from leadline.analysis.stats.samples import Floats, StatisticsError
from leadline.analysis.stats.variance_components import Component, variance_components, variance_from_images
from leadline.parts.metrics import Outputs
from leadline.seeds import NAMES, SOURCES, Seed, Source, seed_of
from leadline.study.expand import ExpandedStudy, default_metric
from leadline.text import join, number
from leadline.text.layout import Block
from leadline.text.tables import Column, Table

IMAGES = "test images"
LEFT = "what is left"
MOST = 0.5


@dataclass(frozen=True)
class Spread:
    """The spread of one arm's test error, or of the difference between two arms', and what it consists of."""

    subject: str  # such as `residual`, or `residual − plain`
    trainings: int
    mean: float  # per cent, or percentage points of a difference
    components: tuple[Component, ...]  # of other trainings on other images; squared percentage points

    @property
    def sd(self) -> float:
        """The standard deviation with everything drawn anew, in percentage points."""
        return float(sum(one.variance for one in self.components) ** 0.5)


@dataclass(frozen=True)
class VarianceFindings:
    """What a study of this kind shows."""

    study: str
    levels: int  # seeds of each source
    sources: tuple[Source, ...]
    spreads: tuple[Spread, ...]
    resample: str  # bootstrap or split
    mislabelled: bool = False  # whether training labels are replaced by wrong ones, which is drawn with the images


def sources_of_array(study: ExpandedStudy) -> dict[Source, list[int]]:
    """Return source -> its seed at each of a study's seeds, where these are listed by source; else nothing."""
    listed = study.spec.seeds if isinstance(study.spec.seeds, list) else []
    seeds = [seed for seed in study.seed_values if isinstance(seed, Seed)]
    if not listed or len(seeds) != len(listed):
        return {}
    return {source: [seed.by_source[source] for seed in seeds] for source in SOURCES if source in seeds[0].by_source}


def analyze_variance(
    study: ExpandedStudy, trials: pd.DataFrame, outputs: Mapping[str, Outputs]
) -> VarianceFindings | None:
    """Return what each source gives of the variance of the final test error, by arm and by contrast.

    Args:
        study: with an orthogonal array of seeds.
        trials: a row per trial: trial (hash), arm, seed, state.
        outputs: trial hash -> what its network gave for the test images.

    Returns:
        None where the study has no such array of seeds, or not all trials of any arm have finished.
    """
    sources = sources_of_array(study)
    if not sources or default_metric(study) != "test_error":
        return None
    wrong: dict[str, Floats] = {}
    for arm in study.arms:
        own = trials[(trials["arm"] == arm.name) & (trials["state"] == "finished")]
        pairs = zip(own["seed"], own["trial"], strict=True)
        known = {seed_of(seed): outputs[trial] for seed, trial in pairs if trial in outputs}
        if all(seed in known for seed in study.seed_values):
            every = (known[seed] for seed in study.seed_values)
            wrong[arm.name] = np.array([100.0 * (one.predicted != one.labels) for one in every])
    tables = dict(wrong)
    for pair in study.contrasts:
        if pair.a in wrong and pair.b in wrong:
            tables[f"{pair.a} − {pair.b}"] = wrong[pair.a] - wrong[pair.b]
    resample = next(iter(study.arms)).trial.data.resample or ""
    try:
        spreads = tuple(_spread(subject, table, sources, resample != "split") for subject, table in tables.items())
    except StatisticsError:
        return None
    levels = round(len(study.seed_values) ** 0.5)
    noisy = any(arm.trial.data.label_noise is not None for arm in study.arms)
    return VarianceFindings(study.name, levels, tuple(sources), spreads, resample, noisy) if spreads else None


def _spread(subject: str, table: Floats, sources: Mapping[Source, Sequence[int]], same_images: bool) -> Spread:
    other = (IMAGES, variance_from_images(table)) if same_images else None
    named = {NAMES[source]: levels for source, levels in sources.items()}
    found = variance_components(table.mean(axis=1), named, other)
    return Spread(subject, len(table), float(table.mean()), found)


def label(component: Component) -> str:
    """Return how a component is called."""
    return component.name or LEFT


def spread_sentence(spread: Spread) -> str:
    """Return where most of a spread comes from, or that it is open."""
    largest = max(spread.components, key=lambda one: one.share)
    whole = f"{spread.subject}: standard deviation {number(spread.sd)} points"
    said = f"{largest.share:.0%} ({largest.low:.0%} to {largest.high:.0%})"
    if largest.low > MOST:
        return f"{whole}, most of it from {label(largest)}, {said} of the variance."
    return f"{whole}; what most of it comes from is open: the largest share is that of {label(largest)}, {said}."


def variance_table(spread: Spread) -> Table:
    """Return one row per component of a spread."""
    subject = {"subject": spread.subject}
    rows = [subject | asdict(one) | {"name": label(one), "sd": one.variance**0.5} for one in spread.components]
    columns = (
        Column("Source", ("name", "subject"), lambda name, subject: name, numeric=False),
        Column("Standard deviation", ("sd",), number, unit="points"),
        Column("Share of the variance", ("share",), "{:.0%}".format),
        Column("95% interval", ("low", "high"), "{:.0%} to {:.0%}".format),
        Column("Variance", ("variance",), None),
    )
    return Table(f"variance-{spread.subject}", f"Spread of {spread.subject}", columns, tuple(rows))


def variance_notes(findings: VarianceFindings) -> Iterator[str]:
    """Yield what a reader must know of the numbers."""
    names = [NAMES[source] for source in findings.sources]
    yield (
        f"Each of {join(names)} has {findings.levels} seeds, and every two seeds of two sources meet in one of"
        f" {findings.levels**2} trainings of each arm, so that what sources do together is part of what is left."
    )
    if findings.resample == "split":
        yield "The choice of images is that of training and of test images, at every seed."
    else:
        yield (
            "The choice of images is a bootstrap of the training images. Test images are the same in all trainings;"
            " what others would give follows from the predictions for these."
        )
    if findings.mislabelled:
        yield "The choice of images includes which training labels are wrong (data.label_noise)."
    yield (
        "Shares are of the variance of the test error of one training in which everything is drawn anew; 95% intervals"
        " are generalised confidence intervals, which assume normal effects. What is left are combinations of sources,"
        " whose effect is not the sum of theirs."
    )
    idle = [NAMES[source] for source in SOURCES if source not in findings.sources]
    if idle:
        yield f"No arm draws {join(idle)}, which gives nothing."


def repeat_note(repeated: bool) -> str:
    """Return what a repeated training showed of nondeterminism."""
    if repeated:
        return "One training was repeated and came to the same results to the bit: nothing is nondeterminism."
    return "One training was repeated and came to other results: a part of what is left is nondeterminism."


def variance_json(findings: VarianceFindings) -> dict[str, Any]:
    """Return the findings as plain data; variances in squared percentage points."""
    spreads = [
        {"subject": one.subject, "trainings": one.trainings, "mean": one.mean, "sd": one.sd}
        | {"sentence": spread_sentence(one)}
        | {"components": [asdict(part) | {"name": label(part)} for part in one.components]}
        for one in findings.spreads
    ]
    return {
        "study": findings.study,
        "levels": findings.levels,
        "sources": list(findings.sources),
        "spreads": spreads,
        "notes": list(variance_notes(findings)),
    }


def variance_blocks(findings: VarianceFindings, repeated: bool) -> list[Block]:
    """Return the findings as text and tables for `text.layout`.

    Args:
        findings: the findings.
        repeated: see `repeat_note`.
    """
    found = [block for one in findings.spreads for block in (spread_sentence(one), variance_table(one))]
    notes = (*variance_notes(findings), repeat_note(repeated))
    return [findings.study, *found, "\n".join(f"- {note}" for note in notes)]
