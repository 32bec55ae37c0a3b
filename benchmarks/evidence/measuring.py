"""What a stored study shows, as plain data: its length, its machine, its arms and its contrasts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.diagnostics import diagnose
from leadline.api.results import Results
from leadline.store import Store
from leadline.study.planning.plan import plan

ENDED = ("finished", "diverged")
CONTRAST = ("a", "b", "metric", "target", "unit", "verdict", "n", "difference", "ci_low", "ci_high", "needed_likely")
ARM = ("n", "diverged", *(f"{error}_{value}" for error in ("test_error", "train_error") for value in ("mean", "sd")))


def measure(name: str, runs: Path) -> dict[str, Any]:
    """Return what a stored study shows.

    Raises:
        StoreError: there is no such store, or no such study in it.
        ValueError: trials are missing.
    """
    results = Results.open(name, runs)
    with Store.open_existing(runs) as store:
        expanded = store.study(name).expand()
        trials, records = store.trials_frame(name), store.records_frame(name)
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
        "contrasts": [_plain(row, CONTRAST) for row in verdict.contrasts.to_dict("records")],
        "vanishing": sorted({one.arm for one in statements if one.kind == "vanishing"}) if statements else None,
    }


def _plain(row: dict[Any, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    found = {key: row.get(key) for key in keys}
    return {
        key: None if value is None or pd.isna(value) else round(value, 6) if isinstance(value, float) else value
        for key, value in found.items()
    }
