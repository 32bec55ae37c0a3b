"""The ledger against a model of it in plain dictionaries, under random sequences of what workers do."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from leadline.record import Record
from leadline.spec import parse
from leadline.spec.study import StudySpec
from leadline.store import STATES, LeaseLost, Store
from leadline.study import expand

WORKERS = ("here:1:1", "there:2:2", "nowhere:3:3")
HOUR, GONE = 3600.0, -1.0
TRIALS = 3


@dataclass
class Model:
    """What a trial should be."""

    state: str = "waiting"
    owner: str | None = None
    expired: bool = False
    checkpoint: str | None = None
    checkpoint_epoch: int = 0
    epochs: dict[int, float] = field(default_factory=dict)  # epoch -> value of its record
    seconds: float | None = None
    attempts: int = 0


class Ledger(RuleBasedStateMachine):
    """Three workers, three trials; the model has no notion of rows, locks or transactions."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name))
        spec = {"name": "one", "arms": {"cnn": {"network": "comparative-cnn"}}, "seeds": TRIALS}
        self.study = expand(parse(StudySpec, spec))
        self.store.register(self.study)
        self.model = {trial.content_hash: Model() for _, trial in self.study.trials()}
        self.names = list(self.model)
        self.value = 0.0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule(worker=st.sampled_from(WORKERS), lease=st.sampled_from([HOUR, GONE]))
    def claim(self, worker: str, lease: float) -> None:
        free = (t for t, m in self.model.items() if m.state == "waiting" or (m.state == "running" and m.expired))
        expected = next(free, None)
        claim = self.store.claim("one", worker, lease)
        assert (claim.trial if claim else None) == expected
        if claim:
            model = self.model[claim.trial]
            model.state, model.owner, model.expired = "running", worker, lease == GONE
            model.attempts += 1
            model.epochs = {epoch: value for epoch, value in model.epochs.items() if epoch <= model.checkpoint_epoch}
            assert (claim.checkpoint, claim.epochs_done, claim.attempts) == (
                model.checkpoint,
                model.checkpoint_epoch,
                model.attempts,
            )

    @rule(number=st.integers(0, TRIALS - 1), worker=st.sampled_from(WORKERS), lease=st.sampled_from([HOUR, GONE]))
    def heartbeat(self, number: int, worker: str, lease: float) -> None:
        model = self.model[self.names[number]]
        assert self.store.heartbeat(self.names[number], worker, lease) == (model.owner == worker)
        if model.owner == worker:
            model.expired = lease == GONE

    @rule(number=st.integers(0, TRIALS - 1), worker=st.sampled_from(WORKERS), saved=st.booleans())
    def commit(self, number: int, worker: str, saved: bool) -> None:
        trial = self.names[number]
        model = self.model[trial]
        epoch = max(model.epochs, default=0) + 1
        self.value += 1
        new, checkpoint = [Record(epoch, epoch, "train", "loss", self.value)], f"c{epoch}" if saved else None
        if model.owner != worker:
            with pytest.raises(LeaseLost):
                self.store.commit_epoch(trial, worker, new, checkpoint, epoch, 1.0)
            return
        self.store.commit_epoch(trial, worker, new, checkpoint, epoch, 1.0)
        model.epochs[epoch] = self.value
        model.seconds = (model.seconds or 0.0) + 1.0
        if saved:
            model.checkpoint, model.checkpoint_epoch = checkpoint, epoch
            model.attempts = 1

    @rule(
        number=st.integers(0, TRIALS - 1),
        worker=st.sampled_from(WORKERS),
        state=st.sampled_from(["finished", "diverged", "failed"]),
    )
    def finish(self, number: int, worker: str, state: str) -> None:
        trial = self.names[number]
        model = self.model[trial]
        if model.owner != worker:
            with pytest.raises(LeaseLost):
                self.store.finish(trial, worker, state)  # type: ignore[arg-type]
            return
        self.store.finish(trial, worker, state)  # type: ignore[arg-type]
        model.state, model.owner = state, None
        model.seconds = (model.seconds or 0.0) + 0.5

    @rule(number=st.integers(0, TRIALS - 1), worker=st.sampled_from(WORKERS))
    def release(self, number: int, worker: str) -> None:
        self.store.release(self.names[number], worker)
        model = self.model[self.names[number]]
        if model.owner == worker:
            model.state, model.owner = "waiting", None
            model.attempts -= 1

    @rule()
    def requeue(self) -> None:
        failed = [model for model in self.model.values() if model.state == "failed"]
        assert self.store.requeue_failed("one") == len(failed)
        for model in failed:
            model.state, model.attempts = "waiting", 0

    @rule()
    def register_again(self) -> None:
        self.store.register(self.study)

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(Path(self.folder.name))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        states = [model.state for model in self.model.values()]
        assert self.store.counts("one") == {state: states.count(state) for state in STATES}
        trials = self.store.trials_frame("one")
        assert list(trials["state"]) == states
        assert [None if x != x else x for x in trials["seconds"]] == [m.seconds for m in self.model.values()]
        frame = self.store.records_frame("one")
        expected = [(t, e, v) for t, m in self.model.items() for e, v in sorted(m.epochs.items())]
        assert list(frame[["trial", "epoch", "value"]].itertuples(index=False, name=None)) == expected


Ledger.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedger = Ledger.TestCase
