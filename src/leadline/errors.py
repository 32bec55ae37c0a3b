"""The errors that a user may cause: each message is one line that says what, where and what to do."""

import difflib
from collections.abc import Iterable


class LeadlineError(Exception):
    """An error that the user can fix; the command line prints its message alone, without a traceback."""


class SpecError(LeadlineError):
    """A specification that cannot be: an unknown key, a wrong type, an impossible value or combination."""


class DataError(LeadlineError):
    """A data set's file that is missing, damaged or hostile, or a split that the data cannot give."""


class StoreError(LeadlineError):
    """A store that cannot be opened, is of another version, or does not hold what was asked for."""


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """One line for a name that is not known: the nearest name where there is one, else all that are known."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"
