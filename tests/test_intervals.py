"""What intervals of few trials cover, in a few of the cases of `benchmarks.intervals` and fewer studies."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STATED: dict[str, Any] = {
    "correlations": {"arms": (5, 6), "seeds": (3,), "compared": 50},
    "restricted_means": {"trials": (2, 3), "reaching": (0.3, 0.95)},
    "predictions": {"data_sets": (3, 5), "seeds": (10,), "between": (0.6,)},
}


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return importlib.import_module("benchmarks.intervals")


@pytest.mark.slow
@pytest.mark.parametrize("part", STATED)
def test_intervals_cover_what_they_state(part: str, intervals: ModuleType) -> None:
    rates = list(getattr(intervals, part)(200, **STATED[part]))
    assert [rate for rate in rates if not rate.kept] == []
    assert any(rate.least is not None for rate in rates)


def test_a_broken_rate_is_told_from_one_that_is_kept(intervals: ModuleType) -> None:
    rate = intervals.Rate
    assert rate("", "", 0.94, 1000, 0.95).kept and not rate("", "", 0.88, 1000, 0.95).kept
    assert rate("", "", 0.06, 1000, 0, 0.05).kept and not rate("", "", 0.24, 1000, 0, 0.05).kept
    assert rate("", "", 0.5, 1000, None).kept
