"""Errors that a user can fix; each message is one line that says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class LeadlineError(Exception):
    """Base class of errors that the user can fix; the command line prints the message without a traceback."""


class SpecError(LeadlineError):
    """An invalid specification: an unknown key, a wrong type, or an invalid value or combination of values."""


class DataError(LeadlineError):
    """A data set file that is missing, damaged or malicious, or a split that the data are too small for."""


class StoreError(LeadlineError):
    """A store that cannot be opened, has an incompatible version, or lacks the requested study or trial."""


class LeadlineWarning(UserWarning):
    """Something that may make a result other than expected; the command line prints the message on one line."""


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return a one-line message for an unknown name that suggests the closest known name, or lists all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"unknown {what} {name!r}; {hint}"
