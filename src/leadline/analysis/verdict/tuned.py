"""What tuning tried and chose, and how much of the verdict hangs on its budget: frames in, frames and words out."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from leadline.analysis.stats.best_of import Ahead, Floats, ahead, best_of, running_best
from leadline.specs.tuning import ChoiceSpace, LogSpace, TuneSpec, Value, Values, edges
from leadline.study.expand import ExpandedStudy, setting_name
from leadline.text import join, plural

WORST = 100.0  # per cent: what a diverged setting counts as in means
BUDGETS = 60  # at most, for which curves are computed
ENDED = ("finished", "diverged")
TIE = 1e-9  # per cent: means that differ by less differ by rounding alone
NEAR = 0.03  # of a space's width: a value so near its end may lie there because the space ends


@dataclass(frozen=True)
class Tuning:
    """The search of a study's arms; frames are empty where the store no longer has what was tried."""

    spec: TuneSpec
    chosen: Mapping[str, Values]
    """Arm -> the values that the search chose."""
    tried: pd.DataFrame
    """One row per arm and setting: arm, base, factors (a dict), number (from 1), values (a dict), error (of
    validation, per cent, mean over the seeds; NaN where one diverged), state (finished or diverged), chosen (bool)."""
    best: pd.DataFrame
    """One row per arm and budget: arm, base, factors, k, mean, low, high; best validation error, per cent."""
    leads: pd.DataFrame
    """One row per contrast and budget: a, b, k, best_a, best_b, share_a, share_b (of searches that it is ahead in)."""

    @property
    def seen(self) -> bool:
        """Whether the store has the whole search that chose the study's values."""
        return not self.tried.empty


def shown(value: Value) -> str:
    """Write a tuned value to three significant digits; whole numbers and words as they are."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def explain_tuning(study: ExpandedStudy, trials: pd.DataFrame, records: pd.DataFrame) -> Tuning:
    """Return what the search of a study shows, beside what it chose.

    Args:
        study: the study, its values chosen.
        trials: of the study of the search: a row per trial with trial, arm, factors, state; none where it is gone.
        records: its records, of which final validation errors are enough.

    Raises:
        ValueError: the study tunes nothing, or has not chosen yet.
    """
    tune, chosen = _chosen(study)
    tried = _tried(study, tune, trials, records)
    found = {str(arm): values for arm, values in tried.loc[tried["chosen"], ["arm", "values"]].to_numpy()}
    whole = tried.groupby("arm")["number"].count().eq(tune.budget).all()
    if not whole or found != chosen:
        return Tuning(tune, chosen, tried.iloc[:0], pd.DataFrame(), pd.DataFrame())
    errors = {str(arm): own["error"].to_numpy(float) for arm, own in tried.groupby("arm", sort=False)}
    best = _best(study, tune, errors)
    return Tuning(tune, chosen, tried, best, _leads(study, tune, errors, best))


def _chosen(study: ExpandedStudy) -> tuple[TuneSpec, dict[str, Values]]:
    if study.spec.tune is None or study.resolved.chosen is None:
        raise ValueError(f"study {study.name} has no values that were tuned")
    return study.spec.tune, study.resolved.chosen


def _tried(study: ExpandedStudy, tune: TuneSpec, trials: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    final = records[records["split"].eq("final-validation") & records["name"].eq("error")]
    errors = dict(zip(final["trial"], final["value"].astype(float), strict=True))
    settings = {name: own for name, own in trials.groupby("arm", sort=False) if own["state"].isin(ENDED).all()}
    rows = []
    for arm in study.arms:
        own_rows: list[dict[str, Any]] = []
        for number in range(1, tune.budget + 1):
            if (own := settings.get(setting_name(arm, number))) is None:
                continue
            diverged = own["state"].eq("diverged").any()
            own_rows.append(
                {
                    **{"arm": arm.name, "base": arm.base, "factors": arm.factors, "number": number},
                    "values": {key: own["factors"].iloc[0].get(key) for key in tune.space},
                    "error": np.nan if diverged else float(own["trial"].map(errors).mean()),
                    "state": "diverged" if diverged else "finished",
                }
            )
        best = min((row["error"] for row in own_rows if row["state"] == "finished"), default=np.nan)
        first = next((row["number"] for row in own_rows if row["error"] == best), None)
        rows += [row | {"chosen": row["number"] == first} for row in own_rows]
    columns = ["arm", "base", "factors", "number", "values", "error", "state", "chosen"]
    return pd.DataFrame(rows, columns=columns).astype({"chosen": bool, "error": float})


# --- other budgets


def _best(study: ExpandedStudy, tune: TuneSpec, errors: Mapping[str, Floats]) -> pd.DataFrame:
    rows = []
    for arm in study.arms:
        values = np.nan_to_num(errors[arm.name], nan=WORST)
        running = running_best(values)
        for k in _budgets(tune.budget):
            row: dict[str, Any] = {"arm": arm.name, "base": arm.base, "factors": arm.factors, "k": k}
            if tune.sampler == "random":
                rows.append(row | asdict(best_of(values, k)))
            else:
                rows.append(row | dict.fromkeys(("mean", "low", "high"), running[k - 1]))
    return pd.DataFrame(rows)


def _leads(study: ExpandedStudy, tune: TuneSpec, errors: Mapping[str, Floats], best: pd.DataFrame) -> pd.DataFrame:
    means = best.set_index(["arm", "k"])["mean"].to_dict()
    rows = []
    for a, b in dict.fromkeys((contrast.a, contrast.b) for contrast in study.contrasts):
        one, two = (np.nan_to_num(errors[arm], nan=np.inf) for arm in (a, b))
        for k in _budgets(tune.budget):
            if tune.sampler == "random":
                share = ahead(one, two, k)
            else:
                best_a, best_b = running_best(one)[k - 1], running_best(two)[k - 1]
                share = Ahead(float(best_a < best_b), float(best_b < best_a))
            rows.append({"a": a, "b": b, "k": k, "best_a": means[a, k], "best_b": means[b, k]} | _shares(share))
    return pd.DataFrame(rows, columns=["a", "b", "k", "best_a", "best_b", "share_a", "share_b"])


def _shares(share: Ahead) -> dict[str, float]:
    return {"share_a": share.a, "share_b": share.b}


def _budgets(budget: int) -> list[int]:
    """Return the budgets that curves have points at: all, or as many, closer together where they are small."""
    if budget <= BUDGETS:
        return list(range(1, budget + 1))
    return sorted({round(k) for k in np.geomspace(1, budget, BUDGETS)})


# --- words

UNSEEN = "That search is not in this store, so neither its choice nor other budgets can be checked."


def tuning_words(tune: TuneSpec, chosen: Mapping[str, Values], seen: bool = True) -> str:
    """Return in one sentence how arms were tuned and what was chosen, or said to be where the search was not seen."""
    how = "at random" if tune.sampler == "random" else "by a tree-structured Parzen estimator"
    seeds = tune.seeds if isinstance(tune.seeds, int) else len(tune.seeds)
    tried = f"{plural(tune.budget, 'trial' if seeds == 1 else 'setting')} per arm"
    if seeds > 1:
        tried += f" at {plural(seeds, 'seed')} each"
    values = [f"{key} {join([f'{shown(own[key])} ({arm})' for arm, own in chosen.items()])}" for key in tune.space]
    return (
        f"{'Tuned' if seen else 'Tuned elsewhere, according to the study'}: {tried}, drawn {how}; chosen by validation"
        f" error before the contrasts, with seeds other than theirs: {join(values, mark=';')}."
    )


def tuning_sentences(tuning: Tuning) -> tuple[str, ...]:
    """Return how arms were tuned, and what to know of it: divergence, values near an end, the role of the budget."""
    first = tuning_words(tuning.spec, tuning.chosen, tuning.seen)
    if not tuning.seen:
        return first, UNSEEN
    tune = tuning.spec
    return (first, *_diverged(tuning.tried, tune), *_at_the_edge(tune, tuning.chosen), *_led(tune, tuning.leads))


def _diverged(tried: pd.DataFrame, tune: TuneSpec) -> Iterator[str]:
    counts = tried[tried["state"].eq("diverged")].groupby("arm", sort=False)["number"].count()
    if len(counts):
        lost = join([f"{count} of {tune.budget} of {arm}" for arm, count in counts.items()])
        yield f"Settings that diverged count as {WORST:g}% error: {lost}."


def _at_the_edge(tune: TuneSpec, chosen: Mapping[str, Values]) -> Iterator[str]:
    near = []
    for key, space in tune.space.items():
        if isinstance(space, ChoiceSpace):
            continue
        low, high = (float(end) for end in edges(space))
        scale = np.log if isinstance(space, LogSpace) else np.asarray
        for arm, values in chosen.items():
            place = float((scale(float(values[key])) - scale(low)) / (scale(high) - scale(low)))
            if min(place, 1 - place) <= NEAR:
                near.append(f"{key} {shown(values[key])} ({arm}) at the {'lower' if place < 0.5 else 'upper'} end")
    if near:
        yield f"Chosen near an end of the search space, beyond which there may be better values: {join(near)}."


def _led(tune: TuneSpec, leads: pd.DataFrame) -> Iterator[str]:
    which = "lower best validation error" if tune.sampler == "tpe" else "lower expected best validation error"
    for (a, b), own in leads.groupby(["a", "b"], sort=False):
        stretches: list[tuple[str, int, int]] = []
        for k, best_a, best_b in zip(own["k"], own["best_a"], own["best_b"], strict=True):
            leader = "neither" if abs(best_a - best_b) < TIE else str(a if best_a < best_b else b)
            if stretches and stretches[-1][0] == leader:
                stretches[-1] = (leader, stretches[-1][1], k)
            else:
                stretches.append((leader, k, k))
        if len(stretches) == 1 and stretches[0][0] != "neither":
            leader, other = stretches[0][0], b if stretches[0][0] == a else a
            where = "a budget of 1 trial" if tune.budget == 1 else f"every budget from 1 to {tune.budget} trials"
            yield f"{leader} has a {which} than {other} at {where}."
        elif len(stretches) == 1:
            yield f"{a} and {b} have the same best validation error at every budget."
        else:
            leaders = join([f"{leader} {_from_to(first, last)}" for leader, first, last in stretches])
            yield f"Which of {a} and {b} has the {which} depends on the budget: {leaders} trials."


def _from_to(first: int, last: int) -> str:
    return f"at {first}" if first == last else f"at {first} to {last}"
