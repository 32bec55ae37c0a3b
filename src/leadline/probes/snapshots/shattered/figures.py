"""Figures of shattered gradients."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from leadline.probes.snapshots.shattered import ShatteredProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import PLACE, curves, over_seeds


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    # of every line of places the points' pairs at a distance; all pairs of two different points count alike
    lags = rows.groupby([*PLACE, "seed", "place", "depth"], sort=False)["distance"].rank(method="dense") - 1
    points = lags.groupby([rows[field] for field in (*PLACE, "seed", "place", "depth")]).transform("max") + 1
    inside = rows.assign(pairs=points - lags, lag=lags)
    # the images are as far from the output as the first place, and stand for more layers
    if inside["depth"].max() > 0:
        inside = inside[inside["depth"].gt(0)]
    inside = inside[np.isfinite(inside["correlation"].astype("float64"))]
    different = inside[inside["lag"].gt(0)]
    different = different.assign(weighed=different["correlation"] * different["pairs"])
    place = [*PLACE, "seed", "blocks_to_output", "place"]
    sums = different.groupby(place, sort=False)[["weighed", "pairs"]].sum().reset_index()
    sums = sums.assign(value=sums["weighed"] / sums["pairs"]).rename(columns={"blocks_to_output": "x"})
    marks = over_seeds(sums, ["x", "place"]).sort_values("x", kind="stable")
    caption = (
        "Correlation of the gradients of one output at two points on the line between two images, averaged over all"
        " pairs of points, by the number of blocks that the gradient has passed on its way back: 1 means identical, 0"
        " as different as white noise. Where gradients are 0, there is no correlation."
    )
    axes = ("Blocks that the gradient passed on its way back", "Correlation")
    figure = Figure("shattered", ShatteredProbe.title, caption, marks)
    yield curves(figure, marks, axes, lines=[0], holds=[1])
    deepest = inside[inside["blocks_to_output"].eq(inside.groupby("arm")["blocks_to_output"].transform("max"))]
    marks = over_seeds(deepest.rename(columns={"distance": "x", "correlation": "value"}), ["x", "place"])
    caption = (
        "The same correlation with respect to the input of the first block, where the gradient has passed all of them,"
        " by the distance between the two points as a share of the line between the two images."
    )
    figure = Figure("shattered-distance", "Similarity of gradients by distance", caption, marks)
    yield curves(figure, marks, ("Distance of the two points", "Correlation"), whole=False, lines=[0], holds=[1])
