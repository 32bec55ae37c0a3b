"""Learning curves that grow: values of trials, read once, and their means over the finished trials of each arm."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leadline.live.snapshot import CurvePanel, Curves, Line
from leadline.reports.charts.chart import SHOWN_BASES, divide_arms, spread
from leadline.reports.charts.frames import CURVE_SPLITS, level_of
from leadline.store import TrialState
from leadline.store.following import Followed, Follower, Link, Progress
from leadline.text import plural

SPLITS = dict(zip(CURVE_SPLITS, ("Training", "Validation"), strict=True))
SHOWN_LEVELS, SHOWN_EPOCHS, SHOWN_SINGLE = 6, 120, 24

Version = tuple[TrialState, int, float | None]
"""State, epoch and seconds of a trial, one of which changes when its records do."""


@dataclass
class CurveReader:
    """Reads the curves of one study, those of a trial again only when it has gone on."""

    store: Follower
    _values: dict[str, tuple[Version, np.ndarray]] = field(default_factory=dict)  # trial -> float32 [series, epochs]
    _layout: "_Layout | None" = None
    _drawn: tuple[Curves, ...] = ()

    def read(self, followed: Followed, quantities: Mapping[str, str]) -> tuple[Curves, ...]:
        """Return the curves of some quantities; each has the title of its axis."""
        same = self._layout is not None and self._layout.links is followed.links
        layout = self._layout if same and self._layout is not None else _Layout.of(followed.links)
        wanted = [(split, quantity) for quantity in quantities for split in SPLITS]
        if self._update(layout, followed.progress, wanted) or not same:
            self._drawn = tuple(
                self._draw(layout, followed.progress, quantity, axis, len(SPLITS) * place)
                for place, (quantity, axis) in enumerate(quantities.items())
            )
        self._layout = layout
        return self._drawn

    def _update(self, layout: "_Layout", progress: Sequence[Progress], wanted: Sequence[tuple[str, str]]) -> bool:
        """Read the values of trials that have gone on; return whether there are any."""
        changed: dict[int, tuple[str, Version]] = {}
        for one in layout.places:
            link, now = layout.links[one.index], progress[one.index]
            version: Version = (now.state, now.epoch, now.seconds)
            known = self._values.get(link.trial)
            if (known is None and now.epoch) or (known is not None and known[0] != version):
                changed[link.id] = link.trial, version
        rows = self.store.values(list(changed), wanted) if changed else {}
        for number, (trial, version) in changed.items():
            own = rows.get(number, [])
            array = np.full((len(wanted), max((epoch for _, epoch, _ in own), default=0)), np.nan, np.float32)
            for place, epoch, value in own:
                if epoch:
                    array[place, epoch - 1] = value
            array[~np.isfinite(array)] = np.nan
            self._values[trial] = version, array
        return bool(changed)

    def _draw(self, layout: "_Layout", progress: Sequence[Progress], quantity: str, axis: str, first: int) -> Curves:
        finished: dict[tuple[str, str], list[np.ndarray]] = {}
        single: list[tuple[_Place, Progress, np.ndarray]] = []
        for one in layout.places:
            if (found := self._values.get(layout.links[one.index].trial)) is not None:
                if progress[one.index].state == "finished":
                    finished.setdefault((one.base, one.level), []).append(found[1])
                else:
                    single.append((one, progress[one.index], found[1]))
        single.sort(key=lambda item: item[1].state != "running")
        omitted = [*layout.omitted]
        if len(single) > SHOWN_SINGLE:
            count = plural(len(single), "trial that has", "trials that have")
            omitted.append(f"{SHOWN_SINGLE} of {count} not finished are drawn.")
        groups = divide_arms(layout.bases)
        panels = []
        for series, title in enumerate(SPLITS.values(), first):
            for level, group in itertools.product(layout.levels, groups):
                means = [
                    _mean(base, layout.bases.index(base), finished.get((base, level), []), series) for base in group
                ]
                alone = [
                    _single(one.base, layout.bases.index(one.base), now, array[series])
                    for one, now, array in single[:SHOWN_SINGLE]
                    if one.base in group and one.level == level
                ]
                lines, others = (tuple(line for line in some if line is not None) for some in (means, alone))
                if lines or others:
                    among = f"{group[0]} to {group[-1]}" if len(groups) > 1 else ""
                    panels.append(CurvePanel(", ".join(filter(None, (title, level, among))), lines, others))
        return Curves(quantity, axis, tuple(layout.bases), tuple(panels), " ".join(omitted))


@dataclass(frozen=True)
class _Place:
    """A trial that is drawn."""

    index: int  # in the study
    base: str
    level: str


@dataclass(frozen=True)
class _Layout:
    """The arms and levels that are drawn, and their trials."""

    links: tuple[Link, ...]
    bases: list[str]
    levels: list[str]
    places: list[_Place]
    omitted: list[str]

    @classmethod
    def of(cls, links: tuple[Link, ...]) -> "_Layout":
        every = [level_of(link.factors) for link in links]
        bases, levels = list(dict.fromkeys(link.base for link in links)), list(dict.fromkeys(every))
        drawn = bases[:SHOWN_BASES]
        chosen = spread(levels, max(2, SHOWN_LEVELS // len(divide_arms(drawn))))
        kept = set(drawn), set(chosen)
        places = [
            _Place(index, link.base, level)
            for index, (link, level) in enumerate(zip(links, every, strict=True))
            if link.base in kept[0] and level in kept[1]
        ]
        omitted = [*say_omitted(len(bases), len(drawn), "arms"), *say_omitted(len(levels), len(chosen), "levels")]
        return cls(links, drawn, chosen, places, omitted)


def say_omitted(every: int, shown: int, what: str) -> list[str]:
    """Return a sentence if not all items are drawn."""
    return [f"{shown} of {every} {what} are drawn; the report has more."] if shown < every else []


def _mean(base: str, place: int, arrays: Sequence[np.ndarray], series: int) -> Line | None:
    if not arrays:
        return None
    length = min(array.shape[1] for array in arrays)  # trials that stop early have fewer epochs
    stacked = np.stack([array[series, :length] for array in arrays])
    counts = np.isfinite(stacked).sum(0)
    epochs = _thin(np.flatnonzero(counts))
    if not len(epochs):
        return None
    drawn = stacked[:, epochs]
    values, low, high = np.nanmean(drawn, 0, dtype=np.float64), np.nanmin(drawn, 0), np.nanmax(drawn, 0)
    band = (_floats(low), _floats(high)) if len(arrays) > 1 else ((), ())
    return Line(base, place, _numbers(epochs), _floats(values), *band, trials=int(counts[epochs[-1]]))


def _single(base: str, place: int, now: Progress, values: np.ndarray) -> Line | None:
    epochs = _thin(np.flatnonzero(np.isfinite(values)))
    return Line(base, place, _numbers(epochs), _floats(values[epochs]), state=now.state) if len(epochs) else None


def _thin(epochs: np.ndarray) -> np.ndarray:
    return np.array(spread(epochs.tolist(), SHOWN_EPOCHS), dtype=np.int64)


def _numbers(epochs: np.ndarray) -> tuple[int, ...]:
    return tuple(int(epoch) + 1 for epoch in epochs)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(map(float, values))
