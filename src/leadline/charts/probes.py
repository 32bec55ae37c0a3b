"""Figures of the deeper probes: what was measured in one trial, or in a study's arms side by side.

Curves are `probechart`'s, maps `probemaps`'s; here stands what is drawn of each probe, and what its caption says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leadline.charts.chart import Figure
from leadline.charts.probe_curves import PLACE, by_arm, curves, over_seeds, prepared
from leadline.charts.probe_maps import ALIKE, alike_layers, loss_planes
from leadline.charts.probe_spectrum import SPECTRUM, spectra
from leadline.errors import DataError, SpecError, unknown
from leadline.text import join, plural

Drawer = Callable[[pd.DataFrame], Iterator[Figure]]


def figures(name: str, frame: pd.DataFrame, bases: Sequence[str] = ()) -> list[Figure]:
    """Return a probe's figures: one, or where what was measured asks for it, several.

    Args:
        name: of the probe, as in `leadline.probes.catalog.PROBES`.
        frame: the probe's own columns, of one trial or stacked over trials and epochs, after `arm`, `base`, `seed` and
            `epoch`, the epochs that were trained: 0 is before the first step. Several results of one probe may be
            stacked as well: all frames of `leadline.probes.lesion`, every kind of landscape or of Jacobian.
        bases: the study's arms without their levels, in its order, which gives each its colour; by default the frame's.

    Raises:
        SpecError: there is no such probe.
        DataError: a column is missing or holds no numbers, a trial has no name, or an epoch is no whole number from 0.
    """
    if name not in _DRAWN:
        raise SpecError(unknown("probe", name, _DRAWN))
    drawn = _DRAWN[name]
    if frame.empty:
        return [Figure(name, drawn.title, "Not measured.", frame)]
    found = list(drawn.figures(prepared(name, frame, drawn.columns, bases)))
    text = "Not measured: none of the values is finite."
    return [figure for figure in found if figure.panels] or [Figure(name, drawn.title, text, frame)]


# --- gradients


def _decomposition(rows: pd.DataFrame) -> Iterator[Figure]:
    shares = _marked(rows[rows["quantity"].eq("share")], "number", "block")
    gaps = rows.loc[rows["quantity"].eq("gap"), "value"].dropna()
    caption = (
        "Share of the loss's gradient at each block's input that came directly through the shortcuts: its inner product"
        " with the whole gradient, divided by the squared norm of the whole; the rest came through the branches. Blocks"
        " are counted from the input; a plain network has no direct part. Where the gradient is 0, there is no share."
    )
    if len(gaps):
        caption += f" The two parts sum to autograd's gradient; the largest gap is {gaps.max():.1e} of its norm."
    figure = Figure("decomposition", _DRAWN["decomposition"].title, caption, shares)
    yield curves(figure, shares, ("Block", "Share of the direct part"), lines=[0, 1])


def _paths(rows: pd.DataFrame) -> Iterator[Figure]:
    rows = rows.rename(columns={"length": "x"})
    one = over_seeds(rows.rename(columns={"norm": "value"}), ["x"])
    quartiles = rows.groupby([*PLACE, "x"], sort=False).agg(low=("norm_low", "min"), high=("norm_high", "max"))
    one = one.drop(columns=["low", "high"]).merge(quartiles.reset_index(), on=[*PLACE, "x"])
    every = over_seeds(rows.rename(columns={"sum_norm": "value"}), ["x"])
    x = "Branches on the path"
    caption = (
        "Norm of the loss's gradient at the first block's input by the number of branches on its way back. Filled:"
        " one path, the mean over randomly drawn paths with their quartiles as a band; hollow: the exact sum over all"
        " paths of that length. A plain network has only one path and is not drawn."
    )
    parts = {"one": "one path", "all": "all paths of a length"}
    bands = "of one path, from the smallest to the largest quartile of a seed; of all, the range over seeds"
    marks = pd.concat([one.assign(part="one"), every.assign(part="all")], ignore_index=True)
    yield curves(
        Figure("paths", _DRAWN["paths"].title, caption, marks), marks, (x, "Norm"), log=True, parts=parts, bands=bands
    )
    bound = over_seeds(rows.rename(columns={"share": "value"}), ["x"])
    exact = over_seeds(rows.rename(columns={"sum_share": "value"}), ["x"])
    marks = pd.concat([bound.assign(part="bound"), exact.assign(part="exact")], ignore_index=True)
    caption = (
        "Filled: the norm of one path times the number of paths of its length, as a share over all lengths: what they"
        " would contribute if they all pointed in one direction. Hollow: the exact contribution of all paths of a"
        " length: its inner product with the whole gradient over its squared norm, negative where they oppose it."
    )
    parts = {"bound": "if paths agreed", "exact": "exact"}
    figure = Figure("path-shares", "Share of the gradient by path length", caption, marks)
    yield curves(figure, marks, (x, "Share of the gradient"), parts=parts, lines=[0])


def _jacobian(rows: pd.DataFrame) -> Iterator[Figure]:
    parts = {"largest": "largest", "smallest": "smallest"}
    for kind, (what, x) in _MAPS.items():
        own = rows[rows["kind"].eq(kind)]
        if own.empty:
            continue
        # the images stand before the first place
        images = own["depth"].eq(0) & own["map"].eq("images")
        own = own.assign(x=own["depth"] + (0 if images.any() else 1))
        marks = over_seeds(own.rename(columns={"map": "place", "extreme": "part"}), ["part", "x", "place"], "median")
        caption = (
            f"The largest (filled) and the smallest (hollow) singular value of the Jacobian {what}: the largest and"
            " the smallest factor by which a small change is stretched on the way. The median over images."
        )
        inexact = (own["error"] / own["value"].where(own["value"].gt(0))).max()
        if inexact > 0.01:
            caption += (
                f" Estimates by Lanczos steps: a singular value lies within {inexact:.0%} of each mark, or nearer."
            )
        figure = Figure(_with_kind("jacobian", kind), f"{_DRAWN['jacobian'].title} {what}", caption, marks)
        yield curves(figure, marks, (x, "Singular value"), log=True, parts=parts, lines=[1])


_MAPS = {
    "to-output": ("from each place to the output", "Where the map starts (0: the images)"),
    "from-input": ("from the images to each place", "Where the map ends"),
    "across": ("across each block", "Block"),
}


def _shattered(rows: pd.DataFrame) -> Iterator[Figure]:
    # of every line of places the points' pairs at a distance; all pairs of two different points count alike
    lags = rows.groupby([*PLACE, "seed", "place", "depth"], sort=False)["distance"].rank(method="dense") - 1
    points = lags.groupby([rows[field] for field in (*PLACE, "seed", "place", "depth")]).transform("max") + 1
    inside = rows.assign(pairs=points - lags, lag=lags)
    # the images are as far from the output as the first place, and stand for more layers
    if inside["depth"].max() > 0:
        inside = inside[inside["depth"].gt(0)]
    inside = inside[np.isfinite(inside["correlation"].astype("float64"))]
    different = inside[inside["lag"].gt(0)]
    different = different.assign(weighed=different["correlation"] * different["pairs"])
    place = [*PLACE, "seed", "blocks_to_output", "place"]
    sums = different.groupby(place, sort=False)[["weighed", "pairs"]].sum().reset_index()
    sums = sums.assign(value=sums["weighed"] / sums["pairs"]).rename(columns={"blocks_to_output": "x"})
    marks = over_seeds(sums, ["x", "place"]).sort_values("x", kind="stable")
    caption = (
        "Correlation of the gradients of one output at two points on the line between two images, averaged over all"
        " pairs of points, by the number of blocks that the gradient has passed on its way back: 1 means identical, 0"
        " as different as white noise. Where gradients are 0, there is no correlation."
    )
    axes = ("Blocks that the gradient passed on its way back", "Correlation")
    figure = Figure("shattered", _DRAWN["shattered"].title, caption, marks)
    yield curves(figure, marks, axes, lines=[0], holds=[1])
    deepest = inside[inside["blocks_to_output"].eq(inside.groupby("arm")["blocks_to_output"].transform("max"))]
    marks = over_seeds(deepest.rename(columns={"distance": "x", "correlation": "value"}), ["x", "place"])
    caption = (
        "The same correlation with respect to the input of the first block, where the gradient has passed all of them,"
        " by the distance between the two points as a share of the line between the two images."
    )
    figure = Figure("shattered-distance", "Similarity of gradients by distance", caption, marks)
    yield curves(figure, marks, ("Distance of the two points", "Correlation"), whole=False, lines=[0], holds=[1])


def _noise(rows: pd.DataFrame) -> Iterator[Figure]:
    layers = rows[rows["layer"].ne("all")]
    marks = _marked(
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
    figure = Figure("noise", _DRAWN["noise"].title, caption, marks)
    yield curves(figure, marks, ("Layer", "Signal to noise"), log=True, lines=[1])


# --- errors and losses


def _lesion(rows: pd.DataFrame) -> Iterator[Figure]:
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
        marks = _marked(deleted.rename(columns={"error": "value"}), "number", "block")
        caption = (
            "Error after one block is deleted without further training: the branch of a residual block is left out,"
            f" a plain block is replaced by the identity. Blocks are counted from the input.{aside}"
        )
        lost = deleted.loc[deleted["error"].isna(), ["arm", "number"]].drop_duplicates()
        if len(lost):
            blocks = plural(len(lost), "block")
            caption += f" Left out: {blocks} of plain arms that no identity can replace, because the shape changes."
        figure = Figure("lesion", _DRAWN["lesion"].title, caption, marks)
        yield curves(figure, marks, ("Block deleted", y), rules=rules, holds=[0])
    if len(several):
        marks = _marked(several.rename(columns={"error": "value"}), "count")
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


def _landscape(rows: pd.DataFrame) -> Iterator[Figure]:
    lost = "" if np.isfinite(rows["loss"].astype("float64")).all() else " Points without a finite loss are left out."
    for kind, (name, title, caption, x) in _WAYS.items():
        own = rows[rows["kind"].eq(kind)]
        marks = over_seeds(own.rename(columns={"loss": "value"}), ["x"])
        if kind == "between":
            hills = [f"{words}: {_hill(line):.3g}" for words, line in by_arm(marks[marks["x"].between(0, 1)])]
            caption += (
                f" Height of the barrier above the straight line between the two losses: {join(hills, mark=';')}."
            )
        figure = Figure(name, title, caption + lost, marks)
        yield curves(figure, marks, (x, "Loss"), log=_wide(marks), whole=False)
    yield loss_planes(rows[rows["kind"].eq("plane")])


_WAYS = {
    "line": (
        "landscape",
        "The loss around the network, along a line",
        "Mean loss over the images when every filter of the network moves along a random direction, in steps as long as"
        " the filter itself; 0 is the network as it is.",
        "Along the direction",
    ),
    "between": (
        "landscape-between",
        "The loss between two networks",
        "Mean loss over the images on the straight line between two networks: 0 is the first, 1 the second.",
        "From the first network to the second",
    ),
}


def _hill(line: pd.DataFrame) -> float:
    """Return how far the loss rises above the straight line between its ends: Frankle et al. 2020, section 3."""
    line = line.sort_values("x")
    x, loss = line["x"].to_numpy(), line["mean"].to_numpy()
    return float((loss - np.interp(x, x[[0, -1]], loss[[0, -1]])).max()) if len(x) > 1 else float("nan")


def _wide(marks: pd.DataFrame) -> bool:
    return bool(marks["low"].gt(0).all() and marks["high"].max() > 20 * marks["low"].min())


# --- what they share


def _marked(rows: pd.DataFrame, x: str, place: str | None = None) -> pd.DataFrame:
    """Return marks by a column of places, each with its name where there is one."""
    rows = rows.rename(columns={x: "x"} | ({place: "place"} if place else {}))
    return over_seeds(rows, ["x", "place"] if place else ["x"])


def _from_to(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _with_kind(name: str, kind: str) -> str:
    return name if kind == "to-output" else f"{name}-{kind}"


@dataclass(frozen=True)
class _Drawn:
    """What is drawn of one probe."""

    title: str
    columns: tuple[str, ...]  # that its frame must have
    figures: Drawer


def _single(draw: Callable[[pd.DataFrame], Figure]) -> Drawer:
    def figures(rows: pd.DataFrame) -> Iterator[Figure]:
        yield draw(rows)

    return figures


_DRAWN: Mapping[str, _Drawn] = {
    "cka": _Drawn(
        ALIKE,
        ("row", "column", "row_depth", "column_depth", "cka"),
        _single(alike_layers),
    ),
    "decomposition": _Drawn(
        "Share of the gradient through the shortcuts",
        ("number", "block", "quantity", "value"),
        _decomposition,
    ),
    "hessian": _Drawn(SPECTRUM, ("quantity", "index", "x", "value"), _single(spectra)),
    "jacobian": _Drawn(
        "Singular values of the Jacobian", ("kind", "map", "depth", "extreme", "value", "error"), _jacobian
    ),
    "landscape": _Drawn("The loss around the network", ("kind", "x", "y", "loss"), _landscape),
    "lesion": _Drawn("Error with one block deleted", ("error",), _lesion),
    "noise": _Drawn("Signal and noise of the gradient by layer", ("layer", "depth", "quantity", "value"), _noise),
    "paths": _Drawn(
        "Gradient by path length",
        ("length", "norm", "norm_low", "norm_high", "share", "sum_norm", "sum_share"),
        _paths,
    ),
    "shattered": _Drawn(
        "Similarity of the gradients of two inputs",
        ("place", "depth", "blocks_to_output", "distance", "correlation"),
        _shattered,
    ),
}
