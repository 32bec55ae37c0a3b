"""Tables of what a study's contrasts depend on: times to a target, factors, data sets."""

from typing import Any

from leadline.charts.frames import contrast_labels
from leadline.tables import NOTHING, Column, Table
from leadline.verdict import Findings
from leadline.verdict.metrics import KINDS, amount
from leadline.verdict.words import CORRECTION_NAMES, decimals, number, p_text


def effect_tables(findings: Findings) -> tuple[Table, ...]:
    """Return the tables targets, factors and data-sets; without rows where the study has nothing of the kind."""
    return targets_table(findings), factors_table(findings), data_sets_table(findings)


def targets_table(findings: Findings) -> Table:
    """Return one row per contrast of times to a target, in epochs or seconds: how many reached it, and how soon."""
    rows = []
    for contrast, label in zip(findings.contrasts, contrast_labels(findings.contrasts), strict=True):
        reach, n = contrast.reach, len(contrast.seeds)
        if reach is not None:
            row: dict[str, Any] = {"contrast": label, "a": contrast.a, "b": contrast.b, "metric": contrast.metric}
            row |= {"target": reach.target, "pairs": n, "horizon": reach.horizon}
            for side, reached, median, values in (
                ("a", reach.reached_a, reach.median_a, contrast.values_a),
                ("b", reach.reached_b, reach.median_b, contrast.values_b),
            ):
                row |= {f"reached_{side}": reached, f"median_{side}": median, f"mean_{side}": sum(values) / n}
            first = reach.earlier
            row |= {"a_first": first.a_first, "b_first": first.b_first, "open": first.open, "p": first.p}
            rows.append(row)
    columns = (
        Column("Contrast", ("contrast", "a", "b", "metric"), lambda label, *_: str(label), numeric=False),
        Column("Target, %", ("target",), _short),
        Column("Pairs", ("pairs",), _short),
        Column("Horizon", ("horizon", "metric"), lambda time, metric: amount(time, metric, 4)),
        Column("Reached it: first arm, second", ("reached_a", "reached_b"), "{}, {}".format),
        Column("Median (Kaplan-Meier)", ("median_a", "median_b"), _two),
        Column("Mean up to the horizon", ("mean_a", "mean_b"), _two),
        Column("Known to be first", ("a_first", "b_first", "open"), "{}, {} ({} open)".format),
        Column("p, sign test", ("p",), _p),
    )
    caption = "Times to a target: first arm, second arm; times beyond the horizon count as the horizon"
    return Table("targets", caption, columns, tuple(rows))


def factors_table(findings: Findings) -> Table:
    """Return one row per effect of the factors: the difference between arms over all levels, and what changes it."""
    rows = [
        {
            "subject": effect.subject,
            "change": effect.change,
            "a": effect.a,
            "b": effect.b,
            "metric": effect.metric,
            "of": effect.of,
            "over": effect.over,
            "factor": effect.factor,
            "estimate": effect.paired.difference,
            "unit": KINDS[effect.metric].of_difference,
            "ci95_low": effect.paired.ci95 and effect.paired.ci95[0],
            "ci95_high": effect.paired.ci95 and effect.paired.ci95[1],
            "t_p": effect.paired.t_p,
            "t_p_adjusted": effect.t_p_adjusted,
            "seeds": effect.paired.n,
        }
        for effect in findings.factors
    ]
    columns = (
        Column("Effect", ("subject", "a", "b", "metric", "of"), lambda subject, *_: str(subject), numeric=False),
        Column("Change", ("change", "over", "factor"), lambda change, *_: str(change), numeric=False),
        Column("Estimate", ("estimate", "unit"), _sized),
        Column("95% interval, paired t", ("ci95_low", "ci95_high"), _interval),
        Column("p, paired t", ("t_p",), _p),
        Column(CORRECTION_NAMES[findings.correction], ("t_p_adjusted",), _p),
        Column("Seeds", ("seeds",), _short),
    )
    return Table("factors", "Factors: main effects, and how the difference between arms changes", columns, tuple(rows))


def data_sets_table(findings: Findings) -> Table:
    """Return one row per data set and summary of each contrast that was made on several data sets."""
    rows: list[dict[str, Any]] = []
    for one in findings.across:
        shared = {"contrast": f"{one.a} − {one.b}", "metric": one.metric, "unit": KINDS[one.metric].of_difference}
        for part in one.parts:
            result = part.contrast.paired
            low, high = (result and result.ci95) or (None, None)
            row = {"data": part.data, "difference": result and result.difference, "ci95_low": low, "ci95_high": high}
            row |= {"prediction_low": None, "prediction_high": None, "weight": part.weight}
            rows.append(shared | row | {"pairs": result.n if result else 0, "verdict": part.contrast.decision})
        if one.summary:
            low, high = one.summary.prediction or (None, None)
            row = {"data": "such data sets", "difference": one.summary.mean}
            row |= {"ci95_low": one.summary.interval[0], "ci95_high": one.summary.interval[1]}
            row |= {"prediction_low": low, "prediction_high": high, "weight": None, "pairs": None}
            rows.append(shared | row | {"verdict": one.decision})
    columns = (
        Column("Contrast", ("contrast", "metric"), lambda name, _: str(name), numeric=False),
        Column("Data", ("data",), str, numeric=False),
        Column("Pairs", ("pairs",), _short),
        Column("Difference", ("difference", "unit"), _sized),
        Column("95% interval", ("ci95_low", "ci95_high"), _interval),
        Column("On one more data set", ("prediction_low", "prediction_high"), _interval),
        Column("Weight", ("weight",), lambda weight: NOTHING if weight is None else f"{weight:.0%}"),
        Column("Verdict", ("verdict",), str, numeric=False),
    )
    caption = "Data sets: each by itself (paired t), and the mean over such data sets (random effects)"
    return Table("data-sets", caption, columns, tuple(rows))


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _two(a: float | None, b: float | None) -> str:
    return f"{_short(a)}, {_short(b)}"


def _sized(value: float | None, unit: str) -> str:
    if value is None:
        return NOTHING
    text = number(value, 2 if abs(value) >= 0.1 else 3)
    return f"{text if text.startswith('−') or value == 0 else f'+{text}'} {unit}"


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return NOTHING
    digits = max(2, decimals((low + high) / 2, (low, high)))
    return f"{number(low, digits)} to {number(high, digits)}"


def _p(value: float | None) -> str:
    return NOTHING if value is None else p_text(value)
