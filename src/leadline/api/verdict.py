"""The `Verdict` class."""

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from leadline.analysis.verdict import Findings


class Verdict:
    """Which arms are better, by how much, and with what confidence; it prints as text and displays itself in a
    notebook."""

    def __init__(self, findings: "Findings") -> None:
        """Wrap the findings of `leadline.analysis.verdict.analyze`."""
        self.findings = findings

    @property
    def contrasts(self) -> "pd.DataFrame":
        """One row per contrast, with the columns of `contrasts.csv` in a report, named as in `to_json`."""
        from leadline.analysis.verdict import contrasts_table
        from leadline.text.tables import to_frame

        return to_frame(contrasts_table(self.findings))

    @property
    def arms(self) -> "pd.DataFrame":
        """One row per arm, with the columns of `arms.csv` in a report, named as in `to_json`."""
        from leadline.analysis.verdict import arms_table
        from leadline.text.tables import to_frame

        return to_frame(arms_table(self.findings))

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, as `leadline verdict --json` prints it."""
        from leadline.analysis.verdict import to_json

        return to_json(self.findings)

    def __str__(self) -> str:
        from leadline.analysis.verdict import to_text

        return to_text(self.findings)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from leadline.analysis.verdict import arms_table, contrasts_table, headline, notes
        from leadline.text.tables import to_html

        lines = "".join(f"<p>{html.escape(line)}</p>" for line in headline(self.findings))
        tables = "".join(to_html(one(self.findings)) for one in (arms_table, contrasts_table))
        cautions = "".join(f"<li>{html.escape(note)}</li>" for note in notes(self.findings))
        return f"{lines}{tables}<ul>{cautions}</ul>"
