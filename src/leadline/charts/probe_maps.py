"""Maps of what a probe measured between two things: every layer with every other, or two directions in weight space."""

from collections.abc import Callable, Sequence

import altair as alt
import numpy as np
import pandas as pd

from leadline.charts.chart import Figure, Panel, inline, spread
from leadline.charts.probe_curves import PLACE, SHOWN_EPOCHS, SHOWN_LEVELS, at_epoch, by_arm, over_seeds, shown_in_part
from leadline.text import join

ALIKE = "Similarity of the representations of two layers"
SHOWN_PANELS, SHOWN_LAYERS = 12, 60
PanelMaker = Callable[[pd.DataFrame], alt.LayerChart]


def alike_layers(rows: pd.DataFrame) -> Figure:
    """Return linear CKA of every layer with every other, a panel for each arm and epoch, on one scale from 0 to 1."""
    names = rows[["row_depth", "row"]].drop_duplicates(), rows[["column_depth", "column"]].drop_duplicates()
    two = {*names[0]["row"]} != {*names[1]["column"]}
    by = ["row_depth", "column_depth", "row", "column"]
    cells = over_seeds(rows.rename(columns={"cka": "value"}), by)
    if cells.empty:
        return Figure("cka", ALIKE, "", cells)
    cells = cells.assign(x=cells["column_depth"] + 1, y=cells["row_depth"] + 1)
    whose = ("Layer of the first network", "Layer of the second network") if two else ("Layer", "Layer")
    caption = [
        "Colour: linear CKA of the layers counted from the input, downwards and to the right: 1 where both represent"
        " the images alike, 0 where they have nothing in common; estimates below 0 are drawn as 0.",
        *(["The mean over seeds."] if cells["seeds"].gt(1).any() else []),
        *(["Layers whose output is the same for every image are left out."] if rows["cka"].isna().any() else []),
    ]
    legend = alt.Legend(title=None, orient="bottom", gradientThickness=8, gradientLength=160, values=[0, 0.5, 1])
    colour = alt.Color("mean:Q", scale=alt.Scale(domain=[0, 1], clamp=True, nice=False), legend=legend)
    tips = [alt.Tooltip("row:N"), alt.Tooltip("column:N"), alt.Tooltip("mean:Q", title="CKA", format=".3f")]
    tips.append(alt.Tooltip("seeds:Q"))

    depths = rows.groupby("arm")[["column_depth", "row_depth"]].max() + 1

    def panel(own: pd.DataFrame) -> alt.LayerChart:
        # layers without a value keep their place
        kept = [spread(range(1, int(depth) + 1), SHOWN_LAYERS) for depth in depths.loc[own["arm"].iloc[0]]]
        own = own[own["x"].isin(kept[0]) & own["y"].isin(kept[1])]
        x = alt.X("x:O", title=f"{whose[1]}, from the input", axis=_axis(kept[0]), scale=_bands(kept[0]))
        y = alt.Y("y:O", title=f"{whose[0]}, from the input", axis=_axis(kept[1]), scale=_bands(kept[1]))
        data = inline(own, ["x", "y", "row", "column", "mean", "seeds"])
        return _map(data, x, y, colour, tips)

    said = []
    for words, own in by_arm(cells):
        ends = own[own["x"].eq(own["x"].max()) & own["y"].eq(own["y"].min())]["mean"]
        away = own[own["row_depth"].ne(own["column_depth"])]["mean"]
        last = f"first with last layer {ends.iloc[0]:.2f}, " if len(ends) else ""
        mean = f"mean of two different layers {away.mean():.2f}" if len(away) else "one layer"
        said.append(f"{words}: {last}{mean}")
    return _laid_out(Figure("cka", ALIKE, "", cells.drop(columns=["x", "y"])), cells, caption, said, panel)


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
        x = alt.X("x:O", title="Along the first direction", axis=_axis(spread(grid[0], 3)), scale=_bands(grid[0]))
        y = alt.Y("y:O", title="Along the second", axis=_axis(spread(grid[1], 3)), scale=_bands(grid[1][::-1]))
        return _map(inline(own, ["x", "y", "mean", "colour", "seeds"]), x, y, colour, tips)

    said = []
    for words, own in by_arm(cells):
        middle = own["mean"].iloc[int(np.argmin(own["x"] ** 2 + own["y"] ** 2))]
        said.append(
            f"{words}: {middle:.3g} in the middle, {own['mean'].min():.3g} to {own['mean'].max():.3g} over the plane"
        )
    return _laid_out(Figure("landscape-plane", title, "", cells.drop(columns="colour")), cells, caption, said, panel)


def _laid_out(
    figure: Figure, cells: pd.DataFrame, caption: list[str], said: Sequence[str], panel: PanelMaker
) -> Figure:
    """Return the figure with a panel for each level, epoch and arm, in that order."""
    levels, epochs = list(cells["level"].unique()), sorted(cells["epoch"].unique())
    bases = [base for base in cells["base"].cat.categories if base in {*cells["base"]}]
    shown_levels, shown_epochs = spread(levels, SHOWN_LEVELS), spread(epochs, SHOWN_EPOCHS)
    found = {
        (level, epoch, base, arm): own
        for (arm, base, level, epoch), own in cells.groupby(PLACE, sort=False)
        if level in shown_levels and epoch in shown_epochs
    }
    places = sorted(found, key=lambda at: (levels.index(at[0]), epochs.index(at[1]), bases.index(at[2])))
    shown = spread(places, SHOWN_PANELS)
    return Figure(
        figure.name,
        figure.title,
        " ".join(
            [
                *caption,
                "One colour scale for all panels.",
                *shown_in_part(levels, shown_levels, "levels"),
                *shown_in_part(epochs, shown_epochs, "epochs"),
                *shown_in_part(places, shown, "panels"),
            ]
        ),
        figure.data,
        f"{figure.title}. {join(said, mark=';')}.",
        tuple(Panel(f"{at[3]}, {at_epoch(at[1])}", panel(found[at])) for at in shown),
        min(3, len(bases) if len(bases) > 1 else len(shown_epochs)),
    )


def _map(data: alt.InlineData, x: alt.X, y: alt.Y, colour: alt.Color, tips: list[alt.Tooltip]) -> alt.LayerChart:
    # a little more than their places, so that cells leave no seams
    rectangles = alt.Chart(data).mark_rect(
        width=alt.RelativeBandSize(band=1.06), height=alt.RelativeBandSize(band=1.06)
    )
    return alt.LayerChart(layer=[rectangles.encode(x=x, y=y, color=colour, tooltip=tips)], height=210)


def _axis(places: Sequence[float]) -> alt.Axis:
    every = -(-len(places) // 8)
    return alt.Axis(values=[float(f"{place:.6g}") for place in places[::every]], labelAngle=0, format=".6~r")


def _bands(places: Sequence[float]) -> alt.Scale:
    # a place has the digits that `inline` leaves it
    return alt.Scale(domain=[float(f"{place:.6g}") for place in places], paddingInner=0, paddingOuter=0)
