"""Figures of probes that take a snapshot: of one trial, or of a study's arms side by side; each probe draws its own."""

from collections.abc import Sequence

import pandas as pd

from leadline.probes.snapshots import CustomProbe, SnapshotProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import prepare_rows


def figures(probe: SnapshotProbe, frame: pd.DataFrame, bases: Sequence[str] = ()) -> list[Figure]:
    """Return a probe's figures: one, or where what was measured asks for it, several.

    Args:
        probe: which one, from a study or from `leadline.probes.snapshots.find_probe`.
        frame: the probe's own columns, of one trial or stacked over trials and epochs, after `arm`, `base`, `seed` and
            `epoch`, the epochs that were trained: 0 is before the first step. Several results of one probe may be
            stacked as well: all frames of lesions, every kind of landscape or of Jacobian.
        bases: the study's arms without their levels, in its order, which gives each its colour; by default the frame's.

    Raises:
        DataError: a column is missing or holds no numbers, a trial has no name, or an epoch is no whole number from 0.
    """
    title = probe.title or probe.name
    if frame.empty:
        return [Figure(probe.name, title, "Not measured.", frame)]
    found = list(probe.draw(prepare_rows(probe.name, frame, probe.columns, bases)))
    if isinstance(probe, CustomProbe):
        return found
    text = "Not measured: none of the values is finite."
    return [figure for figure in found if figure.panels] or [Figure(probe.name, title, text, frame)]
