"""From a store to the runs that trackers show."""

from collections.abc import Iterable, Iterator
from typing import Any

from leadline.parts.metrics import FinalMetric, metrics
from leadline.reports.trackers import TrackedRun
from leadline.store.following import AT_ONCE, Followed, Follower, Link, Progress


class StoredRuns:
    """A study's runs, read again and again: each time those that have changed.

    Args:
        store: may be written to by others meanwhile.
        study: name.
    """

    def __init__(self, store: Follower, study: str) -> None:
        self._store, self._study = store, study
        self._before: dict[tuple[int, str], Progress] = {}
        self._followed: Followed | None = None
        self._specs: dict[int, dict[str, Any]] = {}

    def read(self) -> Iterator[TrackedRun]:
        """Yield the runs that have changed since they were last read, in the study's order.

        Raises:
            StoreError: there is no such study, or the store cannot be read.
        """
        self._followed = followed = self._store.progress(self._study, self._followed)
        changed = [
            (link, now)
            for link, now in zip(followed.links, followed.progress, strict=True)
            if _mark(now) != _mark(self._before.get((link.id, link.arm)))
        ]
        for start in range(0, len(changed), AT_ONCE):
            yield from self._read(changed[start : start + AT_ONCE])

    @property
    def ids(self) -> list[str]:
        """Identifiers of all runs, as they were last read."""
        assert self._followed is not None
        return [self._run(link, "waiting", {}, {}).id for link in self._followed.links]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials in each state, as they were last read."""
        assert self._followed is not None
        states = [one.state for one in self._followed.progress]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def _read(self, changed: list[tuple[Link, Progress]]) -> Iterator[TrackedRun]:
        ids = [link.id for link, _ in changed]
        self._specs |= self._store.specs([id_ for id_ in ids if id_ not in self._specs])
        records = self._store.records(ids)
        for link, now in changed:
            yield self._run(link, now.state, self._specs[link.id], _points(records.get(link.id, ())))
            self._before[link.id, link.arm] = now

    def _run(self, link: Link, state: Any, spec: dict[str, Any], points: dict[int, dict[str, float]]) -> TrackedRun:
        return TrackedRun(self._study, link.trial, link.arm, link.base, link.factors, link.seed, state, spec, points)


def _mark(now: Progress | None) -> tuple[object, ...] | None:
    return None if now is None else (now.state, now.epoch, now.seconds)


def _points(records: Iterable[tuple[int, str, str, float]]) -> dict[int, dict[str, float]]:
    """Return epoch -> name -> value; values of the final network have the names of their metrics.

    Of an epoch with several values of one name, the last is taken.
    """
    final = {one.record: one.name for one in metrics().values() if isinstance(one, FinalMetric)}
    points: dict[int, dict[str, float]] = {}
    for epoch, split, name, value in records:
        points.setdefault(epoch, {})[final.get((split, name), f"{split}/{name}")] = value
    return points
