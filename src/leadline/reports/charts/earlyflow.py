"""Early gradient flow against final error, with one mark per trial of a study."""

import altair as alt
import numpy as np
import pandas as pd

from leadline.analysis.diagnostics import Diagnostics
from leadline.reports.charts.chart import SHOWN_BASES, Figure, Panel, arm_channels, inline, legend_keys
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join


def early_flow(diagnostics: Diagnostics) -> Figure:
    """Return every trial's early gradient ratio against its final test error, coloured by arm.

    The caption is `Diagnostics.correlation`: their rank correlation over arms with its p-value, or why there is none.
    """
    title = "Early gradient flow and final error"
    early = diagnostics.early
    rows = early[np.isfinite(early["ratio"].astype("float64")) & np.isfinite(early["error"].astype("float64"))]
    if rows.empty:
        text = "No trial has both a gradient measured in its first epoch and a final test error."
        return Figure("early-flow", title, " ".join(filter(None, [text, diagnostics.correlation])), early)
    bases = list(rows["base"].unique())
    shown = bases[:SHOWN_BASES]
    caption = ["One mark per trial.", diagnostics.correlation, *describe_omitted(bases, shown, "arms")]
    said = [
        f"{arm}: log10 ratio {own['ratio'].mean():.2f}, error {own['error'].mean():.2f}%"
        for arm, own in rows.groupby("arm", sort=False)
    ]
    return Figure(
        "early-flow",
        title,
        " ".join(filter(None, caption)),
        early,
        f"{title}. Means: {join(said, mark=';')}.",
        (Panel("", _scatter(rows[rows["base"].isin(shown)], shown)),),
        1,
        tuple(legend_keys(shown, dashed=False)),
    )


def _scatter(rows: pd.DataFrame, bases: list[str]) -> alt.LayerChart:
    colour, _, shape = arm_channels(bases)
    low, high = float(rows["ratio"].min()), float(rows["ratio"].max())
    room = 0.04 * (high - low) or 0.5
    x = alt.X(
        "ratio:Q",
        title="log10 of the first over the last layer's gradient norm in epoch 1",
        axis=alt.Axis(tickCount=7, format="~g"),
        scale=alt.Scale(domain=[low - room, high + room], nice=False, zero=False),
    )
    y = alt.Y(
        "error:Q",
        title="Final test error (%)",
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(domain=[0, 1.05 * float(rows["error"].max()) or 1], nice=False),
    )
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("seed:N"), alt.Tooltip("ratio:Q", format=".2f")]
    tips.append(alt.Tooltip("error:Q", title="error (%)", format=".2f"))
    points = alt.Chart(inline(rows, ["arm", "base", "seed", "ratio", "error"]))
    points = points.mark_point(filled=True, size=60, opacity=0.8)
    return alt.LayerChart(layer=[points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)], height=240)
