"""What the arms of a study misclassify: which classes, which images, how confidently, and where two arms differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leadline.analysis.runs.examples import ExampleDifferences, compare_examples
from leadline.analysis.stats import (
    LEVEL,
    Reliability,
    class_errors,
    confusion_matrix,
    difference_p,
    holm,
    reliability,
    t_interval,
)
from leadline.analysis.stats.samples import Floats
from leadline.analysis.verdict import design_of
from leadline.analysis.verdict.design import Design
from leadline.parts.metrics import Outputs
from leadline.parts.metrics.calibration_error import BINS
from leadline.parts.tasks import task_of
from leadline.seeds import SeedName
from leadline.study.expand import Arm, ExpandedStudy
from leadline.text import interval, join, number, p_value, plural
from leadline.text.tables import Column, Table, plain

CLASSIFICATION = "classification"
ERROR = "test_error"
SHOWN_CLASSES = 20
"""Classes that figures show at most: those that are misclassified most often."""


@dataclass(frozen=True, eq=False)
class ArmMistakes:
    """What the finished trials of one arm give for the test images."""

    arm: Arm
    names: tuple[str, ...]  # of the classes
    seeds: tuple[SeedName, ...]
    outputs: tuple[Outputs, ...]  # one per seed
    matrices: NDArray[np.int64]  # [seeds, true class, predicted class]
    calibration: Reliability | None  # over all seeds; None: probabilities are not known
    learned: bool  # whether any trial did better than guessing on the test images

    @cached_property
    def errors(self) -> Floats:
        """The error of each class at each seed, in per cent; [seeds, classes], NaN for a class without images."""
        return class_errors(self.matrices)

    @cached_property
    def error(self) -> float:
        """The error over all classes, the mean over seeds, in per cent."""
        images = self.matrices.sum((1, 2))
        return float(np.mean(100 * ((images - self.matrices.trace(axis1=1, axis2=2)) / images)))

    @cached_property
    def images(self) -> Floats:
        """The test images of each class, the mean over seeds."""
        return np.asarray(self.matrices.sum(2).mean(0))

    @property
    def too_confident(self) -> float:
        """By how many points the mean confidence is above the accuracy."""
        assert self.calibration is not None
        one = self.calibration
        return float(100 * (one.counts * (one.confidence - one.accuracy)).sum() / one.counts.sum())


@dataclass(frozen=True, eq=False)
class AlwaysWrong:
    """Test images of one data set that every trial misclassifies, of the arms that have learned."""

    data: str
    arms: tuple[str, ...]
    trials: int
    images: int  # in all
    places: NDArray[np.int64]  # of these images among the test images


@dataclass(frozen=True, eq=False)
class Mistakes:
    """What the arms of a study misclassify."""

    arms: tuple[ArmMistakes, ...]
    differences: pd.DataFrame  # see `_difference_frame`
    examples: tuple[ExampleDifferences, ...]  # where arms of a contrast differ; none where test images are redrawn
    always: tuple[AlwaysWrong, ...]

    def of(self, arm: str) -> ArmMistakes:
        """Return what an arm of this name misclassifies."""
        return next(one for one in self.arms if one.arm.name == arm)


def analyze_mistakes(
    study: ExpandedStudy,
    trials: pd.DataFrame,
    outputs: Mapping[str, Outputs],
    names: Mapping[str, Sequence[str] | None],
) -> Mistakes | None:
    """Return what a study's arms misclassify.

    Args:
        study: whose arms they are.
        trials: a row per trial: trial, arm, seed, state.
        outputs: trial -> what its network gave for the test images.
        names: arm -> names of its classes; None, or no entry: they are numbered.

    Returns:
        None where no arm predicts classes and has a finished trial with stored outputs.
    """
    arms = tuple(_arms(study, trials, outputs, names))
    if not arms:
        return None
    design = design_of(study)
    fixed = all(one.arm.trial.data.resample != "split" for one in arms)
    known = {one.arm.name for one in arms}
    finished = trials[trials["state"].eq("finished") & trials["arm"].isin(known)]
    classes = {one.names for one in arms}
    named = classes.pop() if len(classes) == 1 else None
    examples = compare_examples(design, finished, outputs, named) if fixed else ()
    return Mistakes(arms, _difference_frame(design, arms), examples, tuple(_always_wrong(arms)) if fixed else ())


def _arms(
    study: ExpandedStudy,
    trials: pd.DataFrame,
    outputs: Mapping[str, Outputs],
    names: Mapping[str, Sequence[str] | None],
) -> Iterator[ArmMistakes]:
    task = task_of(CLASSIFICATION)
    finished = trials[trials["state"].eq("finished") & trials["trial"].isin(outputs.keys())]
    for arm in study.arms:
        own = finished[finished["arm"].eq(arm.name)].sort_values("seed", kind="stable")
        if arm.trial.data.task != CLASSIFICATION or own.empty:
            continue
        found = tuple(outputs[trial] for trial in own["trial"])
        most = 1 + max(int(max(one.labels.max(), one.predicted.max())) for one in found)
        named = names.get(arm.name)
        classes = tuple(named) if named is not None and len(named) >= most else tuple(map(str, range(most)))
        calibrated = all(one.probabilities is not None for one in found)
        yield ArmMistakes(
            arm,
            classes,
            tuple(own["seed"]),
            found,
            np.stack([confusion_matrix(one.labels, one.predicted, len(classes)) for one in found]),
            _reliability(found) if calibrated else None,
            not all(task.is_at_chance(one, None) for one in found),
        )


def _reliability(found: Sequence[Outputs]) -> Reliability:
    labels, predicted = (np.concatenate([getattr(one, name) for one in found]) for name in ("labels", "predicted"))
    probabilities = [one.probabilities for one in found if one.probabilities is not None]
    return reliability(labels, predicted, np.concatenate(probabilities), BINS)


def _independent(seeds: Sequence[SeedName]) -> bool:
    """Whether each seed is one number, so that values at different seeds share nothing."""
    return not any(isinstance(seed, str) for seed in seeds)


# --- classes


def class_frame(arms: Sequence[ArmMistakes]) -> pd.DataFrame:
    """Return one row per arm and class.

    Columns: arm, base, class, place (its number), images, seeds, error (the mean over seeds, per cent), low, high (the
    95% interval for training again on the same images; NaN with one seed, or with seeds by source of randomness).
    """
    rows = [
        {"arm": one.arm.name, "base": one.arm.base, "class": name, "place": place, "images": one.images[place]}
        | {"seeds": len(one.seeds), "error": float(one.errors[:, place].mean())}
        | dict(zip(("low", "high"), _interval(one, place), strict=True))
        for one in arms
        for place, name in enumerate(one.names)
        if one.images[place]
    ]
    return pd.DataFrame(rows)


def _interval(one: ArmMistakes, place: int) -> tuple[float, float]:
    errors = one.errors[:, place]
    if len(errors) < 2 or not _independent(one.seeds) or np.isnan(errors).any():
        return np.nan, np.nan
    low, high = t_interval(errors, resolution=100 / one.images[place])
    return max(0.0, float(low)), min(100.0, float(high))


def worst_classes(arms: Sequence[ArmMistakes], most: int = SHOWN_CLASSES) -> list[int]:
    """Return the numbers of the classes that arms of one data set misclassify most often, in their order."""
    errors = np.nanmean([np.nan_to_num(one.errors).mean(0) for one in arms], axis=0)
    return sorted(np.argsort(-errors, kind="stable")[:most].tolist())


def by_data(arms: Sequence[ArmMistakes]) -> dict[tuple[str, tuple[str, ...]], list[ArmMistakes]]:
    """Return arms by their data set and the names of its classes."""
    found: dict[tuple[str, tuple[str, ...]], list[ArmMistakes]] = {}
    for one in arms:
        found.setdefault((one.arm.trial.data.display_name, one.names), []).append(one)
    return found


def _difference_frame(design: Design, arms: Sequence[ArmMistakes]) -> pd.DataFrame:
    """Return one row per contrast of test errors and class: how much more often the first arm misclassifies it.

    Columns: a, b, class, place, seeds, difference (points, mean over pairs), low, high (95% interval, paired t), p,
    p_adjusted (Holm, over all rows).
    """
    known = {one.arm.name: one for one in arms}
    asked = [(one.a, one.b) for one in design.contrasts if one.metric == ERROR and not one.unpaired]
    rows = []
    for a, b in dict.fromkeys(asked):
        if a in known and b in known and known[a].names == known[b].names:
            rows += list(_differences(known[a], known[b]))
    columns = ["a", "b", "class", "place", "seeds", "difference", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_adjusted=holm([None if np.isnan(p) else p for p in frame["p"]]) if len(frame) else [])


def _differences(a: ArmMistakes, b: ArmMistakes) -> Iterator[dict[str, object]]:
    common = [seed for seed in a.seeds if seed in b.seeds]
    if not common:
        return
    chosen = [[one.seeds.index(seed) for seed in common] for one in (a, b)]
    apart = a.errors[chosen[0]] - b.errors[chosen[1]]
    for place, name in enumerate(a.names):
        values = apart[:, place]
        if np.isnan(values).any():
            continue
        row: dict[str, object] = {"a": a.arm.name, "b": b.arm.name, "class": name, "place": place}
        row |= {"seeds": len(common), "difference": float(values.mean()), "low": np.nan, "high": np.nan, "p": np.nan}
        if len(values) > 1 and _independent(common):
            resolution = 100 / a.images[place]
            low, high = t_interval(values, resolution=resolution)
            row |= {"low": max(-100.0, float(low)), "high": min(100.0, float(high))}
            row["p"] = float(difference_p(values, resolution))
        yield row


# --- images


def _always_wrong(arms: Sequence[ArmMistakes]) -> Iterator[AlwaysWrong]:
    for (data, _), own in by_data([one for one in arms if one.learned]).items():
        labels = own[0].outputs[0].labels
        found = [one for arm in own for one in arm.outputs]
        if all(np.array_equal(one.labels, labels) for one in found):
            wrong = np.all([one.predicted != one.labels for one in found], axis=0)
            arms_of = tuple(one.arm.name for one in own)
            yield AlwaysWrong(data, arms_of, len(found), len(labels), np.flatnonzero(wrong))


# --- words and tables


def mistake_sentences(mistakes: Mistakes) -> Iterator[tuple[str, str]]:
    """Yield what is worth a look, each with the place on the page where it is seen."""
    learned = [one for one in mistakes.arms if one.learned]
    for (data, _), own in by_data(learned).items():
        best = min(own, key=lambda one: one.error)
        errors = np.nan_to_num(best.errors.mean(0))
        worst = int(errors.argmax())
        if errors[worst] > 0:
            others = best.matrices.sum(0)[worst].copy()
            others[worst] = 0
            on = f" on {data}" if len(by_data(learned)) > 1 else ""
            yield (
                f"{best.arm.name}, which has the lowest error{on}, misclassifies class {best.names[worst]} most often:"
                f" {number(float(errors[worst]), 1)}% of its images, most often as {best.names[int(others.argmax())]}.",
                "mistakes-confusion",
            )
    named = {one.arm.name for one in learned}
    shown = mistakes.differences[mistakes.differences["p_adjusted"].le(LEVEL)]
    shown = shown[shown["a"].isin(named) & shown["b"].isin(named)]
    if len(shown):
        parts = zip(shown["a"], shown["b"], shown["class"], shown["difference"], strict=True)
        said = [f"{a} − {b}, class {name}: {number(by, 1, signed=True)} points" for a, b, name, by in parts]
        classes = join(said, 3, mark=";")
        yield (
            f"{plural(len(shown), 'difference')} between arms in the error of a class"
            f" {'is' if len(shown) == 1 else 'are'} shown after Holm's correction: {classes}.",
            "mistakes-differences",
        )
    calibrated = [one for one in learned if one.calibration is not None]
    if calibrated:
        off = max(calibrated, key=lambda one: one.calibration.error if one.calibration else 0.0)
        assert off.calibration is not None
        way = "too confident" if off.too_confident > 0 else "not confident enough"
        yield (
            f"{off.arm.name} is calibrated worst: expected calibration error {number(off.calibration.error, 1)} points,"
            f" on average {number(abs(off.too_confident), 1)} points {way}.",
            "mistakes-calibration",
        )
    for one in mistakes.always:
        on = f" of {one.data}" if len(mistakes.always) > 1 else ""
        if len(one.places):
            yield (
                f"{len(one.places):,} of {plural(one.images, 'test image')}{on}"
                f" {'is' if len(one.places) == 1 else 'are'} misclassified by all of {plural(one.trials, 'trial')}.",
                "mistakes-images",
            )


def class_table(arms: Sequence[ArmMistakes]) -> Table:
    """Return one row per arm and class: its images, and how often it is misclassified."""
    rows = tuple({str(key): value for key, value in row.items()} for row in class_frame(arms).to_dict("records"))
    columns = (
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Class", ("class",), plain, numeric=False),
        Column("Images", ("images",), "{:,.0f}".format),
        Column("Seeds", ("seeds",), plain),
        Column("Error", ("error",), number, unit="%"),
        Column("95% interval", ("low", "high"), _ends),
    )
    return Table("mistakes-by-class", "Error of each class: mean over seeds", columns, rows)


def difference_table(mistakes: Mistakes) -> Table:
    """Return one row per contrast and class: the difference between the two arms' errors of the class."""
    rows = tuple({str(key): value for key, value in row.items()} for row in mistakes.differences.to_dict("records"))
    columns = (
        Column("First arm", ("a",), plain, numeric=False),
        Column("Second arm", ("b",), plain, numeric=False),
        Column("Class", ("class",), plain, numeric=False),
        Column("Pairs", ("seeds",), plain),
        Column("Difference", ("difference",), lambda value: number(value, signed=True), unit="points"),
        Column("95% interval, paired t", ("low", "high"), _ends),
        Column("p", ("p",), p_value),
        Column("Holm-adjusted", ("p_adjusted",), p_value),
    )
    caption = "Error of each class: difference, first arm minus second"
    return Table("mistakes-class-differences", caption, columns, rows)


def _ends(low: float, high: float) -> str:
    return interval((low, high))
