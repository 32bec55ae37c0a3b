"""Where the spread between seeds comes from, as an object that prints and shows itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from leadline.analysis.variance import VarianceFindings
    from leadline.api.results import Results
    from leadline.reports.charts.chart import Figure, FigureChart


@dataclass(frozen=True, repr=False)
class Variance:
    """The share of each source of randomness in the spread between seeds; printed as text, drawn by `chart`."""

    findings: "VarianceFindings"
    results: "Results"
    repeated: bool  # whether a training that was repeated came to the same results, to the bit

    def __str__(self) -> str:
        from leadline.analysis.variance import variance_blocks
        from leadline.text.layout import to_text

        return to_text(*variance_blocks(self.findings, self.repeated))

    __repr__ = __str__

    @property
    def frame(self) -> "pd.DataFrame":
        """One row per arm, or difference, and source: subject, name, variance (squared points), share, low, high."""
        import pandas as pd

        from leadline.analysis.variance import variance_table
        from leadline.text.tables import to_frame

        return pd.concat([to_frame(variance_table(one)) for one in self.findings.spreads], ignore_index=True)

    @property
    def figure(self) -> "Figure":
        """The shares with their intervals."""
        from leadline.reports.charts.variance import variance_figure

        return variance_figure(self.findings)

    @property
    def chart(self) -> "FigureChart":
        """The figure as an Altair chart, displayed in notebooks."""
        return self.figure.chart()

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        from leadline.analysis.variance import variance_json

        return {**variance_json(self.findings), "repeated": self.repeated}
