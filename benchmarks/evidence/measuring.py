"""What a stored study shows, as plain data: its length, its machine, its arms and its contrasts."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.diagnostics import diagnose
from leadline.analysis.verdict import Contrast, analyze, design_of
from leadline.analysis.verdict.evidence import gather
from leadline.api.results import Results
from leadline.api.verdict import Verdict
from leadline.parts.metrics import FinalMetric, Outputs
from leadline.store import Store
from leadline.study.expand import ExpandedStudy
from leadline.study.planning.plan import plan

ENDED = ("finished", "diverged")
CONTRAST = ("a", "b", "metric", "target", "unit", "verdict", "n", "difference", "ci_low", "ci_high", "needed_likely")
ARM = ("n", "diverged", *(f"{error}_{value}" for error in ("test_error", "train_error") for value in ("mean", "sd")))
CONVERGENCE = FinalMetric(
    "convergence_epoch",
    "epoch of convergence",
    "",
    "epochs",
    record=("evidence", "convergence_epoch"),
    resolution=lambda counts: 1.0,
)
"""What verdicts tell of each arm and no study can contrast, as a metric."""


def measure(name: str, runs: Path, convergence: bool = False) -> dict[str, Any]:
    """Return what a stored study shows.

    Args:
        name: of the study.
        runs: folder of the store.
        convergence: whether the arms of its contrasts are compared in their epochs of convergence too.

    Raises:
        StoreError: there is no such store, or no such study in it.
        ValueError: trials are missing.
    """
    results = Results.open(name, runs)
    with Store.open_existing(runs) as store:
        expanded = store.study(name).expand()
        trials, records = store.trials_frame(name), store.records_frame(name)
        outputs = store.outputs(name) if convergence else {}
        statements = diagnose(trials, records, store.measurements(name, "flow")).statements
    missing = int((~trials["state"].isin(ENDED)).sum())
    if missing:
        raise ValueError(f"{missing} of {len(trials)} trials are missing")
    verdict, environment = results.verdict(), trials["environment"].iloc[-1]
    seconds = trials[trials["state"].eq("finished")].groupby("arm")["seconds"].mean().round(3).to_dict()
    flops = {arm.arm: arm.flops for arm in plan(expanded, runs).arms}
    return {
        "date": datetime.fromtimestamp(trials["ended"].max().timestamp(), UTC).date().isoformat(),
        "machine": {key: environment.get(key) for key in ("cpu", "device", "torch")},
        "hours": round(float(trials["seconds"].sum()) / 3600, 2),
        "trials": len(trials),
        "seeds": int(trials["seed"].nunique()),
        "epochs": expanded.spec.training.epochs,
        "train": expanded.spec.data.train,
        "arms": {
            row["arm"]: {**_plain(row, ARM), "seconds": seconds.get(row["arm"]), "flops": flops[row["arm"]]}
            for row in verdict.arms.to_dict("records")
        },
        "contrasts": [
            *(_plain(row, CONTRAST) for row in verdict.contrasts.to_dict("records")),
            *(compare_convergence(expanded, trials, records, outputs) if convergence else ()),
        ],
        "vanishing": sorted({one.arm for one in statements if one.kind == "vanishing"}) if statements else None,
    }


def compare_convergence(
    study: ExpandedStudy, trials: pd.DataFrame, records: pd.DataFrame, outputs: Mapping[str, Outputs]
) -> list[dict[str, Any]]:
    """Return each pair of arms that a study contrasts, compared in their epochs of convergence.

    It is an analysis of its own, which corrects for these comparisons alone. A trial that has learned and not
    converged has no value, and so its seed no pair.

    Args:
        study: the study, expanded.
        trials, records: as for `analyze`.
        outputs: trial -> what its network gave for the test images.
    """
    design = design_of(study)
    found = gather(design, trials, records, outputs.items()).converged
    split, record = CONVERGENCE.record or ("", "")
    rows = pd.DataFrame({"trial": [*found], "epoch": 0, "split": split, "name": record, "value": [*found.values()]})
    pairs = dict.fromkeys((one.a, one.b) for one in design.contrasts)
    alone = replace(
        design,
        contrasts=tuple(Contrast(a, b, CONVERGENCE) for a, b in pairs),
        metrics={CONVERGENCE.name: CONVERGENCE},
        metric=CONVERGENCE.name,
    )
    findings = analyze(alone, trials, pd.concat([records, rows.astype({"value": float})]), outputs.items())
    table = Verdict(findings).contrasts.to_dict("records")
    return [
        {**_plain(row, CONTRAST), "mean_a": _mean(one.values_a), "mean_b": _mean(one.values_b)}
        for row, one in zip(table, findings.contrasts, strict=True)
    ]


def _mean(values: tuple[float, ...]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _plain(row: dict[Any, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    found = {key: row.get(key) for key in keys}
    return {
        key: None if value is None or pd.isna(value) else round(value, 6) if isinstance(value, float) else value
        for key, value in found.items()
    }
