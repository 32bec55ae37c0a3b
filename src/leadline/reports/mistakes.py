"""The section of a report about what its arms misclassify, with the test images where the data set is at hand."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from leadline.analysis.mistakes import (
    ERROR,
    AlwaysWrong,
    ArmMistakes,
    Mistakes,
    analyze_mistakes,
    class_table,
    difference_table,
    mistake_sentences,
)
from leadline.analysis.runs.examples import ExampleDifferences, examples_table, summary_table
from leadline.analysis.verdict import Findings
from leadline.data.network_input import NetworkInput
from leadline.errors import LeadlineError
from leadline.parts.metrics import Outputs
from leadline.pretraining.image_grids import ImageGrid
from leadline.reports.charts.mistakes import mistake_figures
from leadline.reports.charts.notable import notable_arms
from leadline.reports.gallery import read_pictures
from leadline.reports.page import Gallery, Picture, Pointer, Section
from leadline.study.expand import ExpandedStudy
from leadline.text import plural

SHOWN_PAIRS, SHOWN_EACH, SHOWN_ALWAYS = 3, 10, 20
"""Contrasts with images, images of each of their sides, and images that every trial misclassifies, at most."""

ABOUT = (
    "What the final networks of finished trials give for the test images. Where two arms differ in one class, or on"
    " single images, is a place to look, not a verdict."
)

UNTESTED = (
    "Differences by class are not tested: seeds were added until contrasts were decided, so that tests for a fixed"
    " number of seeds would not hold."
)

ARROW = " True class → most frequent mistake."


def mistakes_section(
    study: ExpandedStudy,
    trials: pd.DataFrame,
    outputs: Mapping[str, Outputs],
    inputs: Mapping[str, NetworkInput],
    data_dir: Path | None,
    findings: Findings | None = None,
    unread: int = 0,
) -> Iterator[Section]:
    """Yield the section about what arms misclassify; nothing where no trial has outputs for classes.

    Args:
        study: whose arms they are.
        trials: a row per trial.
        outputs: trial -> what its network gave for the test images.
        inputs: what the networks of trained arms take, by arm.
        data_dir: folder of the data sets; None: the default one.
        findings: by which arms and contrasts are chosen where there are many; None: by their order.
        unread: probabilities that were too many to be read; 0: those that are known are in `outputs`.
    """
    found = analyze_mistakes(study, trials, outputs, {arm: one.class_names for arm, one in inputs.items()})
    if found is None:
        return
    examples = (summary_table(found.examples), examples_table(found.examples)) if found.examples else ()
    about, differences = [ABOUT], [difference_table(found)]
    if study.decide is not None:
        found = replace(found, differences=found.differences.iloc[:0])
        about, differences = [ABOUT, UNTESTED], []
    if unread:
        about.append(
            f"Calibration is not shown: trials gave {unread:,} probabilities for the test images, more than a report"
            " reads."
        )
    yield Section(
        "mistakes",
        "What is misclassified",
        tuple(about),
        tuple(mistake_figures(found, notable_arms(findings) if findings else ())),
        (class_table(found.arms), *differences, *examples),
        galleries=tuple(_galleries(found, data_dir, _clearest(findings) if findings else {})),
        pointers=tuple(Pointer(text, target) for text, target in mistake_sentences(found)),
    )


def _clearest(findings: Findings) -> dict[tuple[str, str], float]:
    """Return the size of the difference in test error of every contrast of which it is decided."""
    return {
        (one.a, one.b): abs(one.paired.difference)
        for one in findings.contrasts
        if one.metric == ERROR and one.paired is not None and one.decision in ("better", "worse")
    }


def _galleries(found: Mistakes, data_dir: Path | None, clearest: Mapping[tuple[str, str], float]) -> Iterator[Gallery]:
    """Yield the images that all trials misclassify, by data set, and those at which arms of a contrast differ.

    Contrasts with the largest decided differences come first, then the others in the order of the study.
    """
    if not found.always and not found.examples:
        why = "No arm has learned anything."
        if any(one.arm.trial.data.resample == "split" for one in found.arms):
            why = "Test images are drawn again at every seed, so that trials cannot be compared image by image."
        yield Gallery("", why)
    for wrong in found.always:
        yield _always(found, wrong, data_dir)
    in_order = sorted(found.examples, key=lambda pair: -clearest.get((pair.a, pair.b), 0.0))
    for pair in in_order[:SHOWN_PAIRS]:
        for first in (True, False):
            yield _only_one(found, pair, first, data_dir)
    if len(found.examples) > SHOWN_PAIRS:
        rest = plural(len(found.examples) - SHOWN_PAIRS, "other contrast")
        yield Gallery("", f"Images of {rest} are not shown; tables/examples-all.csv names all of them.")


def _always(found: Mistakes, wrong: AlwaysWrong, data_dir: Path | None) -> Gallery:
    title = f"Misclassified by every trial, {wrong.data}"
    of = [found.of(arm) for arm in wrong.arms]
    count = f"{len(wrong.places):,} of {plural(wrong.images, 'test image')}"
    caption = f"{count}; {plural(wrong.trials, 'trial')} of arms that have learned."
    if not len(wrong.places):
        return Gallery(title, caption)
    caption += ARROW
    one = of[0]
    labels = one.outputs[0].labels
    shown = sorted(wrong.places.tolist(), key=lambda place: (labels[place], place))
    if len(shown) > SHOWN_ALWAYS:
        shown = [shown[place] for place in np.linspace(0, len(shown) - 1, SHOWN_ALWAYS).round().astype(int)]
        caption += f" {SHOWN_ALWAYS} are shown, spread over the classes."
    return _with_pictures(
        title,
        caption,
        one,
        shown,
        {place: _mistake(of, place, f"by all {wrong.trials} trials") for place in shown},
        data_dir,
    )


def _only_one(found: Mistakes, pair: ExampleDifferences, first: bool, data_dir: Path | None) -> Gallery:
    right, wrong = (pair.a, pair.b) if first else (pair.b, pair.a)
    title = f"{right} right, {wrong} wrong"
    ahead = pair.ahead(first)
    caption = (
        f"{len(ahead):,} of {plural(pair.total, 'test image')} are classified correctly at more seeds by {right} than"
        f" by {wrong}"
    )
    caption += f"; the {SHOWN_EACH} with the largest difference are shown." if len(ahead) > SHOWN_EACH else "."
    if ahead.empty:
        return Gallery(title, caption)
    own = found.of(wrong)
    columns = ("right_a", "right_b") if first else ("right_b", "right_a")
    rows = ahead.head(SHOWN_EACH)
    said = {
        int(place): _mistake(
            [own], int(place), f"by {wrong} at {pairs - fewer} of {plural(pairs, 'seed')}, by {right} at {pairs - more}"
        )
        for place, pairs, more, fewer in zip(
            rows["example"], rows["pairs"], *(rows[name] for name in columns), strict=True
        )
    }
    return _with_pictures(title, caption + ARROW, own, list(said), said, data_dir)


def _mistake(arms: Sequence[ArmMistakes], place: int, how: str) -> tuple[str, str]:
    """Return what an image was taken for, in short and in a sentence."""
    names = arms[0].names
    true = int(arms[0].outputs[0].labels[place])
    given = Counter(int(one.predicted[place]) for arm in arms for one in arm.outputs)
    given.pop(true, None)
    (most, times), *_ = given.most_common(1)
    short = f"{names[true]} → {names[most]}"
    return short, f"Class {names[true]}, misclassified {how}; most often as {names[most]} ({times} times)"


def _with_pictures(
    title: str,
    caption: str,
    one: ArmMistakes,
    places: Sequence[int],
    said: Mapping[int, tuple[str, str]],
    data_dir: Path | None,
) -> Gallery:
    try:
        grids: dict[int, ImageGrid] = read_pictures(one.arm.trial, places, one.outputs[0].labels, data_dir)
    except LeadlineError as error:
        listed = "; ".join(f"{said[place][0]} (test image {place})" for place in places)
        return Gallery(title, f"{caption} The images were not at hand: {error}. {listed}.")
    return Gallery(title, caption, tuple(Picture(grids[place], *said[place]) for place in places))
