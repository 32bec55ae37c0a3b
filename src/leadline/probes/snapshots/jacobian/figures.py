"""Figures of the Jacobian's singular values."""

from collections.abc import Iterator

import pandas as pd

from leadline.probes.snapshots.jacobian import JacobianProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import curves, over_seeds


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    parts = {"largest": "largest", "smallest": "smallest"}
    for kind, (what, x) in _MAPS.items():
        own = rows[rows["kind"].eq(kind)]
        if own.empty:
            continue
        # the images stand before the first place
        images = own["depth"].eq(0) & own["map"].eq("images")
        own = own.assign(x=own["depth"] + (0 if images.any() else 1))
        marks = over_seeds(own.rename(columns={"map": "place", "extreme": "part"}), ["part", "x", "place"], "median")
        caption = (
            f"The largest (filled) and the smallest (hollow) singular value of the Jacobian {what}: the largest and"
            " the smallest factor by which a small change is stretched on the way. The median over images."
        )
        inexact = (own["error"] / own["value"].where(own["value"].gt(0))).max()
        if inexact > 0.01:
            caption += (
                f" Estimates by Lanczos steps: a singular value lies within {inexact:.0%} of each mark, or nearer."
            )
        figure = Figure(_with_kind("jacobian", kind), f"{JacobianProbe.title} {what}", caption, marks)
        yield curves(figure, marks, (x, "Singular value"), log=True, parts=parts, lines=[1])


_MAPS = {
    "to-output": ("from each place to the output", "Where the map starts (0: the images)"),
    "from-input": ("from the images to each place", "Where the map ends"),
    "across": ("across each block", "Block"),
}


def _with_kind(name: str, kind: str) -> str:
    return name if kind == "to-output" else f"{name}-{kind}"
