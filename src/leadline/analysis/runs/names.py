"""Names of runs, such as resnet20_seed3, from which the arm and the seed are taken."""

import re

import pandas as pd

from leadline.analysis.runs.columns import is_arm, is_pair
from leadline.analysis.runs.logs import RUN
from leadline.errors import DataError

GUESS = re.compile(
    r"(?:^|/)(?P<arm>[^/]*[^/_\-. ])[_\-. /]+(?:seed|run|rep|fold|s)[_\-=. ]?(?P<seed>\d+)(?:/|$)", re.IGNORECASE
)
"""An arm, a mark between, and a word for seed with its number, as one folder or as two."""

FIELD = re.compile(r"\{(\w+)\}")


def fill_from_names(frame: pd.DataFrame, pattern: str | None = None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a table with columns from the names of its runs, and what is said of them.

    Args:
        frame: a table, with the names of runs in its column run.
        pattern: how a name, or the folders at its end, are written, such as `{arm}_seed{seed}` or `{arm}/{seed}`, each
            field of which becomes a column. None: columns arm and seed are guessed if the table has none such and
            every name allows it.

    Raises:
        DataError: the pattern has no fields, does not fit a name, or contradicts a column.

    Example:
        >>> frame, said = fill_from_names(pd.DataFrame({"run": ["plain_s0", "resnet20_s0"]}))
        >>> frame.values.tolist()
        [['plain_s0', 'plain', 0], ['resnet20_s0', 'resnet20', 0]]
    """
    if pattern is None:
        return _guess(frame)
    if RUN not in frame:
        raise DataError(f"--pattern: the table has no column {RUN} with names of runs")
    found = frame[RUN].astype(str).map(_expression(pattern).search)
    if (wrong := found.isna()).any():
        raise DataError(f"--pattern {pattern!r} does not fit the run {frame.loc[wrong, RUN].iloc[0]!r}")
    filled = frame.copy()
    for field in FIELD.findall(pattern):
        values = _whole(found.map(lambda one, field=field: one[field]))
        if field in frame and (other := frame[field].astype(str) != values.astype(str)).any():
            raise DataError(
                f"--pattern: {field} is {values[other].iloc[0]} by the name of the run"
                f" {frame.loc[other, RUN].iloc[0]!r}, and {frame.loc[other, field].iloc[0]} in its column"
            )
        filled[field] = values
    return filled, ()


def _guess(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    lacking = [
        name
        for name, there in (("arm", is_arm), ("seed", is_pair))
        if not any(there(str(one)) for one in frame.columns)
    ]
    if RUN not in frame or not lacking:
        return frame, ()
    found = frame[RUN].astype(str).map(GUESS.search)
    if found.isna().any():
        return frame, ()
    filled = frame.assign(**{name: _whole(found.map(lambda one, name=name: one[name])) for name in lacking})
    shown = " and ".join(f"{name} {filled[name].iloc[0]}" for name in lacking)
    return filled, (
        f"Taken from the names of runs, such as {frame[RUN].iloc[0]}: {shown}; if that is wrong, give --pattern.",
    )


def _expression(pattern: str) -> re.Pattern[str]:
    """Return what finds a pattern's fields in the folders at the end of a name."""
    fields = FIELD.findall(pattern)
    if not fields or len(set(fields)) < len(fields):
        raise DataError(f"--pattern {pattern!r}: expected fields with different names, such as {{arm}}_seed{{seed}}")
    parts = FIELD.split(pattern)
    texts = [f"(?P<{part}>[^/]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
    return re.compile(f"(?:^|/){''.join(texts)}(?:/|$)")


def _whole(texts: pd.Series) -> pd.Series:
    """Return texts as whole numbers where all are."""
    return texts.astype(int) if texts.str.fullmatch(r"\d{1,18}").all() else texts
