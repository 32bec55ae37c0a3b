"""Figures of the residual decomposition."""

from collections.abc import Iterator

import pandas as pd

from leadline.probes.snapshots.decomposition import DecompositionProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import curves, mark_places


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    shares = mark_places(rows[rows["quantity"].eq("share")], "number", "block")
    gaps = rows.loc[rows["quantity"].eq("gap"), "value"].dropna()
    caption = (
        "Share of the loss's gradient at each block's input that came directly through the shortcuts: its inner product"
        " with the whole gradient, divided by the squared norm of the whole; the rest came through the branches. Blocks"
        " are counted from the input; a plain network has no direct part. Where the gradient is 0, there is no share."
    )
    if len(gaps):
        caption += f" The two parts sum to autograd's gradient; the largest gap is {gaps.max():.1e} of its norm."
    figure = Figure("decomposition", DecompositionProbe.title, caption, shares)
    yield curves(figure, shares, ("Block", "Share of the direct part"), lines=[0, 1])
