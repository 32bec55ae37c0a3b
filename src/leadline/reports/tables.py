"""The tables of a study: its arms, contrasts and trials, its numbers beside published ones."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from leadline.charts.chart import Figure, each, spread
from leadline.charts.frames import contrast_labels
from leadline.study.expand import ExpandedStudy
from leadline.tables import NOTHING, Column, Table, is_missing
from leadline.verdict import ArmFinding, ContrastFinding, Findings
from leadline.verdict.lookwords import interval_name
from leadline.verdict.metrics import ERRORS, KINDS
from leadline.verdict.words import CORRECTION_NAMES

METRICS = {metric: KINDS[metric].words for metric in ERRORS}


def tables(study: ExpandedStudy, findings: Findings, trials: pd.DataFrame, records: pd.DataFrame) -> tuple[Table, ...]:
    """Return a study's tables: arms, contrasts, mcnemar, published, trials."""
    return (
        arms_table(findings.arms),
        contrasts_table(findings.contrasts, findings.correction),
        mcnemar_table(findings.contrasts),
        published_table(study, findings.arms),
        trials_table(trials, records),
    )


def arms_table(arms: Iterable[ArmFinding]) -> Table:
    """Return one row per arm: how its trials ended, its errors, its speed."""
    rows, arms = [], tuple(arms)
    others = [metric for metric in KINDS if metric not in METRICS and any(metric in arm.metrics for arm in arms)]
    for arm in arms:
        row: dict[str, Any] = {"arm": arm.name, "planned": arm.planned, "finished": arm.finished}
        row |= {"diverged": arm.diverged, "failed": arm.failed}
        for metric in (*METRICS, *others):
            row |= _summary(metric, arm.metrics.get(metric))
        row |= _summary("convergence_epoch", arm.convergence_epoch) | _summary("seconds", arm.seconds)
        rows.append(row)
    columns = (
        Column("Arm", ("arm",), _text, numeric=False),
        Column("Finished", ("finished", "planned"), "{} of {}".format),
        Column("Diverged", ("diverged",), _text),
        Column("Failed", ("failed",), _text),
        Column("Test error, %", ("test_error_mean", "test_error_sd"), _mean_sd),
        Column("median", ("test_error_median",), _number(2)),
        Column("least to greatest", ("test_error_minimum", "test_error_maximum"), _interval),
        Column("Validation error, %", ("validation_error_mean", "validation_error_sd"), _mean_sd),
        Column("Training error, %", ("train_error_mean", "train_error_sd"), _mean_sd),
        *(Column(_titled(metric), (f"{metric}_mean", f"{metric}_sd"), _mean_sd) for metric in others),
        Column("Epoch of convergence", ("convergence_epoch_mean",), _number(1)),
        Column("Seconds per trial", ("seconds_mean",), _number(1)),
    )
    return Table("arms", "Arms: mean ± standard deviation over finished trials", columns, tuple(rows))


def _titled(metric: str) -> str:
    kind = KINDS[metric]
    return f"{kind.words[0].upper()}{kind.words[1:]}, {kind.unit.strip()}"


def contrasts_table(contrasts: tuple[ContrastFinding, ...], correction: str = "holm") -> Table:
    """Return one row per contrast; differences in percentage points, or in a column that names their units."""
    if any(contrast.looks for contrast in contrasts):
        return looks_table(contrasts)
    rows = []
    mixed = any(KINDS[contrast.metric].of_difference != "points" for contrast in contrasts)
    difference = Column("Difference, points", ("difference",), _number(2, signed=True))
    if mixed:
        difference = Column("Difference", ("difference", "unit", "target"), _with_unit)
    for contrast, label in zip(contrasts, contrast_labels(contrasts), strict=True):
        paired = contrast.paired
        low, high = (paired and paired.ci95) or (None, None)
        bca_low, bca_high = (paired and paired.bca95) or (None, None)
        rows.append(
            {
                "contrast": label,
                "a": contrast.a,
                "b": contrast.b,
                "metric": contrast.metric,
                "verdict": contrast.decision,
                "pairs": paired.n if paired else 0,
                "difference": paired and paired.difference,
                "unit": KINDS[contrast.metric].of_difference,
                "target": contrast.target,
                "ci95_low": low,
                "ci95_high": high,
                "bca95_low": bca_low,
                "bca95_high": bca_high,
                "t_p": paired and paired.t_p,
                "t_p_adjusted": contrast.t_p_adjusted,
                "p": paired and paired.p,
                "p_smallest": paired and paired.p_smallest,
                "p_adjusted": contrast.p_adjusted,
                "effect_size": paired and paired.effect_size,
                "seeds_to_decide": paired and paired.seeds_to_decide,
            }
        )
    columns = (
        Column("Contrast", ("contrast", "a", "b", "metric"), lambda label, *_: str(label), numeric=False),
        Column("Verdict", ("verdict",), _text, numeric=False),
        Column("Pairs", ("pairs",), _text),
        difference,
        Column("95% interval, paired t", ("ci95_low", "ci95_high"), _fine if mixed else _interval),
        Column("95% interval, BCa", ("bca95_low", "bca95_high"), _fine if mixed else _interval),
        Column("p, paired t", ("t_p",), _p),
        Column(CORRECTION_NAMES[correction], ("t_p_adjusted",), _p),
        Column("p, exact (least possible)", ("p", "p_smallest"), _p_with_least),
        Column(CORRECTION_NAMES[correction], ("p_adjusted",), _p),
        Column("Effect size d", ("effect_size",), _number(2, signed=True)),
        Column("Seeds for 80% power", ("seeds_to_decide",), _text),
    )
    of = "" if mixed else " in error"
    return Table("contrasts", f"Contrasts: difference{of}, first arm minus second", columns, tuple(rows))


def looks_table(contrasts: tuple[ContrastFinding, ...]) -> Table:
    """Return one row per contrast of a study that adds seeds until it has decided: what it took, and what it shows."""
    rows = []
    for contrast, label in zip(contrasts, contrast_labels(contrasts), strict=True):
        paired, looks = contrast.paired, contrast.looks
        if looks is None:
            continue
        bounded = math.isfinite(looks.high - looks.low)
        rows.append(
            {
                "contrast": label,
                "a": contrast.a,
                "b": contrast.b,
                "metric": contrast.metric,
                "verdict": contrast.decision,
                "seeds": looks.seeds,
                "most": looks.most,
                "looks": looks.taken,
                "pairs": paired.n if paired else 0,
                "difference": paired and paired.difference,
                "unit": KINDS[contrast.metric].of_difference,
                "low": looks.low if bounded else None,
                "high": looks.high if bounded else None,
                "confidence": looks.confidence,
                "confidence_of_each": looks.of_each,
                "effect_size": paired and paired.effect_size,
            }
        )
    columns = (
        Column("Contrast", ("contrast", "a", "b", "metric"), lambda label, *_: str(label), numeric=False),
        Column("Verdict", ("verdict",), _text, numeric=False),
        Column("Seeds of at most", ("seeds", "most"), "{} of {}".format),
        Column("Looks", ("looks",), _text),
        Column("Pairs", ("pairs",), _text),
        Column("Difference", ("difference", "unit"), lambda value, unit: _with_unit(value, unit, None)),
        Column(
            interval_name(contrasts),
            ("low", "high", "confidence", "confidence_of_each"),
            lambda low, high, *_: _interval(low, high),
        ),
        Column("Effect size d", ("effect_size",), _number(2, signed=True)),
    )
    return Table("contrasts", "Contrasts: difference, first arm minus second, and seeds", columns, tuple(rows))


def mcnemar_table(contrasts: tuple[ContrastFinding, ...]) -> Table:
    """Return one row per contrast and seed: test images that only one of the two networks classifies correctly."""
    rows = [
        {"a": contrast.a, "b": contrast.b, "seed": test.seed, "a_only": test.a_only, "b_only": test.b_only, "p": test.p}
        for contrast in contrasts
        for test in contrast.mcnemar
    ]
    columns = (
        Column("First arm", ("a",), _text, numeric=False),
        Column("Second arm", ("b",), _text, numeric=False),
        Column("Seed", ("seed",), _text),
        Column("Right: first only", ("a_only",), _text),
        Column("Right: second only", ("b_only",), _text),
        Column("p", ("p",), _p),
    )
    return Table("mcnemar", "McNemar's exact test on the test images, seed by seed", columns, tuple(rows))


def published_table(study: ExpandedStudy, arms: tuple[ArmFinding, ...]) -> Table:
    """Return one row per published number and arm that it is about: published beside measured, per cent."""
    rows = []
    for published in study.published:
        for arm in arms:
            if published.arm in (arm.name, arm.base):
                measured = arm.metrics.get(published.metric)
                row = {"arm": arm.name, "metric": METRICS[published.metric], "published": published.value}
                row |= _summary("measured", measured) | {"source": published.source}
                row["measured_n"] = measured.n if measured else 0
                row["difference"] = measured.mean - published.value if measured else None
                rows.append(row)
    columns = (
        Column("Arm", ("arm",), _text, numeric=False),
        Column("Quantity", ("metric",), _text, numeric=False),
        Column("Published, %", ("published",), _number(2)),
        Column("Measured, %", ("measured_mean", "measured_sd"), _mean_sd),
        Column("Trials", ("measured_n",), _text),
        Column("Measured − published, points", ("difference",), _number(2, signed=True)),
        Column("Source", ("source",), _text, numeric=False),
    )
    return Table("published", "Published and measured", columns, tuple(rows))


def trials_table(trials: pd.DataFrame, records: pd.DataFrame) -> Table:
    """Return one row per trial: its state and its final errors in per cent."""
    finals = records[records["name"].eq("error")].set_index(["trial", "split"])["value"].to_dict()
    rows = [
        {
            "arm": trial.arm,
            "seed": trial.seed,
            "state": trial.state,
            "diverged_step": None if pd.isna(trial.diverged_step) else int(trial.diverged_step),
            "seconds": trial.seconds,
            "test_error": finals.get((trial.trial, "final-test")),
            "validation_error": finals.get((trial.trial, "final-validation")),
            "train_error": finals.get((trial.trial, "final-train")),
            "error": trial.error.partition("\n")[0] if isinstance(trial.error, str) else None,
            "trial": trial.trial,
        }
        for trial in each(trials)
    ]
    columns = (
        Column("Arm", ("arm",), _text, numeric=False),
        Column("Seed", ("seed",), _text),
        Column("State", ("state",), _text, numeric=False),
        Column("Diverged at step", ("diverged_step",), _text),
        Column("Seconds", ("seconds",), _number(1)),
        Column("Test error, %", ("test_error",), _number(2)),
        Column("Validation error, %", ("validation_error",), _number(2)),
        Column("Training error, %", ("train_error",), _number(2)),
        Column("Message", ("error",), _text, numeric=False),
        Column("Trial", ("trial",), lambda name: str(name)[:12], numeric=False),
    )
    return Table("trials", "Trials", columns, tuple(rows))


def unfinished(table: Table) -> Table:
    """Return the trials of a trials table that diverged, failed or have not finished."""
    kept = tuple(row for row in table.rows if row["state"] != "finished")
    columns = tuple(column for column in table.columns if not column.title.endswith("error, %"))
    return Table("unfinished", "Trials that have not finished", columns, kept)


def curve_table(figure: Figure, epochs: int = 6) -> Table:
    """Return a learning curve in numbers: each arm's mean at a few epochs, the first and the last among them."""
    every = sorted(figure.data["epoch"].unique())
    shown = [int(epoch) for epoch in spread(every, epochs)]
    rows = []
    for (arm, split), part in figure.data.groupby(["arm", "split"], sort=False):
        means = dict(zip(part["epoch"], part["mean"], strict=True))
        rows.append({"arm": arm, "split": split, **{str(epoch): means.get(epoch) for epoch in shown}})
    columns = (
        Column("Arm", ("arm",), _text, numeric=False),
        Column("Split", ("split",), _text, numeric=False),
        *(Column(f"Epoch {epoch}", (str(epoch),), _number(3)) for epoch in shown),
    )
    return Table(figure.name, f"{figure.title}: mean over the finished trials", columns, tuple(rows))


def _summary(key: str, summary: Any) -> dict[str, Any]:
    fields = ("mean", "sd", "median", "minimum", "maximum")
    return {f"{key}_{field}": getattr(summary, field) if summary else None for field in fields}


# --- how values are shown


def _text(value: object) -> str:
    return NOTHING if is_missing(value) else str(value)


def _number(digits: int, signed: bool = False) -> Callable[[float | None], str]:
    def show(value: float | None) -> str:
        if value is None or math.isnan(value):
            return NOTHING
        rounded = round(value, digits) + 0.0  # no zero below zero
        return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")

    return show


def _with_unit(difference: float | None, unit: str, _target: float | None) -> str:
    shown = _number(3 if unit == "nats" else 2, signed=True)(difference)
    return shown if shown == NOTHING else f"{shown} {unit}"


def _mean_sd(mean: float | None, sd: float | None) -> str:
    return _number(2)(mean) + ("" if is_missing(sd) else f" ± {_number(2)(sd)}")


def _interval(low: float | None, high: float | None) -> str:
    return NOTHING if is_missing(low) else f"{_number(2)(low)} to {_number(2)(high)}"


def _fine(low: float | None, high: float | None) -> str:
    if low is None or high is None or max(-low, high) >= 0.5:
        return _interval(low, high)
    return f"{_number(3)(low)} to {_number(3)(high)}"


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _number(3)(value)


def _p_with_least(p: float | None, least: float | None) -> str:
    return _p(p) if least is None else f"{_p(p)} ({_p(least)})"
