"""Curves of several splits in one panel: how far training is from validation and test, arm by arm and by depth."""

from collections.abc import Iterator, Sequence

import altair as alt
import pandas as pd

from leadline.reports.charts.axes import magnitudes, whole_numbers
from leadline.reports.charts.chart import (
    DISTINCT,
    Figure,
    Panel,
    arm_channels,
    at_field,
    each,
    grid_columns,
    inline,
    legend_keys,
    most_panels,
    spread,
)
from leadline.reports.charts.frames import Curves, curve_frame, horizontal_factor, is_number, level_of, unfinished_frame
from leadline.reports.charts.lines import SHOWN_EPOCHS, band_words, describe_gaps, line_figure
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join

SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}
"""Splits that are evaluated during training -> how legends call them."""

RUNNING = (
    "Training values are running averages over the batches of an epoch, in training mode, while the network changes;"
    " validation and test values are of the network at the end of the epoch, in evaluation mode."
)
"""What a reader must know before comparing curves of training with others."""

MINIMISED = (
    "A training loss is the one that is minimised, with label smoothing, mixed images or a loss of its own where a"
    " recipe has them; validation and test losses are those of the task."
)
"""The same of losses."""

WIDTHS = {"train": 1.0, "validation": 2.8}
"""Widths of lines by depth, as in He et al. 2015, figure 4: training thin, validation bold."""


def about_training(quantity: str) -> tuple[str, ...]:
    """Return what a reader must know before comparing curves of a record in training with others."""
    return (RUNNING, MINIMISED) if quantity == "loss" else (RUNNING,)


def fit_curves(
    trials: pd.DataFrame,
    curves: Curves,
    quantity: str,
    axis: str,
    splits: Sequence[str] = tuple(SPLITS),
    notable: Sequence[str] = (),
) -> Iterator[Figure]:
    """Yield the curves of a record by split, a panel for each arm; nothing unless two splits have it.

    Args:
        trials, curves: of a study.
        quantity: the name of the record.
        axis: title of its axis.
        splits: that are drawn where they were evaluated.
        notable: arms with their levels that are drawn before others.
    """
    bands, loose = (
        _by_split(frame(trials, curves, quantity, splits), splits) for frame in (curve_frame, unfinished_frame)
    )
    drawn = [SPLITS[one] for one in splits if SPLITS[one] in {*bands["base"], *loose["base"]}]
    if len(drawn) < 2:
        return
    named = join([name.lower() for name in drawn])
    caption = [*band_words(bands), *(about_training(quantity) if "Training" in drawn else ())]
    if "Test" in drawn:
        caption.append("Test values by epoch are shown only: nothing was chosen by them.")
    caption += describe_gaps(curves, quantity, splits)
    if not loose.empty:
        caption.append("Thin lines: trials that did not finish, each by itself; a cross marks where one diverged.")
    yield line_figure(
        Figure(f"{quantity}-fit", f"{quantity[0].upper()}{quantity[1:]} of each arm: {named}", "", bands),
        bands.rename(columns={"epoch": "x"}),
        loose.rename(columns={"epoch": "x"}),
        caption,
        ("Epoch", axis),
        {"": ""},
        most_levels=most_panels(bands["level"].nunique()),
        levels_are="arms",
        notable=notable,
    )


def _by_split(frame: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Return a frame of curves in which a split takes the place of an arm, and an arm that of a level."""
    order = frame["split"].map({split: place for place, split in enumerate(splits)})
    frame = frame.assign(base=frame["split"].map(SPLITS), level=frame["arm"], split="", order=order)
    return frame.sort_values("order", kind="stable").drop(columns="order")


def depth_curves(trials: pd.DataFrame, curves: Curves) -> Iterator[Figure]:
    """Yield the error of training and validation by epoch, a panel for each arm and in it a colour for each depth.

    Depth is the first factor whose levels are numbers; nothing is yielded without one.
    """
    factor, others = horizontal_factor(trials)
    bands = curve_frame(trials, curves, "error", tuple(WIDTHS))
    known = dict(zip(trials["arm"], trials["factors"], strict=True))
    values = {arm: factors[factor] for arm, factors in known.items() if factor is not None and factor in factors}
    if bands.empty or not all(map(is_number, values.values())):
        return
    bands = bands[bands["arm"].isin(values)].assign(
        depth=lambda rows: [values[arm] for arm in rows["arm"]],
        panel=lambda rows: [
            ", ".join(filter(None, (base, level_of({key: known[arm][key] for key in others}))))
            for arm, base in zip(rows["arm"], rows["base"], strict=True)
        ],
    )
    depths, panels = sorted(bands["depth"].unique()), list(bands["panel"].unique())
    if len(depths) < 2:
        return
    shown, shown_panels = spread(depths, DISTINCT), spread(panels, SHOWN_PANELS)
    every_epoch = sorted(bands["epoch"].unique())
    epochs = spread(every_epoch, SHOWN_EPOCHS)
    drawn = bands[bands["depth"].isin(shown) & bands["panel"].isin(shown_panels) & bands["epoch"].isin(epochs)]
    drawn = drawn.assign(base=[f"{factor} = {depth:g}" for depth in drawn["depth"]], x=drawn["epoch"])
    levels = [f"{factor} = {depth:g}" for depth in shown]
    y = magnitudes("Error (%)", [*drawn["mean"]])
    x = whole_numbers("Epoch", bands["epoch"])
    ends = bands[bands["epoch"].eq(bands.groupby("arm")["epoch"].transform("max"))]
    said = [f"{row.arm}, {SPLITS[row.split].lower()}: {row.mean:.3g}%" for row in each(ends)]
    title = f"Error during training by {factor}"
    yield Figure(
        "error-by-depth",
        title,
        " ".join(
            [
                "Thin lines: training; bold lines: validation; mean over the seeds of the finished trials"
                + (", as in He et al. 2015, figure 4." if "." not in str(factor) else "."),
                RUNNING,
                *describe_gaps(curves, "error", tuple(WIDTHS)),
                *describe_omitted(every_epoch, epochs, "epochs"),
                *describe_omitted(depths, shown, f"levels of {factor}"),
                *describe_omitted(panels, shown_panels, "arms"),
            ]
        ),
        bands.drop(columns="panel"),
        f"{title}. At the right end of the curves: {join(said, mark=';')}.",
        tuple(Panel(panel, _thin_and_bold(drawn[drawn["panel"].eq(panel)], levels, x, y)) for panel in shown_panels),
        grid_columns(len(shown_panels)),
        tuple(legend_keys(levels)),
    )


SHOWN_PANELS = 12


def _thin_and_bold(rows: pd.DataFrame, levels: Sequence[str], x: alt.X, y: alt.Y) -> alt.LayerChart:
    colour, dash, shape = arm_channels(levels)
    tips = [
        *(alt.Tooltip(f"{field}:N") for field in ("base", "split")),
        alt.Tooltip("x:Q", title="epoch"),
        alt.Tooltip("mean:Q", title="error (%)", format=".3~g"),
    ]
    layers: list[alt.Chart] = []
    for split, width in WIDTHS.items():
        own = rows[rows["split"].eq(split)]
        if own.empty:
            continue
        chart = alt.Chart(inline(own, ["base", "split", "x", "mean"]))
        line = chart.mark_line(strokeWidth=width, clip=True)
        layers.append(line.encode(x=x, y=at_field(y, "mean"), color=colour, strokeDash=dash, tooltip=tips))
        ends = alt.Chart(inline(own[own["x"].eq(own["x"].max())], ["base", "split", "x", "mean"]))
        points = ends.mark_point(filled=True, size=40, opacity=1)
        layers.append(points.encode(x=x, y=at_field(y, "mean"), color=colour, shape=shape, tooltip=tips))
    return alt.LayerChart(layer=layers, height=220)
