"""Where the spread between seeds comes from: the share of each source, with its interval, a panel for each arm."""

import altair as alt
import pandas as pd

from leadline.analysis.variance import Spread, VarianceFindings, label, spread_sentence
from leadline.reports.charts.chart import Figure, Panel, at_field, inline


def variance_figure(findings: VarianceFindings) -> Figure:
    """Return the shares of the variance of the test error, and of paired differences."""
    rows = [
        {"subject": one.subject, "source": label(part), "row": row, "share": 100 * part.share}
        | {"low": 100 * part.low, "high": 100 * part.high}
        for one in findings.spreads
        for row, part in enumerate(one.components)
    ]
    frame = pd.DataFrame(rows)
    return Figure(
        "variance",
        "Shares of the variance of the test error",
        f"Marks: the share of each source in the variance over {findings.levels**2} trainings; bars: its 95% interval."
        " What is left is what sources do together and not by themselves.",
        frame,
        " ".join(map(spread_sentence, findings.spreads)),
        tuple(Panel(one.subject, _shares(one, frame[frame["subject"].eq(one.subject)])) for one in findings.spreads),
    )


def _shares(spread: Spread, rows: pd.DataFrame) -> alt.LayerChart:
    scale = alt.Scale(domain=[0, 100], nice=False)
    x = alt.X("share:Q", title="Share of the variance (%)", axis=alt.Axis(tickCount=5), scale=scale)
    y = alt.Y("source:N", title=None, sort=[label(one) for one in spread.components], axis=alt.Axis(labelLimit=200))
    base = alt.Chart(inline(rows, ["source", "share", "low", "high"]))
    tips = [alt.Tooltip("source:N"), *(alt.Tooltip(f"{one}:Q", format=".0f") for one in ("share", "low", "high"))]
    bars = base.mark_rule(style="interval").encode(x=at_field(x, "low"), x2="high:Q", y=y)
    marks = base.mark_point(style="estimate", filled=True, size=90).encode(x=x, y=y, tooltip=tips)
    return alt.LayerChart(layer=[bars, marks], height=26 * len(rows))
