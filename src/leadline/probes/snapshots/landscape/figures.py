"""Figures of the loss around a network and between two."""

from collections.abc import Iterator

import altair as alt
import numpy as np
import pandas as pd

from leadline.reports.charts.chart import Figure, inline, spread
from leadline.reports.charts.probe_curves import by_arm, curves, over_seeds
from leadline.reports.charts.probe_maps import arrange, draw_map, map_axis, map_scale
from leadline.text import join


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    lost = "" if np.isfinite(rows["loss"].astype("float64")).all() else " Points without a finite loss are left out."
    for kind, (name, title, caption, x) in _WAYS.items():
        own = rows[rows["kind"].eq(kind)]
        marks = over_seeds(own.rename(columns={"loss": "value"}), ["x"])
        if kind == "between":
            hills = [f"{words}: {_hill(line):.3g}" for words, line in by_arm(marks[marks["x"].between(0, 1)])]
            caption += (
                f" Height of the barrier above the straight line between the two losses: {join(hills, mark=';')}."
            )
        figure = Figure(name, title, caption + lost, marks)
        yield curves(figure, marks, (x, "Loss"), log=_wide(marks), whole=False)
    yield loss_planes(rows[rows["kind"].eq("plane")])


_WAYS = {
    "line": (
        "landscape",
        "The loss around the network, along a line",
        "Mean loss over the images when every filter of the network moves along a random direction, in steps as long as"
        " the filter itself; 0 is the network as it is.",
        "Along the direction",
    ),
    "between": (
        "landscape-between",
        "The loss between two networks",
        "Mean loss over the images on the straight line between two networks: 0 is the first, 1 the second.",
        "From the first network to the second",
    ),
}


def _hill(line: pd.DataFrame) -> float:
    """Return how far the loss rises above the straight line between its ends: Frankle et al. 2020, section 3."""
    line = line.sort_values("x")
    x, loss = line["x"].to_numpy(), line["mean"].to_numpy()
    return float((loss - np.interp(x, x[[0, -1]], loss[[0, -1]])).max()) if len(x) > 1 else float("nan")


def _wide(marks: pd.DataFrame) -> bool:
    return bool(marks["low"].gt(0).all() and marks["high"].max() > 20 * marks["low"].min())


def loss_planes(rows: pd.DataFrame) -> Figure:
    """Return the loss on a plane of two random directions, a panel for each arm and epoch, on one logarithmic scale."""
    title = "The loss around the network, on a plane"
    cells = over_seeds(rows.rename(columns={"loss": "value"}), ["x", "y"])
    if cells.empty:
        return Figure("landscape-plane", title, "", cells)
    least = float(cells.loc[cells["mean"].gt(0), "mean"].min()) if cells["mean"].gt(0).any() else 1.0
    cells = cells.assign(colour=np.log10(cells["mean"].clip(lower=least)))
    low, high = float(cells["colour"].min()), float(cells["colour"].max())
    caption = [
        "Colour: log10 of the mean loss over the images when all filters move by x along one random direction and by y"
        " along another, each step as long as the filter itself; 0, 0 is the network as it is.",
        *(["The mean over seeds, each with its own directions."] if cells["seeds"].gt(1).any() else []),
        *(["Points where the loss is not finite are left out."] if not np.isfinite(rows["loss"]).all() else []),
    ]
    legend = alt.Legend(
        title=None,
        orient="bottom",
        gradientThickness=8,
        gradientLength=160,
        values=[low, (low + high) / 2, high],
        labelExpr="format(pow(10, datum.value), '.2~g')",
    )
    scale = alt.Scale(domain=[low, high if high > low else low + 1], clamp=True, nice=False)
    colour = alt.Color("colour:Q", scale=scale, legend=legend)
    tips = [alt.Tooltip(f"{field}:Q", format=".2~f") for field in "xy"]
    tips += [alt.Tooltip("mean:Q", title="loss", format=".3~g"), alt.Tooltip("seeds:Q")]

    def panel(own: pd.DataFrame) -> alt.LayerChart:
        grid = [sorted(own[axis].unique()) for axis in "xy"]
        x = alt.X("x:O", title="Along the first direction", axis=map_axis(spread(grid[0], 3)), scale=map_scale(grid[0]))
        y = alt.Y("y:O", title="Along the second", axis=map_axis(spread(grid[1], 3)), scale=map_scale(grid[1][::-1]))
        return draw_map(inline(own, ["x", "y", "mean", "colour", "seeds"]), x, y, colour, tips)

    said = []
    for words, own in by_arm(cells):
        middle = own["mean"].iloc[int(np.argmin(own["x"] ** 2 + own["y"] ** 2))]
        said.append(
            f"{words}: {middle:.3g} in the middle, {own['mean'].min():.3g} to {own['mean'].max():.3g} over the plane"
        )
    return arrange(Figure("landscape-plane", title, "", cells.drop(columns="colour")), cells, caption, said, panel)
