"""Figures of gradient noise."""

from collections.abc import Iterator

import pandas as pd

from leadline.probes.snapshots.noise import NoiseProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import by_arm, curves, mark_places
from leadline.text import join


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    layers = rows[rows["layer"].ne("all")]
    marks = mark_places(
        layers[layers["quantity"].eq("signal_to_noise")].assign(x=lambda own: own["depth"] + 1), "x", "layer"
    )
    scales = rows[rows["layer"].eq("all") & rows["quantity"].eq("noise_scale") & rows["value"].notna()]
    said = [f"{words}: {_from_to(own['value'])}" for words, own in by_arm(scales)]
    caption = (
        "Norm of each layer's gradient over the root mean square deviation of minibatch gradients from it, at the batch"
        " size measured; layers with parameters are counted from the input. 0 where no signal is detected."
    )
    if said:
        caption += f" Simple noise scale in images, over the seeds: {join(said, mark=';')}."
    figure = Figure("noise", NoiseProbe.title, caption, marks)
    yield curves(figure, marks, ("Layer", "Signal to noise"), log=True, lines=[1])


def _from_to(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
