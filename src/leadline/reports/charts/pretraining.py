"""What pre-training looks like: the first layer's filters and generated images, arm by arm, and how its error fell."""

from collections.abc import Iterator, Mapping

import altair as alt
import pandas as pd

from leadline.pretraining.pictures import Picture, Pictures
from leadline.reports.charts.chart import Figure, Panel, inline
from leadline.text import join

SHOWN_ARMS = 8
MAGNIFIED = 2
"""Pixels of a chart for each pixel of a picture, at most."""


def pretraining_figures(
    pictures: Mapping[str, Pictures], trials: pd.DataFrame, records: pd.DataFrame
) -> Iterator[Figure]:
    """Yield the pictures of each pre-trained arm at its first seed, and the layers' reconstruction errors.

    Args:
        pictures: by trial, of the trials that have any.
        trials: a row per trial: trial, arm, seed.
        records: a row per measured value.
    """
    first = trials.sort_values("seed", kind="stable").drop_duplicates("arm")
    arms = {arm: trial for trial, arm in zip(first["trial"], first["arm"], strict=True) if trial in pictures}
    shown = dict(list(arms.items())[:SHOWN_ARMS])
    panels = [
        Panel(f"{arm}: {what}", _panel(picture))
        for arm, trial in shown.items()
        for what, picture in _named(pictures[trial])
    ]
    more = f" {len(shown)} of {len(arms)} pre-trained arms are shown." if len(shown) < len(arms) else ""
    yield Figure(
        "pretraining-pictures",
        "First layer after pre-training",
        "Filters: the weights of up to 64 hidden units, spread evenly over all, each on its own scale; mid-grey is 0."
        f" Samples: images that the stack of machines generates from random starts. The first seed of each arm.{more}",
        pd.DataFrame({"arm": list(shown), "trial": list(shown.values())}),
        f"First-layer filters of {join(list(shown))}." if shown else "",
        tuple(panels),
        2,
    )
    rows = records[records["split"].str.startswith("pretraining-") & records["name"].eq("reconstruction_error")]
    rows = rows.assign(layer=rows["split"].str.removeprefix("pretraining-").astype("int64"))
    rows["pass"] = rows.groupby(["trial", "arm", "layer"])["step"].rank(method="dense").astype("int64")
    yield _errors(rows)


def _named(pictures: Pictures) -> Iterator[tuple[str, Picture]]:
    yield "filters", pictures.filters
    if pictures.samples is not None:
        yield "samples", pictures.samples


def _panel(picture: Picture) -> alt.LayerChart:
    image = alt.Chart(inline(pd.DataFrame({"url": [picture.data_uri]}), ["url"])).mark_image(aspect=True, smooth=False)
    corners = {"x": alt.value(0), "x2": alt.value("width"), "y": alt.value(0), "y2": alt.value("height")}
    chart = image.encode(url=alt.Url("url:N"), **corners)
    return alt.LayerChart(layer=[chart], height=min(360, MAGNIFIED * picture.height))


def _errors(rows: pd.DataFrame) -> Figure:
    """Return the reconstruction error of each layer by epoch of its own training, a panel for each arm."""
    name, title = "pretraining-errors", "Reconstruction error while each layer is pre-trained"
    if rows.empty:
        return Figure(name, title, "Not measured in this study.", rows)
    means = rows.groupby(["arm", "layer", "pass"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    panels = tuple(Panel(str(arm), _curves(own)) for arm, own in list(means.groupby("arm", sort=False))[:SHOWN_ARMS])
    ends = means.sort_values("pass").drop_duplicates(["arm", "layer"], keep="last").sort_values(["arm", "layer"])
    last = zip(ends["arm"], ends["layer"], ends["mean"], strict=True)
    said = join([f"{arm} layer {layer} {value:.3g}" for arm, layer, value in last], mark=";")
    return Figure(
        name,
        title,
        "Nats per unit of a layer's input; the mean over seeds. The input of the first layer is the image, that of the"
        " others the codes of the layer below, so errors of different layers cannot be compared.",
        means,
        f"{title}. At the end: {said}.",
        panels,
        min(3, len(panels)),
    )


def _curves(rows: pd.DataFrame) -> alt.LayerChart:
    x = alt.X("pass:Q", title="Epoch of the layer", axis=alt.Axis(tickMinStep=1))
    y = alt.Y("mean:Q", title="Reconstruction error (nats per unit)", scale=alt.Scale(zero=False))
    shade = alt.Opacity("layer:O", legend=None, scale=alt.Scale(range=[1.0, 0.35]))
    tips = [alt.Tooltip("layer:O"), alt.Tooltip("pass:Q"), alt.Tooltip("mean:Q", format=".4~g")]
    base = alt.Chart(inline(rows, ["layer", "pass", "mean"]))
    line = base.mark_line().encode(x=x, y=y, detail="layer:O", opacity=shade, tooltip=tips)
    last = base.transform_filter(f"datum.pass == {int(rows['pass'].max())}")
    label = last.mark_text(align="left", dx=4).encode(x=x, y=y, text=alt.Text("layer:O"))
    return alt.LayerChart(layer=[line, label], height=180)
