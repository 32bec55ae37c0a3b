"""Tables of what a study's contrasts depend on: times to a target, factors, data sets."""

from typing import Any

from leadline.analysis.verdict.findings import Findings
from leadline.analysis.verdict.wording.labels import contrast_labels
from leadline.analysis.verdict.wording.sentences import CORRECTION_NAMES, effect_change, effect_subject
from leadline.analysis.verdict.wording.tables import format_difference, interval_of
from leadline.parts.metrics import metric
from leadline.text import NOTHING, p_value
from leadline.text.tables import Column, Table, first, plain


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
            earlier = reach.earlier
            row |= {"a_first": earlier.a_first, "b_first": earlier.b_first, "open": earlier.open, "p": earlier.p}
            rows.append(row)
    columns = (
        Column("Contrast", ("contrast", "a", "b", "metric"), first, numeric=False),
        Column("Target", ("target",), _short, unit="%"),
        Column("Pairs", ("pairs",), _short),
        Column("Horizon", ("horizon", "metric"), lambda time, name: metric(name).amount(time, 4)),
        Column("Reached by first, second", ("reached_a", "reached_b"), "{}, {}".format),
        Column("Median (Kaplan-Meier)", ("median_a", "median_b"), _two),
        Column("Mean up to the horizon", ("mean_a", "mean_b"), _two),
        Column("Known to be first", ("a_first", "b_first", "open"), "{}, {} ({} open)".format),
        Column("p, sign test", ("p",), p_value),
    )
    caption = "Times to a target of the first and the second arm; times beyond the horizon count as the horizon"
    return Table("targets", caption, columns, tuple(rows))


def factors_table(findings: Findings) -> Table:
    """Return one row per effect of the factors: the difference between arms over all levels, and what changes it."""
    rows = [
        {
            "subject": effect_subject(effect),
            "change": effect_change(effect),
            "a": effect.a,
            "b": effect.b,
            "metric": effect.metric,
            "of": effect.of,
            "over": effect.over,
            "factor": effect.factor,
            "estimate": effect.paired.difference,
            "unit": effect.kind.difference_unit,
            "ci_low": effect.paired.ci95 and effect.paired.ci95[0],
            "ci_high": effect.paired.ci95 and effect.paired.ci95[1],
            "t_p": effect.paired.t_p,
            "t_p_adjusted": effect.t_p_adjusted,
            "seeds": effect.paired.n,
        }
        for effect in findings.factors
    ]
    columns = (
        Column("Effect", ("subject", "a", "b", "metric", "of"), first, numeric=False),
        Column("Change", ("change", "over", "factor"), first, numeric=False),
        Column("Estimate", ("estimate", "ci_low", "ci_high", "unit"), format_difference),
        Column("95% interval, paired t", ("ci_low", "ci_high"), interval_of),
        Column("p, paired t", ("t_p",), p_value),
        Column(f"{CORRECTION_NAMES[findings.correction]}-adjusted", ("t_p_adjusted",), p_value),
        Column("Seeds", ("seeds",), _short),
    )
    return Table("factors", "Factors: main effects, and how the difference between arms changes", columns, tuple(rows))


def data_sets_table(findings: Findings) -> Table:
    """Return one row per data set and summary of each contrast that was made on several data sets."""
    rows: list[dict[str, Any]] = []
    for one in findings.meta_analyses:
        shared = {"contrast": f"{one.a} − {one.b}", "metric": one.metric, "unit": one.kind.difference_unit}
        for part in one.parts:
            result = part.contrast.paired
            low, high = (result and result.ci95) or (None, None)
            row = {"data": part.data, "difference": result and result.difference, "ci_low": low, "ci_high": high}
            row |= {"prediction_low": None, "prediction_high": None, "weight": part.weight}
            rows.append(shared | row | {"pairs": result.n if result else 0, "verdict": part.contrast.decision})
        if one.summary:
            low, high = one.summary.prediction or (None, None)
            row = {"data": "similar data sets", "difference": one.summary.mean}
            row |= {"ci_low": one.summary.interval[0], "ci_high": one.summary.interval[1]}
            row |= {"prediction_low": low, "prediction_high": high, "weight": None, "pairs": None}
            rows.append(shared | row | {"verdict": one.decision})
    columns = (
        Column("Contrast", ("contrast", "metric"), first, numeric=False),
        Column("Data", ("data",), plain, numeric=False),
        Column("Pairs", ("pairs",), _short),
        Column("Difference", ("difference", "ci_low", "ci_high", "unit"), format_difference),
        Column("95% interval", ("ci_low", "ci_high"), interval_of),
        Column("95% prediction, new data set", ("prediction_low", "prediction_high"), interval_of),
        Column("Weight", ("weight",), lambda weight: NOTHING if weight is None else f"{weight:.0%}"),
        Column("Verdict", ("verdict",), plain, numeric=False),
    )
    caption = "Data sets: each one separately (paired t), and the mean over similar data sets (random effects)"
    return Table("data-sets", caption, columns, tuple(rows))


def _short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _two(a: float | None, b: float | None) -> str:
    return f"{_short(a)}, {_short(b)}"
