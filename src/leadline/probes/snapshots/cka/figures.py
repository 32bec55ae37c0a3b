"""The map of how similar the representations of every two layers are."""

from collections.abc import Iterator

import altair as alt
import pandas as pd

from leadline.probes.snapshots.cka import CKAProbe
from leadline.reports.charts.chart import Figure, inline, spread
from leadline.reports.charts.probe_curves import by_arm, over_seeds
from leadline.reports.charts.probe_maps import arrange, draw_map, map_axis, map_scale

SHOWN_LAYERS = 60


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the map of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    yield alike_layers(rows)


def alike_layers(rows: pd.DataFrame) -> Figure:
    """Return linear CKA of every layer with every other, a panel for each arm and epoch, on one scale from 0 to 1."""
    names = rows[["row_depth", "row"]].drop_duplicates(), rows[["column_depth", "column"]].drop_duplicates()
    two = {*names[0]["row"]} != {*names[1]["column"]}
    by = ["row_depth", "column_depth", "row", "column"]
    cells = over_seeds(rows.rename(columns={"cka": "value"}), by)
    if cells.empty:
        return Figure("cka", CKAProbe.title, "", cells)
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
    if depths.to_numpy().max() > SHOWN_LAYERS:
        caption.append(
            f"At most {SHOWN_LAYERS} layers of a network are drawn, evenly over all; this figure's data file has all of"
            " them."
        )

    def panel(own: pd.DataFrame) -> alt.LayerChart:
        # layers without a value keep their place
        kept = [spread(range(1, int(depth) + 1), SHOWN_LAYERS) for depth in depths.loc[own["arm"].iloc[0]]]
        own = own[own["x"].isin(kept[0]) & own["y"].isin(kept[1])]
        x = alt.X("x:O", title=f"{whose[1]}, from the input", axis=map_axis(kept[0]), scale=map_scale(kept[0]))
        y = alt.Y("y:O", title=f"{whose[0]}, from the input", axis=map_axis(kept[1]), scale=map_scale(kept[1]))
        data = inline(own, ["x", "y", "row", "column", "mean", "seeds"])
        return draw_map(data, x, y, colour, tips)

    said = []
    for words, own in by_arm(cells):
        ends = own[own["x"].eq(own["x"].max()) & own["y"].eq(own["y"].min())]["mean"]
        away = own[own["row_depth"].ne(own["column_depth"])]["mean"]
        last = f"first with last layer {ends.iloc[0]:.2f}, " if len(ends) else ""
        mean = f"mean of two different layers {away.mean():.2f}" if len(away) else "one layer"
        said.append(f"{words}: {last}{mean}")
    return arrange(Figure("cka", CKAProbe.title, "", cells.drop(columns=["x", "y"])), cells, caption, said, panel)
