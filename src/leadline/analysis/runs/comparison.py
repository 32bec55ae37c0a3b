"""From a table of runs to its verdict: the design of the comparison and the frames that `analyze` takes."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np
import pandas as pd

from leadline.analysis.runs.columns import Columns, describe, higher_is_better, in_words, is_share, says_per_cent
from leadline.analysis.runs.examples import ExampleDifferences, compare_examples, explain_difference, pair_outputs
from leadline.analysis.runs.predictions import ERROR, Predictions, computed_metrics
from leadline.analysis.runs.runs import Runs, levels_of, read_rows
from leadline.analysis.verdict import Contrast, Design, DesignArm, Findings, analyze
from leadline.errors import DataError, unknown
from leadline.parts.base import canonical_json
from leadline.parts.metrics import FinalMetric, Metric, Outputs, metrics
from leadline.seeds import call_seed
from leadline.specs.contrast import Correction
from leadline.specs.decide import MOST, DecideSpec
from leadline.text import join, plural

MOST_ARMS_IN_PAIRS = 4
"""Arms up to which every pair is compared where nothing is said; with more, each with the first."""

UNIT_GAP = 10.0
"""Shares above 1 that are so many times those of at most 1 may be in per cent beside fractions."""

FINAL, BY_EPOCH = "final", "epoch"
"""Splits of records: of the whole run, and of each epoch."""


Key = tuple[object, ...]
"""What two runs of a pair share, such as their seed."""

Place = tuple[str, tuple[object, ...]]
"""The base name of an arm and its level."""


@dataclass(frozen=True)
class Options:
    """How the runs of a table are compared."""

    contrasts: tuple[tuple[str, str], ...] = ()
    baseline: str | None = None  # with which every other arm is compared
    margin: float | Mapping[str, float] | None = None  # of equivalence, in the values' unit; by value if several
    higher_is_better: bool | None = None  # None: as the name of the values says; of several, where names do not say
    unit: str | None = None  # of the values; % makes differences percentage points
    resolution: float | None = None  # the step in which values move, such as 0.01 per cent of 10,000 test images
    correction: Correction = "holm"
    decide: int | None = None  # seeds that there may be in all, where more are added until contrasts are decided
    unpaired: bool = False
    mean_of_duplicates: bool = False
    title: str = ""


@dataclass(frozen=True)
class Compared:
    """The comparison of a table's runs."""

    design: Design
    findings: Findings
    trials: pd.DataFrame  # a row per run, as of a study
    records: pd.DataFrame  # a row per value, as of a study
    reading: tuple[str, ...]  # how the table was read, in sentences
    columns: Columns
    options: Options
    rows: pd.DataFrame  # the runs that were compared, under the names of the table's columns
    predictions: Predictions | None = None
    computed: frozenset[str] = frozenset()  # values that follow from predictions
    examples: tuple[ExampleDifferences, ...] = ()  # of each contrast whose pairs left predictions


def compare_runs(
    table: pd.DataFrame,
    columns: Columns,
    options: Options,
    name: str = "runs",
    said: Sequence[str] = (),
    predictions: Predictions | None = None,
    moments: bool = False,
) -> Compared:
    """Return what the runs of a table show.

    Args:
        table: a row per run, or per run and epoch.
        columns: which column is what.
        options: how they are compared.
        name: of the comparison.
        said: what is known of how the table came about, in sentences.
        moments: whether the rows stand for runs of which only mean and standard deviation are known.
        predictions: of the runs, by which their test error is computed where the table lacks it.

    Raises:
        DataError: the table does not have what the comparison needs.
    """
    predicted: Sequence[Outputs | None] = ()
    computed: frozenset[str] = frozenset()
    if predictions is not None:
        if options.mean_of_duplicates:
            raise DataError("--mean-of-duplicates: predictions cannot be averaged")
        predicted = predictions.match(table, columns)
        computed = frozenset(columns.values) & computed_metrics().keys() - set(table.columns)
        table = table.assign(**{one: _of_rows(predictions, predicted, one) for one in computed})
    runs = read_rows(table, columns, options.mean_of_duplicates)
    kinds = {one: _metric(one, runs, options, len(columns.values) == 1, one in computed) for one in columns.values}
    guessed = () if options.unit else (one for one in columns.values if one not in computed)
    units = [said for one in guessed for said in _describe_units(one, runs)]
    margins = check_margins(options.margin, columns.values)
    arms = _arms(runs, columns)
    bases = list(dict.fromkeys(arm.base for arm in arms.values()))
    if len(bases) < 2:
        raise DataError(f"column {columns.arm!r} has one arm, {bases[0]!r}; a comparison needs two")
    pairs, how = choose_pairs(bases, options)
    seeds = _seeds(runs, columns)
    contrasts, notes = [], [*runs.said]
    keys = _keys_of(runs, arms)
    for a, b in pairs:
        notes += _levels_of_one(arms, keys, a, b)
        for side_a, side_b in _at_each_level(arms, a, b):
            unpaired, words = _pairing(keys, columns, side_a, side_b, options)
            notes += words
            contrasts += [
                Contrast(side_a, side_b, kinds[one], margin=margins.get(one), unpaired=unpaired)
                for one in columns.values
            ]
    if not contrasts:
        raise DataError("the arms have no level in common at which they could be compared")
    decide = None
    if options.decide is not None:
        decide = _decide(options.decide, len(seeds), [one for one in contrasts if one.unpaired])
    reading = (
        *said,
        *describe(columns),
        *(describe_metric(one) for one in kinds.values()),
        *units,
        f"Compared: {how}.",
        *dict.fromkeys(notes),
    )
    design = Design(
        name=name,
        title=options.title,
        arms=tuple(arms.values()),
        contrasts=tuple(contrasts),
        metrics=kinds,
        metric=columns.values[0],
        seeds=tuple(seeds.values()),
        correction=options.correction,
        decide=decide,
        shared_over=options.decide or 0,
        summarised=columns.values,
        names_data=(columns.data_set,) if columns.data_set else (),
        trained=False,
        moments=moments,
        remarks=tuple(_remarks(columns)),
    )
    trials, records = _frames(runs, columns, arms, seeds)
    outputs = _outputs(runs, trials, predicted, design)
    if predictions is not None and ERROR in columns.values:
        _check_error(runs, kinds[ERROR], trials, outputs)
    findings = analyze(design, trials, records, outputs.items())
    examples = compare_examples(design, trials, outputs, predictions.classes) if predictions else ()
    rows = _rows(runs, columns)
    return Compared(design, findings, trials, records, reading, columns, options, rows, predictions, computed, examples)


# --- metrics


def _metric(name: str, runs: Runs, options: Options, alone: bool, computed: bool) -> FinalMetric:
    """Return what is known of a column of values, which may have been `computed` from predictions.

    What is said of the direction decides over the name of values that are compared `alone`; of several, it is of those
    whose names do not say.

    Raises:
        DataError: its name does not say whether higher is better, and nothing else does.
    """
    if computed:
        return replace(computed_metrics()[name], record=(FINAL, name))
    higher, given = higher_is_better(name), options.higher_is_better
    if higher is None or (given is not None and alone):
        higher = given
    if higher is None:
        raise DataError(
            f"is a higher {name} better? its name does not say; give --higher-is-better or --lower-is-better"
        )
    values = runs.frame[f"value:{name}"].dropna()
    unit = options.unit
    if unit is None:
        per_cent = says_per_cent(name) or (is_share(name) and len(values) > 0 and 1 < values.max() <= 100)
        unit = "%" if per_cent and values.min() >= 0 else ""
    most = 100.0 if unit == "%" else 1.0
    bounded = is_share(name) and unit in ("%", "") and values.between(0, most).all()
    known = metrics().get(name)
    step = options.resolution
    return FinalMetric(
        name,
        known.wording if known else in_words(name, unit == "%"),
        unit="%" if unit == "%" else f" {unit}".rstrip(),
        difference_unit="points" if unit == "%" else unit,
        higher_is_better=higher,
        record=(FINAL, name),
        resolution=None if step is None else lambda counts: step,
        bounds=(0.0, most) if bounded else None,
    )


def _describe_units(name: str, runs: Runs) -> Iterator[str]:
    """Yield that some arms may be told in fractions and others in per cent, where that is not known.

    Raises:
        DataError: values of one arm are of both kinds.
    """
    frame = runs.frame[["arm", f"value:{name}"]].rename(columns={f"value:{name}": "value"}).dropna()
    frame = frame[frame["value"].gt(0) & frame["value"].le(100)]
    small, large = frame[frame["value"].le(1)], frame[frame["value"].gt(1)]
    if says_per_cent(name) or not is_share(name) or small.empty or large.empty:
        return
    if large["value"].min() < UNIT_GAP * small["value"].max():
        return
    shown = f"{small['value'].iloc[0]:g} of {small['arm'].iloc[0]} and {large['value'].iloc[0]:g} of"
    shown += f" {large['arm'].iloc[0]}"
    if both := [str(arm) for arm in small["arm"].unique() if arm in set(large["arm"])]:
        raise DataError(
            f"column {name!r} seems to have fractions beside per cent: {join(both)} has values of at most 1 and others"
            f" above {large['value'].min():.3g}; write all in one unit, or give --unit % if all are in per cent"
        )
    yield f"{name}: all values are taken to be in per cent, such as {shown}; if some are fractions, use one unit."


def describe_metric(one: Metric) -> str:
    """Return the direction and the unit of a metric, in a sentence."""
    direction = "higher" if one.higher_is_better else "lower"
    unit = "no unit, so that differences are in the same numbers" if not one.unit else f"values in {one.unit.strip()}"
    if one.unit == "%":
        unit = "values in %, differences in percentage points"
    return f"{one.name}: {direction} is better; {unit}."


def check_margins(margin: float | Mapping[str, float] | None, values: Sequence[str]) -> dict[str, float]:
    """Return the margin of each metric that has one.

    Raises:
        DataError: it is not above 0, or of no metric, or of several that may differ in unit.
    """
    if margin is None:
        return {}
    if not isinstance(margin, Mapping):
        if len(values) > 1:
            raise DataError(f"--margin {margin:g}: of which values? write it as {values[0]}={margin:g}")
        margin = {values[0]: margin}
    for name, value in margin.items():
        if name not in values:
            raise DataError(f"--margin: {unknown('value', name, values)}")
        if not value > 0:
            raise DataError(f"--margin {value:g}: expected a number above 0, in the unit of {name}")
    return dict(margin)


# --- arms, contrasts, pairs


def _arms(runs: Runs, columns: Columns) -> dict[Place, DesignArm]:
    """Return base and level -> arm, in the order of the table, arm by arm."""
    names = list(levels_of(columns))
    several = bool(columns.data_set) and runs.frame["level"].str[0].nunique() > 1
    found = {}
    distinct = runs.frame[["arm", "level"]].drop_duplicates()
    for base in distinct["arm"].unique():
        for level in distinct.loc[distinct["arm"] == base, "level"]:
            factors = {name: _plain(value) for name, value in zip(names, level, strict=True)}
            data = str(factors[columns.data_set]) if columns.data_set else ""
            others = {name: value for name, value in factors.items() if name != columns.data_set}
            shown = factors if several or not columns.data_set else others
            inside = ",".join(f"{name}={value}" for name, value in shown.items())
            name = f"{base}[{inside}]" if inside else str(base)
            found[str(base), level] = DesignArm(name, str(base), shown, data, canonical_json([str(base), others]))
    return found


def _plain(value: object) -> bool | int | float | str:
    item = getattr(value, "item", None)
    plain = item() if item is not None else value
    return plain if isinstance(plain, bool | int | float) else str(plain)


def choose_pairs(bases: Sequence[str], options: Options) -> tuple[list[tuple[str, str]], str]:
    """Return the arms to compare, first against second, and that in words.

    Raises:
        DataError: an arm is unknown, or compared with itself.
    """
    for option, names in (
        ("--baseline", [options.baseline] if options.baseline is not None else []),
        ("--contrast", itertools.chain.from_iterable(options.contrasts)),
    ):
        for name in names:
            if name not in bases:
                raise DataError(f"{option}: {unknown('arm', name, bases)}")
    if options.contrasts:
        for a, b in options.contrasts:
            if a == b:
                raise DataError(f"--contrast: arm {a!r} is compared with itself; name two different arms")
        return list(options.contrasts), join([f"{a} against {b}" for a, b in options.contrasts])
    if options.baseline is not None:
        chosen = options.baseline
        return [(one, chosen) for one in bases if one != chosen], f"every arm against {chosen}"
    if len(bases) == 2:
        return [(bases[1], bases[0])], f"{bases[1]} against {bases[0]}"
    if len(bases) <= MOST_ARMS_IN_PAIRS:
        return [(a, b) for b, a in itertools.combinations(bases, 2)], f"every pair of the {len(bases)} arms"
    return [(one, bases[0]) for one in bases[1:]], (
        f"every arm against {bases[0]}, the first of {len(bases)} in the table; --baseline or --contrast choose others"
    )


def _at_each_level(arms: Mapping[Place, DesignArm], a: str, b: str) -> Iterator[tuple[str, str]]:
    for (base, level), arm in arms.items():
        if base == a and (b, level) in arms:
            yield arm.name, arms[b, level].name


def _levels_of_one(
    arms: Mapping[Place, DesignArm], keys_of: Mapping[str, Sequence[Key]], a: str, b: str
) -> Iterator[str]:
    """Yield what is left out because only one of two arms has the level."""
    for base, other in ((a, b), (b, a)):
        alone = [arm for (own, level), arm in arms.items() if own == base and (other, level) not in arms]
        if alone:
            runs = sum(len(keys_of[arm.name]) for arm in alone)
            yield (
                f"Left out of {a} against {b}: {plural(runs, 'run')} of {join([arm.name for arm in alone])}, of which"
                f" {other} has none."
            )


def _keys_of(runs: Runs, arms: Mapping[Place, DesignArm]) -> dict[str, list[Key]]:
    """Return arm -> what names the pairs of its runs."""
    found: dict[str, list[Key]] = {arm.name: [] for arm in arms.values()}
    for base, level, key in zip(runs.frame["arm"], runs.frame["level"], runs.frame["pair"], strict=True):
        found[arms[base, level].name].append(key)
    return found


def _pairing(
    keys_of: Mapping[str, Sequence[Key]], columns: Columns, a: str, b: str, options: Options
) -> tuple[bool, list[str]]:
    """Return whether two arms are compared without pairs, and what is said of it.

    Pairs are taken where at least half of the seeds of either arm are of both, and two of them at least.
    """
    if options.unpaired or not columns.pair:
        why = "as asked for" if options.unpaired else "no column says which runs belong together"
        return True, [f"Runs are not paired: {why}."]
    by = " and ".join(columns.pair)
    found = match_keys(keys_of[a], keys_of[b])
    if found.whole:
        return False, []
    shown = found.describe(a, b, by)
    if options.decide is not None:
        raise DataError(f"--decide needs both arms at every {by}: {shown}; a run that failed is a row without a value")
    if found.enough:
        return False, [
            f"{a} and {b} are paired at the {plural(found.shared, by)} that both have; left out: {shown}. A run that"
            " failed must be a row without a value to count."
        ]
    return True, [f"{a} and {b} are not paired, since most runs have no partner: {shown}."]


@dataclass(frozen=True)
class Match:
    """What the runs of two arms have in common."""

    shared: int  # keys of both
    alone: tuple[Sequence[Key], Sequence[Key]]  # keys of either arm that the other lacks

    @property
    def whole(self) -> bool:
        """Whether every run has a partner."""
        return not any(self.alone)

    @property
    def enough(self) -> bool:
        """Whether the keys in common are two at least, and half of those of either arm."""
        return self.shared >= 2 and self.shared >= max(map(len, self.alone))

    def describe(self, a: str, b: str, by: str) -> str:
        """Return which keys, called `by`, the arms of these names have alone."""
        lonely = [(name, keys) for name, keys in zip((a, b), self.alone, strict=True) if keys]
        texts = [(name, join(["/".join(map(str, key)) for key in keys])) for name, keys in lonely]
        return join([f"{name} alone has {by} {text}" for name, text in texts], mark=";")


def match_keys(a: Sequence[Key], b: Sequence[Key]) -> Match:
    """Return what the runs of two arms have in common, by what names the pair of each."""
    both = set(a) & set(b)
    return Match(len(both), ([key for key in a if key not in both], [key for key in b if key not in both]))


def _seeds(runs: Runs, columns: Columns) -> dict[Key, int]:
    """Return pair -> its number: the seed itself where it is one, else its place in the table."""
    distinct = list(dict.fromkeys(runs.frame["pair"]))
    if not columns.pair:
        return {}
    whole = len(columns.pair) == 1 and all(isinstance(_plain(key[0]), int) for key in distinct)
    return {key: int(_plain(key[0])) if whole else place for place, key in enumerate(distinct)}


def _decide(most: int, seeds: int, unpaired: Sequence[Contrast]) -> DecideSpec:
    if unpaired:
        raise DataError("--decide needs pairs: no interval of separate samples is known that holds at every look")
    if not max(2, seeds) <= most <= MOST:
        raise DataError(f"--decide {most}: expected the seeds that there may be in all, {max(2, seeds)} to {MOST}")
    return DecideSpec(max_seeds=most, first=2, step=1)


def _remarks(columns: Columns) -> Iterator[str]:
    yield (
        "The runs were made elsewhere: whether the arms were tuned alike and trained on the same data, and whether test"
        " data were used for choices, is not known here."
    )
    if columns.pair and columns.pair != ("seed",):
        yield f"Pairs are by {' and '.join(columns.pair)}, each of which is called a seed here."


# --- frames


def _frames(
    runs: Runs,
    columns: Columns,
    arms: Mapping[Place, DesignArm],
    seeds: Mapping[Key, int],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trials and records as a study has them."""
    frame = runs.frame
    own = [arms[base, level] for base, level in zip(frame["arm"], frame["level"], strict=True)]
    trials = pd.DataFrame({"trial": [f"run-{number}" for number in range(1, len(frame) + 1)]})
    trials["arm"] = [arm.name for arm in own]
    trials["base"] = [arm.base for arm in own]
    trials["factors"] = pd.Series([dict(arm.factors) for arm in own], dtype=object)
    trials["seed"] = [seeds[pair] for pair in frame["pair"]] if seeds else trials.groupby("arm").cumcount()
    trials["state"] = frame["failed"].map({True: "diverged", False: "finished"}).to_numpy()
    shared = trials[["trial", "arm", "base", "seed"]].assign(step=0)
    parts = [
        shared.assign(epoch=0, split=FINAL, name=one, value=frame[f"value:{one}"].to_numpy()) for one in columns.values
    ]
    if not runs.curves.empty:
        at = runs.curves["run"].to_numpy()
        rows = shared.iloc[at].reset_index(drop=True)
        by_epoch = runs.curves.reset_index(drop=True)
        parts.append(
            rows.assign(epoch=by_epoch["epoch"], split=BY_EPOCH, name=by_epoch["metric"], value=by_epoch["value"])
        )
    records = pd.concat(parts, ignore_index=True)
    return trials, records[records["value"].notna()].reset_index(drop=True)


# --- predictions


def _of_rows(predictions: Predictions, predicted: Sequence[Outputs | None], name: str) -> list[float]:
    """Return a metric for each row of the table whose runs predicted that; NaN of runs that failed."""
    values = {id(one): value for one, value in zip(predictions.outputs, predictions.values(name), strict=True)}
    return [math.nan if one is None else values[id(one)] for one in predicted]


def _outputs(
    runs: Runs, trials: pd.DataFrame, predicted: Sequence[Outputs | None], design: Design
) -> dict[str, Outputs]:
    """Return trial -> what it predicted.

    Raises:
        DataError: two runs of a pair were not given the same examples.
    """
    if not predicted:
        return {}
    of_rows = (predicted[int(row) - 1] for row in runs.frame["row"])
    found = {trial: one for trial, one in zip(trials["trial"], of_rows, strict=True) if one is not None}
    for a, b, seed, one, other in pair_outputs(design, trials, found):
        if why := explain_difference(one, other):
            raise DataError(
                f"--predictions: {a} and {b} did not predict the same examples at {call_seed(seed)}: {why}; runs of a"
                " pair need the same, or --unpaired"
            )
    return found


def _check_error(runs: Runs, kind: FinalMetric, trials: pd.DataFrame, outputs: Mapping[str, Outputs]) -> None:
    """Check that the test errors of a table are those of the predictions.

    Raises:
        DataError: one is not, beyond rounding.
    """
    most = 100.0 if kind.unit == "%" else 1.0
    rows = zip(trials[["arm", "seed", "trial"]].itertuples(index=False), runs.frame[f"value:{ERROR}"], strict=True)
    for (arm, seed, trial), value in rows:
        if (one := outputs.get(trial)) is not None:
            error = most * float(np.mean(one.predicted != one.labels))
            if abs(error - value) > most / 1000:
                raise DataError(
                    f"--predictions: {ERROR} of {arm} at {call_seed(seed)} is {value:g} in the table and {error:g} by"
                    " its predictions; are they of the same run and the same test set?"
                )


def _rows(runs: Runs, columns: Columns) -> pd.DataFrame:
    """Return the runs as a table from which the same comparison follows; of those that failed, no values."""
    frame = runs.frame
    found = {columns.arm: frame["arm"]}
    for names, kept in ((list(levels_of(columns)), "level"), (columns.pair, "pair")):
        found |= {name: frame[kept].map(itemgetter(place)) for place, name in enumerate(names)}
    found |= {name: frame[f"value:{name}"].mask(frame["failed"]) for name in columns.values}
    return pd.DataFrame(found)
