"""Gradient flow that grows: the gradient norm of each layer in each epoch, of the first seeds of some arms."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from leadline.errors import DataError
from leadline.live.curves import say_omitted
from leadline.live.snapshot import Flow, FlowMap
from leadline.probes.table import ACTIVATION_GRADIENT, WEIGHT_GRADIENT, FlowTable, block_of
from leadline.reports.charts.chart import spread
from leadline.reports.charts.heat import DECADES, SHOWN_EPOCHS, SHOWN_LAYERS, SHOWN_PANELS
from leadline.store.following import Followed, Follower, Link, Progress

SHOWN_SEEDS = 3
AT_ONCE = 200
"""Measurements that are read at a time, so that an update of the page never takes long; the next ones follow."""

Profile = tuple[str, tuple[str, ...], np.ndarray]
"""Kind of gradient, names of layers from the input, and the median norm of each over an epoch's steps, [layers]."""


@dataclass
class FlowReader:
    """Reads the gradient flow of one study, each epoch of a trial once."""

    store: Follower
    _profiles: dict[tuple[str, int], Profile | None] = field(default_factory=dict)  # by trial and epoch
    _epochs: dict[str, tuple[Progress, list[int]]] = field(default_factory=dict)  # trial -> epochs that are stored

    def read(self, followed: Followed) -> Flow | None:
        """Return the flow so far; None: nothing was measured."""
        begun: dict[str, list[tuple[Link, Progress]]] = {link.arm: [] for link in followed.links}
        for link, one in zip(followed.links, followed.progress, strict=True):
            if one.state != "waiting" and len(begun[link.arm]) < SHOWN_SEEDS:
                begun[link.arm].append((link, one))
        shown = spread(list(begun), SHOWN_PANELS)
        chosen = {arm: [link for link, _ in begun[arm]] for arm in shown}
        every = [link for links in chosen.values() for link in links]
        self._find_epochs(dict(pair for arm in shown for pair in begun[arm]))
        known = sorted({epoch for link in every for epoch in self._epochs[link.trial][1]})
        epochs = spread(known, SHOWN_EPOCHS)
        self._read_profiles(every, epochs)
        maps = [found for arm, links in chosen.items() if (found := self._map(arm, links, epochs)) is not None]
        if not maps:
            return None
        kinds = {one[0] for one in self._profiles.values() if one is not None}
        blocks = "each block's output, or each layer's in a network without blocks"
        what = blocks if ACTIVATION_GRADIENT in kinds else "each weight"
        return Flow(what, tuple(maps), SHOWN_SEEDS, " ".join(say_omitted(len(begun), len(shown), "arms")))

    def _find_epochs(self, chosen: dict[Link, Progress]) -> None:
        versions = {link: one._replace(lease_until=None) for link, one in chosen.items()}
        changed = [link for link, one in versions.items() if self._epochs.get(link.trial, (None,))[0] != one]
        found = self.store.measured_epochs([link.id for link in changed], "flow") if changed else {}
        for link in changed:
            self._epochs[link.trial] = versions[link], found.get(link.id, [])

    def _read_profiles(self, links: Sequence[Link], epochs: Sequence[int]) -> None:
        wanted = set(epochs)
        missing = [
            (link, epoch)
            for link in links
            for epoch in self._epochs[link.trial][1]
            if epoch in wanted and (link.trial, epoch) not in self._profiles
        ][:AT_ONCE]
        found = self.store.measured_at([(link.id, epoch) for link, epoch in missing], "flow") if missing else {}
        for link, epoch in missing:
            if (content := found.get((link.id, epoch))) is not None:
                self._profiles[link.trial, epoch] = gradient_profile(content)

    def _map(self, arm: str, links: Sequence[Link], epochs: Sequence[int]) -> FlowMap | None:
        profiles = {
            (link, epoch): own for link in links for epoch in epochs if (own := self._profiles.get((link.trial, epoch)))
        }
        if not profiles:
            return None
        names = max((own[1] for own in profiles.values()), key=len)
        values = np.full((len(links), len(names), len(epochs)), np.nan)
        for (link, epoch), (_, layers, norms) in profiles.items():
            if layers == names:
                values[links.index(link), :, epochs.index(epoch)] = norms
        logs = to_logarithm(values)
        seeds = np.isfinite(logs).sum(0)
        mean = np.where(seeds > 0, np.nansum(logs, 0) / np.maximum(seeds, 1), np.nan)
        rows = spread(list(range(len(names))), SHOWN_LAYERS)
        drawn = [index for index in range(len(epochs)) if (seeds[rows, index] > 0).any()]
        if not drawn:
            return None
        layers = tuple(names[row] for row in rows)
        return FlowMap(arm, tuple(epochs[index] for index in drawn), layers, mean[np.ix_(rows, drawn)])


def gradient_profile(content: bytes) -> Profile | None:
    """Return the gradient norms of an epoch from a packed flow table; None: none were measured, or it is damaged.

    They are those by which flow is judged, see `leadline.analysis.diagnostics.of_gradients`.
    """
    try:
        table = FlowTable.from_bytes(content)
    except DataError:
        return None
    kind = ACTIVATION_GRADIENT if ACTIVATION_GRADIENT in table.kinds else WEIGHT_GRADIENT
    names, values = table.series(kind)
    measured = [place for place in range(len(names)) if not np.isnan(values[:, place]).all()]
    in_blocks = [place for place in measured if block_of(names[place], table.blocks) is not None]
    chosen = in_blocks or measured
    if not chosen:
        return None
    return kind, tuple(names[place] for place in chosen), np.nanmedian(values[:, chosen].astype(np.float64), 0)


def to_logarithm(norms: np.ndarray) -> np.ndarray:
    """Return log10 of norms, of which those below `DECADES` under the largest are raised; NaN where not finite."""
    positive = norms[np.isfinite(norms) & (norms > 0)]
    if not positive.size:
        return np.full(norms.shape, np.nan)
    least = max(float(positive.min()), float(positive.max()) / 10.0**DECADES)
    return np.where(np.isfinite(norms), np.log10(np.maximum(norms, least)), np.nan)
