"""What every chart shares: the figure and its panels, the theme, the marks that tell arms apart, data put inline.

Charts name no colours: `theme` supplies them, so one chart serves light pages, dark pages and print. Arms differ in
colour, dash and marker together, so that no reader depends on colour alone.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from leadline.reports.charts.svg import draw_svg

DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 2, 1, 2], [1, 3])
MARKERS = (  # SVG paths within the square from -1 to 1
    "M-.9,0A.9,.9,0,1,1,.9,0A.9,.9,0,1,1,-.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.8H-1Z",
    "M0,-1.1L1.1,0L0,1.1L-1.1,0Z",
    "M0,1L1,-.8H-1Z",
    "M-.3,-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z",
    "M1,0L-.8,1V-1Z",
)
DISTINCT = len(MARKERS)
"""Arms that differ in colour, dash and marker at once, and that one panel of curves has at most."""
SHOWN_BASES = 3 * DISTINCT
"""Arms of a figure: beyond `DISTINCT`, each colour comes again with another dash and marker."""
CROSS = "M-1,-.7L-.7,-1L0,-.3L.7,-1L1,-.7L.3,0L1,.7L.7,1L0,.3L-.7,1L-1,.7L-.3,0Z"
RING = "M-.9,0A.9,.9,0,1,1,.9,0A.9,.9,0,1,1,-.9,0ZM-.5,0A.5,.5,0,1,0,.5,0A.5,.5,0,1,0,-.5,0Z"
DECISIONS = {"better": MARKERS[0], "worse": MARKERS[1], "equivalent": MARKERS[3], "undecided": RING}
DIVERGED = "diverged"
FONT = "-apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, Liberation Sans, sans-serif"


@dataclass(frozen=True)
class Palette:
    """The colours of a page or a paper: text, lines, ground, and one for each arm (Okabe & Ito 2008)."""

    ink: str
    muted: str
    rule: str
    ground: str
    arms: tuple[str, ...]


LIGHT = Palette(
    ink="#1f1f1c",
    muted="#5f5e58",
    rule="#e0ded6",
    ground="#ffffff",
    arms=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
DARK = Palette(
    ink="#e9e6df",
    muted="#aaa79e",
    rule="#393936",
    ground="#171816",
    arms=("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#ffffff"),
)
PAGE = Palette(  # the page's style sheet decides, and follows the reader's choice of light or dark
    ink="var(--ink)",
    muted="var(--muted)",
    rule="var(--rule)",
    ground="var(--ground)",
    arms=tuple(f"var(--arm-{number})" for number in range(1, DISTINCT + 1)),
)


@dataclass(frozen=True)
class Key:
    """One entry of a figure's legend; `arm` counts from 1 and chooses the colour, 0 is the colour of text."""

    label: str
    marker: str
    dash: tuple[int, ...] = ()
    arm: int = 0


@dataclass(frozen=True)
class Panel:
    """One view of a figure, its width left open."""

    title: str
    chart: alt.Chart | alt.LayerChart

    @cached_property
    def specification(self) -> dict[str, Any]:
        """Its Vega-Lite specification, without colours and type."""
        spec = self.chart.to_dict(validate=False)
        return {key: value for key, value in spec.items() if key != "config"}


@dataclass(frozen=True)
class Figure:
    """Panels that share axes and legend; where there are none, the caption says why."""

    name: str  # of its files
    title: str
    caption: str  # what is drawn, and what is not
    data: pd.DataFrame  # what is drawn, whole
    description: str = ""  # what a reader who cannot see it should know
    panels: tuple[Panel, ...] = ()
    columns: int = 1  # of panels, where there is room
    keys: tuple[Key, ...] = ()

    def chart(self, width: int = 680) -> "FigureChart":
        """Return all panels as one chart, about `width` pixels wide."""
        each = self._panel_width(width)
        views = (panel.chart.properties(width=each, title=panel.title or self.title) for panel in self.panels)
        return FigureChart(concat=list(views), columns=self.columns, description=self.description)

    def specification(self, width: int = 680) -> dict[str, Any]:
        """Return the Vega-Lite specification of `chart`, with the colours and type of a figure on paper."""
        each, views = self._panel_width(width), []
        datasets: dict[str, Any] = {}
        for panel in self.panels:
            view = {**panel.specification, "width": each, "title": panel.title or self.title}
            datasets |= view.pop("datasets", {})
            views.append({key: value for key, value in view.items() if key != "$schema"})
        return {
            "$schema": alt.SCHEMA_URL,
            "description": self.description,
            "columns": self.columns,
            "concat": views,
            "datasets": datasets,
            "config": theme(LIGHT, standalone=True),
        }

    def _panel_width(self, width: int) -> int:
        return max(140, width // self.columns - 48)


class FigureChart(alt.ConcatChart):
    """A figure's chart. A notebook shows it as SVG, which needs no network, unless an Altair renderer is enabled."""

    def _repr_mimebundle_(self, *args: Any, **kwds: Any) -> Any:
        if alt.renderers.active != "default":
            return super()._repr_mimebundle_(*args, **kwds)
        return {"image/svg+xml": draw_svg(self.to_dict(validate=False) | {"config": theme(LIGHT, standalone=True)})}


def theme(palette: Palette, standalone: bool) -> dict[str, Any]:
    """Return the Vega-Lite configuration that gives charts their colours and type.

    Args:
        palette: colours as CSS knows them, variables included.
        standalone: whether charts bring their own ground and legend; a page has its own, from `Figure.keys`.
    """
    text = {"labelColor": palette.muted, "titleColor": palette.ink, "labelFontSize": 11, "titleFontSize": 11}
    text |= {"titleFontWeight": "normal"}
    return {
        "background": palette.ground if standalone else None,
        "font": FONT if standalone else f"system-ui, {FONT}",
        "range": {"category": list(palette.arms), "heatmap": {"scheme": "viridis"}},
        "view": {"stroke": None},
        "axis": {
            **text,
            "titlePadding": 8,
            "labelPadding": 5,
            "gridColor": palette.rule,
            "domain": False,
            "ticks": False,
        },
        "axisX": {
            "grid": False,
            "domain": True,
            "domainColor": palette.muted,
            "ticks": True,
            "tickColor": palette.muted,
        },
        "legend": {
            **text,
            "orient": "bottom",
            "disable": not standalone,
            "title": None,
            "symbolOpacity": 1,
            "labelLimit": 300,
        },
        "title": {"color": palette.ink, "fontSize": 12, "fontWeight": 600, "anchor": "start", "offset": 8},
        "style": {
            "zero": {"color": palette.ink, "strokeWidth": 1},
            "margin": {"color": palette.muted, "opacity": 0.18},
            "interval": {"color": palette.ink, "strokeWidth": 2},
            "estimate": {"color": palette.ink, "opacity": 1},
            "seed": {"color": palette.muted, "strokeWidth": 1.2, "opacity": 1},
            "correct": {"color": palette.muted},
            "mistake": {"color": palette.arms[1]},
            "words": {"color": palette.ink, "fontSize": 12},
            "numbers": {"color": palette.muted, "fontSize": 11},
        },
    }


def arm_channels(bases: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """Return the colour, dash and marker of each arm, by its place among the arms drawn."""
    dashes, markers = ([one[_turned(place)] for place in range(len(bases))] for one in (DASHES, MARKERS))
    return (
        alt.Color("base:N", scale=alt.Scale(domain=list(bases))),  # whose colours come again, as the theme has them
        alt.StrokeDash("base:N", scale=alt.Scale(domain=list(bases), range=dashes)),
        alt.Shape("base:N", scale=alt.Scale(domain=list(bases), range=markers)),
    )


def legend_keys(bases: Sequence[str], dashed: bool = True) -> list[Key]:
    """Return the legend entries of arms that are drawn with `arm_channels`, with their dashes or only their marks."""
    return [
        Key(
            base,
            MARKERS[_turned(place)],
            tuple(DASHES[_turned(place)]) if dashed else (),
            place % DISTINCT + 1,
        )
        for place, base in enumerate(bases)
    ]


def _turned(place: int) -> int:
    """Return the place of an arm's dash and marker, so that no two arms share colour and marker."""
    return (place + place // DISTINCT) % DISTINCT


def divide_arms(bases: Sequence[str]) -> list[list[str]]:
    """Return arms in groups of about equal size, each for a panel.

    Example:
        >>> [len(group) for group in divide_arms(list("abcdefgh"))]
        [4, 4]
    """
    groups = max(1, math.ceil(len(bases) / DISTINCT))
    size = math.ceil(len(bases) / groups)
    return [list(bases[start : start + size]) for start in range(0, len(bases), size)] or [[]]


def at_field(axis: Any, field: str) -> Any:
    """Return the same axis for another field."""
    changed = axis.copy()
    changed.shorthand = f"{field}:Q"
    return changed


def name_axis(field: str, names: Sequence[str], title: str | None = None) -> alt.Y:
    """Return a vertical axis for names, which are written whole and one below the other."""
    return alt.Y(f"{field}:N", title=title, sort=list(names), axis=alt.Axis(labelLimit=320, grid=True))


def name_height(names: int) -> int:
    """Return the height of a panel with so many names on its vertical axis."""
    return 40 + 26 * names


def place_marks(category: alt.X | alt.Y, value: alt.Y, field: str) -> dict[str, Any]:
    """Return where marks lie: by a horizontal category at the height of a field, or by a vertical one along it."""
    if isinstance(category, alt.X):
        return {"x": category, "y": at_field(value, field)}
    return {"y": category, "x": alt.X(f"{field}:Q", title=value["title"], axis=value["axis"], scale=value["scale"])}


def at_edge(category: alt.X | alt.Y) -> dict[str, Any]:
    """Return where marks lie that have no value: at the upper edge, or at the right one beside vertical categories."""
    return (
        {"x": category, "y": alt.value(2)} if isinstance(category, alt.X) else {"y": category, "x": alt.value("width")}
    )


def inline(frame: pd.DataFrame, columns: Sequence[str]) -> alt.InlineData:
    """Put a frame into the chart itself: plain values, six significant digits.

    The values stand as JSON text, which Altair hands on as it is: lists it copies and checks, number by number.
    """
    rows = frame[list(columns)].to_dict("records")
    values = [{str(key): _plain(value) for key, value in row.items()} for row in rows]
    return alt.InlineData(values=json.dumps(values), format=alt.JsonDataFormat(type="json"))


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return str(value)


def grid_columns(panels: int) -> int:
    """Return how many columns a grid of so many panels has at most."""
    return panels if panels <= 3 else 2 if panels == 4 else 3


def most_panels(arms: int) -> int:
    """Return how many of so many arms have a panel of their own in a figure: each of 21, twelve of more."""
    return arms if arms <= SHOWN_BASES else 12


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many items, evenly over all, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """Return the rows of a frame as named tuples."""
    return frame.itertuples(index=False)
