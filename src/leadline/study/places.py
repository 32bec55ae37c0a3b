"""Where the values of a study are written, so that errors about them can say so."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from leadline.errors import Problem, SpecError

Keys = tuple[int | str, ...]


@dataclass(frozen=True)
class Places:
    """Where the values of a study are written: in a file, in settings that override it, or in Python.

    Example:
        >>> places = Places("my.yaml", {("seeds",): (7, 1)}, {("training", "epochs"): "training.epochs"})
        >>> wrong = [Problem("training.epochs: 0 is too few", ("training", "epochs")), Problem("seeds: x", ("seeds",))]
        >>> print(places.locate(SpecError(*wrong)))
        my.yaml:7:1: seeds: x
        setting training.epochs: training.epochs: 0 is too few
    """

    shown: str = ""  # name of the file, or what else errors begin with
    marks: Mapping[Keys, tuple[int, int]] = field(default_factory=dict)  # line and column, from 1
    settings: Mapping[Keys, str] = field(default_factory=dict)  # keys that settings override -> the setting

    def locate(self, error: SpecError) -> SpecError:
        """Return an error with the place of each of its problems, each once, in the order of the file."""
        found = dict.fromkeys(sorted(error.problems, key=self._order))
        return SpecError(
            *(problem if problem.place else replace(problem, place=self._at(problem)) for problem in found)
        )

    def _order(self, problem: Problem) -> tuple[float, float]:
        return (math.inf, 0) if self._setting(problem) else self._mark(problem) or (0, 0)

    def _at(self, problem: Problem) -> str:
        if setting := self._setting(problem):
            return f"setting {setting}"
        mark = self._mark(problem)
        return f"{self.shown}:{mark[0]}:{mark[1]}" if mark else self.shown

    def _setting(self, problem: Problem) -> str:
        """Return the setting that gave the value; empty: none did."""
        path = problem.path
        for keys, name in self.settings.items():
            made = path and path not in self.marks and keys[: len(path)] == path  # a mapping around the setting
            if made or path[: len(keys)] == keys:
                return name
        return ""

    def _mark(self, problem: Problem) -> tuple[int, int] | None:
        """Return the line and column of the value, or else of the nearest one that it is inside."""
        path = problem.path
        return next((self.marks[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.marks), None)
