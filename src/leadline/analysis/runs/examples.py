"""Which examples one arm classifies correctly and another does not, over the pairs of their runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leadline.analysis.runs.predictions import ERROR
from leadline.analysis.verdict import Design
from leadline.parts.metrics import Outputs
from leadline.seeds import SeedName, seed_order
from leadline.text import NOTHING, join
from leadline.text.tables import Column, Table, plain

SHOWN = 5  # examples that the table of a contrast names


@dataclass(frozen=True)
class ExampleDifferences:
    """Examples that at some pair of runs only one of two arms classified correctly."""

    a: str
    b: str
    total: int  # examples that both arms saw
    frame: pd.DataFrame  # example, label, pairs (that saw it), right_a, right_b (pairs at which each was correct)

    def ahead(self, first: bool) -> pd.DataFrame:
        """Return the examples that the first arm, or the second, classified correctly at more pairs, most first."""
        more, fewer = ("right_a", "right_b") if first else ("right_b", "right_a")
        return self.frame[self.frame[more] > self.frame[fewer]]


def pair_outputs(
    design: Design, trials: pd.DataFrame, outputs: Mapping[str, Outputs]
) -> Iterator[tuple[str, str, SeedName, Outputs, Outputs]]:
    """Yield arms, seed and predictions of every pair of trials that is compared by its test error.

    Args:
        design: whose contrasts' arms are paired, but for those that form no pairs.
        trials: a row per trial: trial, arm, seed.
        outputs: trial -> what it predicted.
    """
    rows = trials[trials["trial"].isin(outputs.keys())]
    of_arm = {arm: dict(zip(own["seed"], own["trial"], strict=True)) for arm, own in rows.groupby("arm")}
    for a, b in dict.fromkeys((one.a, one.b) for one in design.contrasts if one.metric == ERROR and not one.unpaired):
        first, second = of_arm.get(a, {}), of_arm.get(b, {})
        for seed in sorted(first.keys() & second.keys(), key=seed_order):
            yield a, b, seed, outputs[first[seed]], outputs[second[seed]]


def compare_examples(
    design: Design, trials: pd.DataFrame, outputs: Mapping[str, Outputs], classes: Sequence[str] | None = None
) -> tuple[ExampleDifferences, ...]:
    """Return the examples at which the arms of each contrast differ, over the pairs that saw the same ones.

    Args:
        design, trials, outputs: see `pair_outputs`.
        classes: name of each class; None: its number.
    """
    pairs: dict[tuple[str, str], list[tuple[Outputs, Outputs]]] = {}
    for a, b, _, one, other in pair_outputs(design, trials, outputs):
        if one.is_of_same_examples(other):
            pairs.setdefault((a, b), []).append((one, other))
    return tuple(_compare(a, b, own, classes) for (a, b), own in pairs.items())


def _compare(
    a: str, b: str, pairs: Sequence[tuple[Outputs, Outputs]], classes: Sequence[str] | None
) -> ExampleDifferences:
    """Return the examples at which two arms differ, those first at which they differ most."""
    first = pairs[0][0]
    if all(one.is_of_same_examples(first) for one, _ in pairs) and len(set(_named(first))) == len(first.labels):
        right_a, right_b = (
            np.sum([own.predicted == own.labels for own in side], 0) for side in zip(*pairs, strict=True)
        )
        columns = {"example": _named(first), "label": first.labels, "pairs": len(pairs)}
        counted = pd.DataFrame({**columns, "right_a": right_a, "right_b": right_b}).sort_values(["example", "label"])
    else:
        counted = pd.concat([_of_pair(one, other) for one, other in pairs])
        counted = counted.groupby(["example", "label"], sort=True).sum().reset_index()
    frame = counted[counted["right_a"] != counted["right_b"]]
    if classes is not None:
        frame = frame.assign(label=np.array(classes)[frame["label"]])
    order = np.argsort(-((frame["right_a"] - frame["right_b"]).abs() / frame["pairs"]).to_numpy(), kind="stable")
    return ExampleDifferences(a, b, len(counted), frame.iloc[order].reset_index(drop=True))


def _of_pair(one: Outputs, other: Outputs) -> pd.DataFrame:
    right_a, right_b = ((own.predicted == own.labels).astype(int) for own in (one, other))
    columns = {"example": _named(one), "label": one.labels, "pairs": 1}
    return pd.DataFrame({**columns, "right_a": right_a, "right_b": right_b})


def _named(one: Outputs) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
    return np.arange(len(one.labels)) if one.examples is None else one.examples


def summary_table(found: Sequence[ExampleDifferences]) -> Table:
    """Return two rows for each contrast: where the first arm is correct at more seeds, and where the second is."""
    columns = (
        Column("Correct in", ("right",), plain, numeric=False),
        Column("More often than in", ("wrong",), plain, numeric=False),
        Column("Examples", ("some",), plain),
        Column("Always against never", ("always",), plain),
        Column("Of", ("total",), plain),
        Column("Largest differences, with class", ("shown",), plain, numeric=False),
    )
    rows = [row for one in found for row in _summary(one)]
    return Table("examples", "Examples that one arm classifies correctly at more seeds", columns, tuple(rows))


def _summary(one: ExampleDifferences) -> Iterator[dict[str, object]]:
    for first in (True, False):
        ahead = one.ahead(first)
        shown = [f"{name} ({label})" for name, label in zip(ahead["example"], ahead["label"], strict=True)]
        lead = (ahead["right_a"] - ahead["right_b"]).abs()
        yield {
            "right": one.a if first else one.b,
            "wrong": one.b if first else one.a,
            "some": len(ahead),
            "always": int((lead == ahead["pairs"]).sum()),
            "total": one.total,
            "shown": join(shown, SHOWN) or NOTHING,
        }


def examples_table(found: Sequence[ExampleDifferences]) -> Table:
    """Return a row for each contrast and example at which its arms differ."""
    columns = (
        Column("First arm", ("a",), plain, numeric=False),
        Column("Second arm", ("b",), plain, numeric=False),
        Column("Example", ("example",), plain, numeric=False),
        Column("Class", ("label",), plain, numeric=False),
        Column("Seeds", ("pairs",), plain),
        Column("Correct in the first", ("right_a",), plain),
        Column("Correct in the second", ("right_b",), plain),
    )
    rows = [
        {"a": one.a, "b": one.b, **{str(name): value for name, value in row.items()}}
        for one in found
        for row in one.frame.to_dict("records")
    ]
    return Table("examples-all", "Examples at which two arms differ, by seeds", columns, tuple(rows))


def explain_difference(a: Outputs, b: Outputs) -> str:
    """Return why two runs were not given the same examples, as the end of a sentence; empty: they were."""
    if a.is_of_same_examples(b):
        return ""
    assert a.examples is not None and b.examples is not None
    for one, other, which in ((a.examples, b.examples, "first"), (b.examples, a.examples, "second")):
        if len(alone := np.setdiff1d(one, other)):
            return f"the {which} alone has {join([str(name) for name in alone.tolist()], 3)}"
    place = int(np.flatnonzero(a.labels != b.labels)[0])
    return f"example {a.examples[place]} does not have the same class in both"
