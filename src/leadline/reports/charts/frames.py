"""What charts draw, as tidy frames: from a study's trials and records, and from its findings, to one row per mark.

Arms come in the study's order throughout. Values that are not finite never enter; trials that did not finish stand
apart, because a mean over fewer seeds than before would bend a curve where nothing happened.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from leadline.analysis.verdict import ContrastFinding
from leadline.analysis.verdict.wording.labels import contrast_labels

CURVE_SPLITS = ("train", "validation")


def level_of(factors: Mapping[str, object]) -> str:
    """Return the level of an arm in words, such as `blocks = 5, shortcut = A`; empty where nothing is varied."""
    return ", ".join(f"{key} = {value}" for key, value in factors.items())


def horizontal_factor(trials: pd.DataFrame) -> tuple[str | None, list[str]]:
    """Return the factor that makes a horizontal axis, a numeric one if there is one, and the other factors."""
    values: dict[str, list[object]] = {}
    for factors in trials["factors"]:
        for key, value in factors.items():
            values.setdefault(key, []).append(value)
    varied = [key for key, seen in values.items() if len(set(map(str, seen))) > 1]
    numeric = [key for key in varied if all(is_number(value) for value in values[key])]
    chosen = next(iter(numeric or varied), None)
    return chosen, [key for key in values if key != chosen]


def is_number(value: object) -> bool:
    """Return whether a level is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Curves:
    """What curves are drawn from: records by epoch, summed up over the trials of an arm where these have finished.

    Attributes:
        finished: columns arm, base, split, name, epoch; mean, low (the least), high (the greatest value), seeds (their
            number) of the finite values; left_out (the number of values that are not finite).
        unfinished: records of the trials that have not finished, one row each.
    """

    finished: pd.DataFrame
    unfinished: pd.DataFrame

    @cached_property
    def splits(self) -> frozenset[str]:
        """The splits that have a record."""
        return frozenset({*self.finished["split"], *self.unfinished["split"]})

    def end_apart(self, name: str, splits: Collection[str]) -> bool:
        """Return whether the finished trials of an arm have a record in different epochs."""
        rows = self.finished
        rows = rows[rows["name"].eq(name) & rows["split"].isin(splits)]
        return not _has_all(rows).all()

    def leave_out(self, name: str, splits: Collection[str]) -> bool:
        """Return whether any value of a record is not finite."""
        finished, unfinished = (
            frame[frame["name"].eq(name) & frame["split"].isin(splits)] for frame in (self.finished, self.unfinished)
        )
        return bool(finished["left_out"].any()) or not np.isfinite(unfinished["value"].astype(float)).all()


def sum_up(trials: pd.DataFrame, records: pd.DataFrame) -> Curves:
    """Return what curves are drawn from, of records that are at hand."""
    done = records["trial"].isin(trials.loc[trials["state"].eq("finished"), "trial"])
    rows = records[done].assign(finite=lambda own: own["value"].astype(float).where(np.isfinite(own["value"])))
    groups = rows.groupby(["arm", "base", "split", "name", "epoch"], sort=False)["finite"]
    summed = groups.agg(mean="mean", low="min", high="max", seeds="count", all="size").reset_index()
    return Curves(summed.assign(left_out=summed["all"] - summed["seeds"]).drop(columns="all"), records[~done])


def curve_frame(
    trials: pd.DataFrame, curves: Curves, name: str, splits: Collection[str] = CURVE_SPLITS
) -> pd.DataFrame:
    """Return one row per arm, split and epoch: mean, least and greatest value over the finished trials.

    Where trials stop early, an arm's curve ends with the first that does.

    Columns: arm, base, level, split, epoch, mean, low, high, seeds.
    """
    rows = curves.finished
    rows = _sort_by_arm(rows[rows["name"].eq(name) & rows["split"].isin(splits)], trials)
    rows = rows[_has_all(rows) & rows["seeds"].gt(0)]
    columns = ["arm", "base", "level", "split", "epoch", "mean", "low", "high", "seeds"]
    return rows[columns].reset_index(drop=True)


def _has_all(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return of each row of `Curves.finished` whether all finished trials of the arm have been trained so far."""
    trained = rows["seeds"] + rows["left_out"]
    return trained.eq(trained.groupby([rows["arm"], rows["split"]]).transform("max"))


def unfinished_frame(
    trials: pd.DataFrame, curves: Curves, name: str, splits: Collection[str] = CURVE_SPLITS
) -> pd.DataFrame:
    """Return the curves of the trials that have not finished, each by itself.

    Columns: trial, arm, base, level, split, epoch, value, seed, state, last (whether the curve ends there).
    """
    open_trials = trials.loc[trials["state"].ne("finished"), ["trial", "arm", "state"]]
    rows = curves.unfinished
    rows = _finite(rows[rows["name"].eq(name) & rows["split"].isin(splits)]).merge(open_trials, on=["trial", "arm"])
    rows = _sort_by_arm(rows, trials)
    rows["last"] = rows["epoch"].eq(rows.groupby(["trial", "arm", "split"])["epoch"].transform("max"))
    columns = ["trial", "arm", "base", "level", "split", "epoch", "value", "seed", "state", "last"]
    return rows[columns].reset_index(drop=True)


def error_frame(trials: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finished or diverged trial with its test error in per cent, NaN where it diverged.

    Columns: trial, arm, base, level, factors, seed, state, diverged_step, value.
    """
    final = records[records["split"].eq("final-test") & records["name"].eq("error")]
    rows = trials[trials["state"].isin(["finished", "diverged"])]
    rows = rows.merge(_finite(final)[["trial", "arm", "value"]], on=["trial", "arm"], how="left")
    rows = rows[rows["value"].notna() | rows["state"].eq("diverged")]
    rows = rows.assign(level=[level_of(factors) for factors in rows["factors"]])
    rows["arm"] = pd.Categorical(rows["arm"], trials["arm"].unique())
    rows = rows.sort_values(["arm", "seed"]).astype({"arm": "str"})
    columns = ["trial", "arm", "base", "level", "factors", "seed", "state", "diverged_step", "value"]
    return rows[columns].reset_index(drop=True)


def profile_frame(trials: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return what was measured from layer to layer in the first, the middle and the last epoch, over all trials.

    Columns: arm, base, level, split (such as `epoch 1`), layer (its name), place (from 1 at the input), mean, low,
    high, seeds. Values of zero have no logarithm and are left out.

    Args:
        trials: the study's.
        measured: rows of one kind with columns trial, arm, base, seed, epoch, layer, position, value.
    """
    rows = _finite(measured)
    rows = rows[rows["value"].gt(0)]
    epochs = sorted(rows["epoch"].unique())
    chosen = [epochs[place] for place in sorted({0, (len(epochs) - 1) // 2, len(epochs) - 1})] if epochs else []
    rows = rows[rows["epoch"].isin(chosen)]
    rows = rows.assign(split=[f"epoch {epoch}" for epoch in rows["epoch"]], place=rows["position"])
    rows = _sort_by_arm(rows, trials).sort_values(["epoch", "place"], kind="stable")
    return _aggregate_seeds(rows, ["arm", "base", "level", "split", "layer", "place"])


def contrast_frame(contrasts: Sequence[ContrastFinding]) -> pd.DataFrame:
    """Return one row per contrast that has a pair; differences, interval and margin in percentage points.

    Columns: label, a, b, metric, n, difference, low, high (NaN without an interval), decision, margin, unit (of the
    difference, its interval and the margin), higher_is_better, differences (a tuple, one per seed), seeds (likewise).
    """
    rows = [
        {
            "label": label,
            "a": contrast.a,
            "b": contrast.b,
            "metric": contrast.metric,
            "n": contrast.paired.n,
            "difference": contrast.paired.difference,
            "low": contrast.paired.ci95[0] if contrast.paired.ci95 else np.nan,
            "high": contrast.paired.ci95[1] if contrast.paired.ci95 else np.nan,
            "decision": contrast.decision,
            "margin": contrast.margin,
            "unit": contrast.kind.difference_unit,
            "higher_is_better": contrast.kind.higher_is_better,
            "differences": contrast.differences,
            "seeds": contrast.seeds,
        }
        for contrast, label in zip(contrasts, contrast_labels(contrasts), strict=True)
        if contrast.paired is not None
    ]
    columns = ["label", "a", "b", "metric", "n", "difference", "low", "high", "decision", "margin", "unit"]
    return pd.DataFrame(rows, columns=[*columns, "higher_is_better", "differences", "seeds"])


def _finite(records: pd.DataFrame) -> pd.DataFrame:
    return records[np.isfinite(records["value"].astype(float))]


def _sort_by_arm(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Give each row its arm's level, and bring the rows into the order: arm as in the study, split, epoch."""
    arms = trials.drop_duplicates("arm")
    levels = dict(zip(arms["arm"], map(level_of, arms["factors"]), strict=True))
    order = {arm: place for place, arm in enumerate(arms["arm"])}
    rows = rows.assign(level=rows["arm"].map(levels).astype("str"), order=rows["arm"].map(order))
    keys = [key for key in ("order", "seed", "split", "epoch") if key in rows]
    return rows.sort_values(keys, kind="stable").drop(columns="order")


def _aggregate_seeds(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return rows.groupby(by, sort=False)["value"].agg(mean="mean", low="min", high="max", seeds="count").reset_index()
