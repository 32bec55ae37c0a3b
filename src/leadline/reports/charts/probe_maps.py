"""Maps of what a probe measured between two things: every layer with every other, or two directions in weight space."""

from collections.abc import Callable, Sequence

import altair as alt
import pandas as pd

from leadline.reports.charts.chart import Figure, Panel, spread
from leadline.reports.charts.probe_curves import PLACE, SHOWN_EPOCHS, SHOWN_LEVELS, at_epoch, describe_omitted
from leadline.text import join

SHOWN_PANELS = 12
PanelMaker = Callable[[pd.DataFrame], alt.LayerChart]


def arrange(figure: Figure, cells: pd.DataFrame, caption: list[str], said: Sequence[str], panel: PanelMaker) -> Figure:
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
                *describe_omitted(levels, shown_levels, "levels"),
                *describe_omitted(epochs, shown_epochs, "epochs"),
                *describe_omitted(places, shown, "panels"),
            ]
        ),
        figure.data,
        f"{figure.title}. {join(said, mark=';')}.",
        tuple(Panel(f"{at[3]}, {at_epoch(at[1])}", panel(found[at])) for at in shown),
        min(3, len(bases) if len(bases) > 1 else len(shown_epochs)),
    )


def draw_map(data: alt.InlineData, x: alt.X, y: alt.Y, colour: alt.Color, tips: list[alt.Tooltip]) -> alt.LayerChart:
    """Return cells of places x and y, coloured by a value."""
    # a little more than their places, so that cells leave no seams
    rectangles = alt.Chart(data).mark_rect(
        width=alt.RelativeBandSize(band=1.06), height=alt.RelativeBandSize(band=1.06)
    )
    return alt.LayerChart(layer=[rectangles.encode(x=x, y=y, color=colour, tooltip=tips)], height=210)


def map_axis(places: Sequence[float]) -> alt.Axis:
    """Return an axis that names at most eight of some places."""
    every = -(-len(places) // 8)
    return alt.Axis(values=[float(f"{place:.6g}") for place in places[::every]], labelAngle=0, format=".6~r")


def map_scale(places: Sequence[float]) -> alt.Scale:
    """Return a scale on which some places lie side by side."""
    # a place has the digits that `inline` leaves it
    return alt.Scale(domain=[float(f"{place:.6g}") for place in places], paddingInner=0, paddingOuter=0)
