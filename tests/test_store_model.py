"""The ledger against a model of it in plain dictionaries, under random sequences of what workers and drivers do."""

import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from leadline.parts.metrics.record import Record
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.store import STATES, LeaseLost, Store
from leadline.study.expand import ExpandedStudy, expand

WORKERS = ("here:1:1", "there:2:2", "nowhere:3:3")
HOUR, GONE = 3600.0, -1.0
MOST_SEEDS = 3
NUMBERS = st.integers(0, 5)
ARMS = {
    "one": {"cnn": {"network": "comparative-cnn"}},
    "two": {"deep": {"network": "comparative-plain"}, "shallow": {"network": "comparative-cnn"}},
}
"""The second study has the first one's arm under another name, and its trials at other places."""


@lru_cache
def study(name: str, seeds: int) -> ExpandedStudy:
    return expand(parse(StudySpec, {"name": name, "arms": ARMS[name], "seeds": seeds}))


@lru_cache
def planned(name: str, seeds: int) -> tuple[tuple[str, str], ...]:
    """Trial and arm, in the study's order."""
    return tuple((trial.content_hash, arm.name) for arm, trial in study(name, seeds).trials())


@dataclass
class Model:
    """What a trial should be."""

    state: str = "waiting"
    owner: str | None = None
    expired: bool = False
    checkpoint: str | None = None
    checkpoint_epoch: int = 0
    earlier: str | None = None
    earlier_epoch: int = 0
    epochs: dict[int, float] = field(default_factory=dict)  # epoch -> value of its record
    seconds: float | None = None
    attempts: int = 0
    error: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def free(self) -> bool:
        return self.state == "waiting" or (self.state == "running" and self.expired)

    def forget(self, epoch: int) -> None:
        self.epochs = {done: value for done, value in self.epochs.items() if done <= epoch}


@precondition
def some_run(self: "Ledger") -> bool:
    return bool(self.running)


@precondition
def not_again_at_once(self: "Ledger") -> bool:
    """Of what changes nothing for the others: random sequences repeat themselves, and would do little else."""
    return self.since >= 3 or not (self.running or self.claimable())


class Ledger(RuleBasedStateMachine):
    """Three workers, two studies that share trials; the model has no notion of rows, links, locks or transactions.

    Rules are open where they change something, so that random sequences of them get somewhere.
    """

    @initialize(seeds=st.tuples(*[st.integers(1, MOST_SEEDS)] * 2))
    def begin(self, seeds: tuple[int, int]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name))
        self.studies: dict[str, int] = {}  # name -> seeds, as entered last
        self.model: dict[str, Model] = {}  # every trial that was ever entered
        self.value = 0.0
        for name, number in zip(ARMS, seeds, strict=True):
            self.enter(name, number)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def enter(self, name: str, seeds: int) -> None:
        self.store.register(study(name, seeds))
        self.studies[name] = seeds
        self.since = 0
        for trial, _ in planned(name, seeds):
            self.model.setdefault(trial, Model())

    def of(self, name: str) -> list[tuple[str, str, Model]]:
        """Trial, arm and model of a study as it was entered last, in its order."""
        return [(trial, arm, self.model[trial]) for trial, arm in planned(name, self.studies[name])]

    @property
    def running(self) -> list[str]:
        return [trial for trial, model in self.model.items() if model.owner is not None]

    def picked(self, number: int) -> tuple[str, str, Model]:
        """A trial that runs, its owner and its model."""
        self.since += 1
        trial = self.running[number % len(self.running)]
        model = self.model[trial]
        assert model.owner is not None
        return trial, model.owner, model

    @not_again_at_once
    @rule(name=st.sampled_from([*ARMS]), seeds=st.integers(1, MOST_SEEDS))
    def enter_with_more_or_fewer_seeds(self, name: str, seeds: int) -> None:
        self.enter(name, seeds)

    @precondition(lambda self: self.claimable())
    @rule(name=st.sampled_from([*ARMS]), worker=st.sampled_from(WORKERS), lease=st.sampled_from([HOUR, HOUR, GONE]))
    def claim(self, name: str, worker: str, lease: float) -> None:
        if name not in self.claimable():
            (name,) = self.claimable()
        trial, arm, model = next(one for one in self.of(name) if one[2].free)
        claim = self.store.claim(name, worker, lease)
        assert claim is not None
        model.state, model.owner, model.expired = "running", worker, lease == GONE
        model.attempts += 1
        model.forget(model.checkpoint_epoch)
        assert (claim.trial, claim.arm, claim.attempts) == (trial, arm, model.attempts)
        assert (claim.checkpoint, claim.epochs_done) == (model.checkpoint, model.checkpoint_epoch)
        assert (claim.earlier_checkpoint, claim.earlier_epoch) == (model.earlier, model.earlier_epoch)
        self.since += 1

    def claimable(self) -> list[str]:
        return [name for name in self.studies if any(model.free for _, _, model in self.of(name))]

    @some_run
    @not_again_at_once
    @rule(number=NUMBERS, lease=st.sampled_from([HOUR, GONE]))
    def heartbeat(self, number: int, lease: float) -> None:
        trial, owner, model = self.picked(number)
        assert self.store.heartbeat(trial, owner, lease)
        model.expired = lease == GONE
        self.since = 0

    @some_run
    @rule(number=NUMBERS, saved=st.booleans())
    def commit(self, number: int, saved: bool) -> None:
        trial, owner, model = self.picked(number)
        epoch = max(model.epochs, default=0) + 1
        self.value += 1
        new, checkpoint = [Record(epoch, epoch, "train", "loss", self.value)], f"c{self.value}" if saved else None
        self.store.commit_epoch(trial, owner, new, checkpoint, epoch, 1.0)
        model.epochs[epoch] = self.value
        model.seconds = (model.seconds or 0.0) + 1.0
        if saved:
            model.earlier, model.earlier_epoch = model.checkpoint, model.checkpoint_epoch
            model.checkpoint, model.checkpoint_epoch = checkpoint, epoch
            model.attempts = 1

    @precondition(lambda self: any(self.model[trial].checkpoint for trial in self.running))
    @rule(number=NUMBERS)
    def fall_back(self, number: int) -> None:
        trial, owner, model = self.picked(number)
        self.store.fall_back(trial, owner, "another one", "nothing happens")
        if model.checkpoint is None:
            return
        self.store.fall_back(trial, owner, model.checkpoint, f"{model.checkpoint} is damaged")
        model.notes.append(f"{model.checkpoint} is damaged")
        model.forget(model.earlier_epoch)
        model.checkpoint, model.checkpoint_epoch = model.earlier, model.earlier_epoch
        model.earlier, model.earlier_epoch = None, 0

    @some_run
    @rule(number=NUMBERS, state=st.sampled_from(["failed", "failed", "finished", "diverged"]))
    def finish(self, number: int, state: str) -> None:
        trial, owner, model = self.picked(number)
        self.store.finish(trial, owner, state, error=f"it {state}")  # type: ignore[arg-type]
        model.state, model.owner, model.error = state, None, f"it {state}"

    @some_run
    @rule(number=NUMBERS)
    def release(self, number: int) -> None:
        trial, owner, model = self.picked(number)
        assert self.store.release(trial, owner)
        model.state, model.owner = "waiting", None
        model.attempts -= 1

    @precondition(lambda self: any(model.state == "failed" for model in self.model.values()))
    @rule(name=st.sampled_from([*ARMS]))
    def requeue(self, name: str) -> None:
        """What one study asks for again waits in the other as well; what only the other has, stays failed."""
        for asked in sorted(self.studies, key=lambda other: other != name):
            failed = [model for _, _, model in self.of(asked) if model.state == "failed"]
            assert self.store.requeue_failed(asked) == len(failed)
            for model in failed:
                model.state, model.attempts, model.error = "waiting", 0, None
            if failed:
                return

    @not_again_at_once
    @rule(number=NUMBERS, worker=st.sampled_from(WORKERS))
    def whoever_owns_a_trial_no_more_changes_nothing(self, number: int, worker: str) -> None:
        others = [trial for trial, model in self.model.items() if model.owner != worker]
        self.since = 0
        if not others:
            return
        trial = others[number % len(others)]
        assert not self.store.heartbeat(trial, worker, GONE)
        assert not self.store.release(trial, worker)
        with pytest.raises(LeaseLost):
            self.store.commit_epoch(trial, worker, [Record(1, 1, "train", "loss", 0.0)], "stale", 1, 1.0)
        with pytest.raises(LeaseLost):
            self.store.finish(trial, worker, "finished")
        with pytest.raises(LeaseLost):
            self.store.fall_back(trial, worker, str(self.model[trial].checkpoint), "stale")

    @not_again_at_once
    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(Path(self.folder.name))
        self.since = 0

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in self.studies:
            ours = self.of(name)
            states = [model.state for _, _, model in ours]
            assert self.store.is_claimable(name, "here:4:4") == any(model.free for _, _, model in ours)
            assert self.store.counts(name) == {state: states.count(state) for state in STATES}
            frame = self.store.trials_frame(name)
            columns = ["trial", "arm", "state", "error"]
            expected = [(trial, arm, model.state, model.error) for trial, arm, model in ours]
            assert list(frame[columns].itertuples(index=False, name=None)) == expected
            frame = self.store.records_frame(name)
            assert list(frame[["trial", "arm", "epoch", "value"]].itertuples(index=False, name=None)) == [
                (trial, arm, epoch, value)
                for trial, arm, model in ours
                for epoch, value in sorted(model.epochs.items())
            ]
        for trial, model in self.model.items():  # those that no study names any more included
            record = self.store.trial(trial)
            assert (record.state, record.owner, record.attempts) == (model.state, model.owner, model.attempts)
            assert (record.checkpoint, record.checkpoint_epoch) == (model.checkpoint, model.checkpoint_epoch)
            assert (record.seconds, record.note) == (model.seconds, "\n".join(model.notes) or None)


Ledger.TestCase.settings = settings(
    max_examples=10, stateful_step_count=36, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedger = Ledger.TestCase
