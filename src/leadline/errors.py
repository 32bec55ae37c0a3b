"""Errors that a user can fix; each message is one line that says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


class LeadlineError(Exception):
    """Base class of errors that the user can fix; the command line prints the message without a traceback."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The message, without line breaks of its own; errors that hold several problems have a line for each."""
        return (_one_line(self),)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a specification."""

    text: str  # what is wrong, under which keys, and what to do
    path: tuple[int | str, ...] = ()  # the keys that lead there
    place: str = ""  # where this is written, such as `study.yaml:4:12`, once that is known

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text

    def under(self, path: tuple[int | str, ...]) -> "Problem":
        """Return the problem of a specification that is found at a path inside another one."""
        return replace(self, text=f"{'.'.join(map(str, path))}: {self.text}", path=(*path, *self.path))


class SpecError(LeadlineError):
    """An invalid specification: an unknown key, a wrong type, or an invalid value or combination of values.

    Args:
        problems: everything that is wrong; the message has a line for each.

    Example:
        >>> error = SpecError("seeds: 0 is too few", Problem("name: 3 is not a text", ("name",), "study.yaml:1:1"))
        >>> print(error)
        seeds: 0 is too few
        study.yaml:1:1: name: 3 is not a text
    """

    def __init__(self, *problems: str | Problem) -> None:
        super().__init__(*problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong, each with the keys that lead there."""
        return tuple(one if isinstance(one, Problem) else Problem(str(one)) for one in self.args)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each problem."""
        return tuple(map(_one_line, self.problems))

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class DataError(LeadlineError):
    """A data set file that is missing, damaged or malicious, or a split that the data are too small for."""


class StoreError(LeadlineError):
    """A store that cannot be opened, has an incompatible version, or lacks the requested study or trial."""


class LeadlineWarning(UserWarning):
    """Something that may make a result other than expected; the command line prints the message on one line."""


def absence(path: Path, expected: Literal["file", "folder"]) -> str:
    """Return why there is no file, or no folder, at a path: it is the other of the two, or nothing is there.

    Example:
        >>> absence(Path("/"), "file"), absence(Path("/nowhere"), "folder")
        ('is a folder, where a file is expected', 'no such folder')
    """
    if not path.exists():
        return f"no such {expected}"
    return f"is a {'folder' if path.is_dir() else 'file'}, where a {expected} is expected"


MOST_NAMES = 30
"""Known names that a message lists; more are counted."""


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return a one-line message for an unknown name that suggests the closest known name, or lists them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names[:MOST_NAMES]) or 'none'}{more}"
    return f"unknown {what} {name!r}; {hint}"


def not_installed(what: str, package: str, extra: str | None = None) -> str:
    """Return a one-line message for a package that is not installed, with the command that installs it.

    Args:
        what: what needs the package.
        package: its name.
        extra: the extra of Leadline that contains it; None: there is none, so it is installed by its name.

    Example:
        >>> not_installed("tuning", "optuna", "tune")
        "tuning needs the package optuna, which is not installed; from a checkout: pip install '.[tune]'"
    """
    how = f"pip install {package}" if extra is None else f"from a checkout: pip install '.[{extra}]'"
    return f"{what} needs the package {package}, which is not installed; {how}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
