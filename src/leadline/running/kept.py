"""A trial's checkpoints in the store and on disk: the last, and the one before it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leadline import artifacts
from leadline.errors import StoreError
from leadline.record import Record
from leadline.running.checkpoints import (
    DamagedCheckpoint,
    checkpoint_name,
    load_checkpoint,
    remove_strays,
    save_checkpoint,
)
from leadline.running.job import PATIENCE_SECONDS
from leadline.spec import TrialSpec
from leadline.store import Claim, LeaseLost, Store
from leadline.training import TrainState


@dataclass
class Kept:
    """A trial's checkpoints: the last, and the one before it, which is kept until the next is committed."""

    store: Store
    spec: TrialSpec
    trial: str
    owner: str
    last: str | None
    earlier: str | None
    url: str | None = None  # of a folder where they are kept as well

    def keep(
        self, state: TrainState, records: Sequence[Record], seconds: float, measurements: Mapping[str, bytes]
    ) -> None:
        """Write a checkpoint, commit it with what was measured, and remove the one that nothing falls back on now."""
        path = self.store.checkpoints / checkpoint_name(self.trial, state)
        try:
            save_checkpoint(state, self.spec, path)
            name = artifacts.put(path, self.url, PATIENCE_SECONDS)
        except StoreError:
            # a new owner removes what the old one, whose machine may have slept, is still writing
            if self.store.trial(self.trial).owner != self.owner:
                raise LeaseLost(f"trial {self.trial[:12]}: another worker has taken it over") from None
            raise
        self.store.commit_epoch(self.trial, self.owner, records, name, state.epoch, seconds, measurements)
        if name != self.last:
            self.remove_earlier()
            self.last, self.earlier = name, self.last

    def remove_earlier(self) -> None:
        """Remove the checkpoint before the last: the trial has got on, or ends."""
        if self.earlier is not None:
            artifacts.remove(self.earlier, self.store.checkpoints)
            self.earlier = None


def begun(
    files: Kept, claim: Claim, fresh: Callable[[], TrainState], tell: Callable[[str, float, str], None]
) -> TrainState:
    """Return the state of the last checkpoint that is whole, or of the beginning; the same bits follow either way."""
    store, folder = files.store, files.store.checkpoints
    kept = [artifacts.base(name) for name in (files.last, files.earlier) if name is not None]
    remove_strays(folder, files.trial, kept)
    artifacts.remove_strays(files.url, files.trial, kept)
    while files.last is not None:
        try:
            return _loaded(files, files.last, fresh)
        except (DamagedCheckpoint, artifacts.MissingArtifact) as error:
            done, follows = 0, "training starts anew"
            if files.earlier is not None:
                done, follows = claim.earlier_epoch, "training goes on from the one before it"
            store.fall_back(files.trial, files.owner, files.last, f"{error}; {follows}")
            tell("restarted", done / files.spec.training.epochs, f"{error}; {follows}")
            files.last, files.earlier = files.earlier, None
    return fresh()


def _loaded(files: Kept, name: str, fresh: Callable[[], TrainState]) -> TrainState:
    """Return the state of a checkpoint: of the copy here where that is whole, else of the one at its URL."""
    here = files.store.checkpoints / artifacts.base(name)
    if artifacts.is_url(name) and here.is_file():
        with contextlib.suppress(DamagedCheckpoint):
            return _state_of(files, here, fresh)
        here.unlink(missing_ok=True)
    return _state_of(files, artifacts.get(name, files.store.checkpoints, PATIENCE_SECONDS), fresh)


def _state_of(files: Kept, path: Path, fresh: Callable[[], TrainState]) -> TrainState:
    """Return the state of a file, which must be of the trial and of the place in it that its name says."""
    state = fresh()
    load_checkpoint(state, path, files.spec)
    if (inside := checkpoint_name(files.trial, state)) != path.name:
        raise DamagedCheckpoint(f"checkpoint {path}: is no such file: what it holds is {inside}")
    return state
