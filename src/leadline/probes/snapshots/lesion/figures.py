"""Figures of lesions."""

from collections.abc import Iterator

import pandas as pd

from leadline.errors import DataError
from leadline.probes.snapshots.lesion import LesionProbe
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.probe_curves import PLACE, curves, mark_places, over_seeds
from leadline.text import plural


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    kinds = {"number", "count", "tau"} & {*rows.columns}
    if not kinds:
        has = ", ".join(map(str, rows.columns))
        raise DataError(f"frame of probe lesion: none of the columns number, count, tau, only {has}")
    nothing = rows.iloc[:0]
    deleted = rows[rows["number"].notna()] if "number" in kinds else nothing
    several = rows[rows["count"].notna()] if "count" in kinds else nothing
    swapped = rows[rows["tau"].notna()] if "tau" in kinds else nothing
    rules = _intact(deleted)
    aside = " Horizontal lines: the whole networks." if len(rules) else ""
    y = "Error (%)"
    if len(deleted):
        marks = mark_places(deleted.rename(columns={"error": "value"}), "number", "block")
        caption = (
            "Error after one block is deleted without further training: the branch of a residual block is left out,"
            f" a plain block is replaced by the identity. Blocks are counted from the input.{aside}"
        )
        lost = deleted.loc[deleted["error"].isna(), ["arm", "number"]].drop_duplicates()
        if len(lost):
            blocks = plural(len(lost), "block")
            caption += f" Left out: {blocks} of plain arms, which the identity cannot replace (the shape changes)."
        figure = Figure("lesion", LesionProbe.title, caption, marks)
        yield curves(figure, marks, ("Block deleted", y), rules=rules, holds=[0])
    if len(several):
        marks = mark_places(several.rename(columns={"error": "value"}), "count")
        caption = f"Error after this many randomly drawn blocks are deleted at once, averaged over the draws.{aside}"
        figure = Figure("lesion-several", "Error with several blocks deleted", caption, marks)
        yield curves(figure, marks, ("Blocks deleted", y), rules=rules, holds=[0])
    if len(swapped):
        swapped = swapped.rename(columns={"error": "value"}).assign(draw=lambda own: own.groupby(PLACE).cumcount())
        marks = over_seeds(swapped.rename(columns={"tau": "x"}), ["draw", "x"])
        caption = (
            "Error after blocks of one shape are swapped, one mark per draw, by Kendall's rank correlation of the new"
            f" order with the network's own: 1 is unchanged.{aside}"
        )
        figure = Figure("lesion-order", "Error with blocks in another order", caption, marks)
        axes = ("Kendall's tau of the new order", y)
        yield curves(figure, marks, axes, rules=rules, holds=[0], whole=False, joined=False)


def _intact(deleted: pd.DataFrame) -> pd.DataFrame:
    """Return the error of the whole network by arm and epoch: what is left where the increase is taken off."""
    if deleted.empty or "error_increase" not in deleted:
        return pd.DataFrame(columns=[*PLACE, "mean"])
    return over_seeds(deleted.assign(value=deleted["error"] - deleted["error_increase"]), [])
