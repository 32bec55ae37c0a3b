"""Figures of the gradient by path length."""

from collections.abc import Iterator

import pandas as pd

from leadline.probes.snapshots.paths import PathsProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import PLACE, curves, over_seeds


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    rows = rows.rename(columns={"length": "x"})
    one = over_seeds(rows.rename(columns={"norm": "value"}), ["x"])
    quartiles = rows.groupby([*PLACE, "x"], sort=False).agg(low=("norm_low", "min"), high=("norm_high", "max"))
    one = one.drop(columns=["low", "high"]).merge(quartiles.reset_index(), on=[*PLACE, "x"])
    every = over_seeds(rows.rename(columns={"sum_norm": "value"}), ["x"])
    x = "Branches on the path"
    caption = (
        "Norm of the loss's gradient at the first block's input by the number of branches on its way back. Filled:"
        " one path, the mean over randomly drawn paths with their quartiles as a band; hollow: the exact sum over all"
        " paths of that length. A plain network has only one path and is not drawn."
    )
    parts = {"one": "one path", "all": "all paths of a length"}
    bands = "of one path, from the smallest to the largest quartile of a seed; of all, the range over seeds"
    marks = pd.concat([one.assign(part="one"), every.assign(part="all")], ignore_index=True)
    yield curves(
        Figure("paths", PathsProbe.title, caption, marks), marks, (x, "Norm"), log=True, parts=parts, bands=bands
    )
    bound = over_seeds(rows.rename(columns={"share": "value"}), ["x"])
    exact = over_seeds(rows.rename(columns={"sum_share": "value"}), ["x"])
    marks = pd.concat([bound.assign(part="bound"), exact.assign(part="exact")], ignore_index=True)
    caption = (
        "Filled: the norm of one path times the number of paths of its length, as a share over all lengths: what they"
        " would contribute if they all pointed in one direction. Hollow: the exact contribution of all paths of a"
        " length: its inner product with the whole gradient over its squared norm, negative where they oppose it."
    )
    parts = {"bound": "if paths agreed", "exact": "exact"}
    figure = Figure("path-shares", "Share of the gradient by path length", caption, marks)
    yield curves(figure, marks, (x, "Share of the gradient"), parts=parts, lines=[0])
