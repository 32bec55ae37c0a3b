"""The tables of a study: arms, contrasts, trials, and a comparison with published numbers."""

from functools import partial

import pandas as pd

from leadline.analysis.verdict import ArmFinding, Findings
from leadline.analysis.verdict.wording.effect_tables import effect_tables
from leadline.analysis.verdict.wording.tables import arms_table, contrasts_table, mcnemar_table, mean_sd
from leadline.parts.metrics import metric
from leadline.reports.charts.chart import Figure, each, spread
from leadline.study.expand import ExpandedStudy
from leadline.text import number
from leadline.text.tables import Column, Table, plain


def tables(study: ExpandedStudy, findings: Findings, trials: pd.DataFrame, records: pd.DataFrame) -> tuple[Table, ...]:
    """Return a study's tables: arms, accuracy, contrasts, mcnemar, targets, factors, data-sets, published, trials."""
    *shown, every_trial = tables_of_trials(findings, trials, records)
    return (*shown, published_table(study, findings.arms), every_trial)


def tables_of_trials(findings: Findings, trials: pd.DataFrame, records: pd.DataFrame) -> tuple[Table, ...]:
    """Return the tables of what trials show: those of `tables` but for published numbers."""
    return (
        arms_table(findings),
        accuracy_table(findings),
        contrasts_table(findings),
        mcnemar_table(findings),
        *effect_tables(findings),
        trials_table(trials, records),
    )


def accuracy_table(findings: Findings) -> Table:
    """Return one row per data set and arm: the final accuracy in training and test, where classes are predicted."""
    splits = {"train": "Training accuracy", "validation": "Validation accuracy", "test": "Test accuracy"}
    rows = []
    known = "accuracy" in findings.curves and any("test_error" in arm.metrics for arm in findings.arms)
    for arm in findings.arms if known else ():
        row: dict[str, object] = {"data": arm.data, "arm": arm.name, "n": arm.finished}
        for split in splits:
            error = arm.metrics.get(f"{split}_error")
            row |= {f"{split}_mean": 100 - error.mean if error else None, f"{split}_sd": error.sd if error else None}
        rows.append(row)
    rows.sort(key=lambda row: findings.data_sets.index(str(row["data"])) if row["data"] in findings.data_sets else 0)
    columns = (
        Column("Data set", ("data",), plain if len(findings.data_sets) > 1 else None, numeric=False),
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Trials", ("n",), plain),
        *(Column(words, (f"{split}_mean", f"{split}_sd"), mean_sd, unit="%") for split, words in splits.items()),
    )
    note = (
        "Of the final network, in evaluation mode, on all images of a split: training accuracies by"
        " epoch, which are running averages, differ."
    )
    return Table("accuracy", "Final accuracy: mean ± standard deviation over seeds", columns, tuple(rows), note)


def published_table(study: ExpandedStudy, arms: tuple[ArmFinding, ...]) -> Table:
    """Return one row per published number and its arm, with the measured number."""
    rows = []
    in_per_cent = all(metric(one.metric).in_points for one in study.published)
    for published in study.published:
        one = metric(published.metric)
        quantity = one.named() if in_per_cent or not one.unit else f"{one.named()} ({one.unit.strip()})"
        for arm in arms:
            if published.arm in (arm.name, arm.base):
                measured = arm.metrics.get(published.metric)
                row = {"arm": arm.name, "metric": quantity, "published": published.value}
                row |= {f"measured_{key}": getattr(measured, key, None) for key in ("mean", "sd")}
                row |= {"measured_n": measured.n if measured else 0, "source": published.source}
                row["difference"] = measured.mean - published.value if measured else None
                rows.append(row)
    columns = (
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Quantity", ("metric",), plain, numeric=False),
        Column("Published", ("published",), number, unit="%" if in_per_cent else ""),
        Column("Measured", ("measured_mean", "measured_sd"), mean_sd, unit="%" if in_per_cent else ""),
        Column("Trials", ("measured_n",), plain),
        Column(
            "Measured − published",
            ("difference",),
            partial(number, signed=True),
            unit="points" if in_per_cent else "",
        ),
        Column("Source", ("source",), plain, numeric=False),
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
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Seed", ("seed",), plain),
        Column("State", ("state",), plain, numeric=False),
        Column("Diverged at step", ("diverged_step",), plain),
        Column("Seconds", ("seconds",), partial(number, digits=1)),
        Column("Test error", ("test_error",), number, unit="%"),
        Column("Validation error", ("validation_error",), number, unit="%"),
        Column("Training error", ("train_error",), number, unit="%"),
        Column("Message", ("error",), plain, numeric=False),
        Column("Trial", ("trial",), lambda name: str(name)[:12], numeric=False),
    )
    return Table("trials", "Trials", columns, tuple(rows))


def unfinished(table: Table) -> Table:
    """Return the trials of a trials table that diverged, failed or have not finished."""
    kept = tuple(row for row in table.rows if row["state"] != "finished")
    columns = tuple(column for column in table.every if column.unit != "%")
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
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Split", ("split",), plain, numeric=False),
        *(Column(f"Epoch {epoch}", (str(epoch),), partial(number, digits=3)) for epoch in shown),
    )
    note = f"{len(shown)} of {len(every)} epochs; this figure's data file has all of them."
    caption = f"{figure.title}: mean over the finished trials"
    return Table(figure.name, caption, columns, tuple(rows), note if len(shown) < len(every) else "")
