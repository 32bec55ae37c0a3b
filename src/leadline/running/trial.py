"""Train a claimed trial to its end, on one or several devices, and store its results."""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from leadline.data import batches
from leadline.data.network_input import INPUT, NetworkInput
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.distributed.torchrun import Torchrun
from leadline.errors import DataError, SpecError, StoreError
from leadline.networks.modules import build
from leadline.parts.metrics.outputs import OUTPUTS, pack_outputs
from leadline.parts.metrics.record import Record
from leadline.parts.reference import is_local, references
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.pretraining.state import PretrainingState
from leadline.running.checkpoints import Checkpoints, Timer
from leadline.running.job import Job, ReportProgress
from leadline.running.stopping import Stop, Stopped, at_sigterm
from leadline.specs import DataSpec, TrialSpec
from leadline.training import Diverged, TrainState, choose_device, prepare, train
from leadline.training.initial_weights import set_initial_weights
from leadline.training.layerwise import hidden_layers, pretrain_network, pretrained


@dataclass
class TrialRun:
    """Train a claimed trial in this process, alone or as rank 0 of several."""

    job: Job
    checkpoints: Checkpoints  # with the claim, its specification and the store
    device: torch.device  # of this process
    report: ReportProgress
    check_lease: Callable[[], None]  # raises LeaseLost when another worker has taken the trial over
    stop: Stop
    group: ProcessGroup = SINGLE_PROCESS
    data: batches.Data = field(init=False)
    state: TrainState = field(init=False)
    timer: Timer = field(init=False)

    def run(self) -> None:
        """Train the trial from its last checkpoint to its end.

        Raises:
            Diverged, PretrainingDiverged: training diverged; the probe measurements of that epoch are stored.
            LeaseLost: another worker has taken the trial over.
            Stopped: the process was asked to stop, and the trial has a checkpoint.
            StoreError: the store, a checkpoint or the data cannot be used.
        """
        try:
            self.restore()
            if self.state.pretraining is not None:
                with self.stop.defer():
                    self.pretrain(self.state.pretraining)
                broadcast_state(self.state, self.group)
            with self.stop.defer():
                self.finish(self.train())
        except (Diverged, PretrainingDiverged):
            self.checkpoints.remove_all_but_last()  # nobody would after the trial's end
            raise

    def restore(self) -> None:
        """Restore the last intact checkpoint in all processes, or the initial state."""
        spec = self.checkpoints.spec
        check_revision(spec, self.checkpoints.claim.trial)
        check_code(spec, self.job.data_dir)
        self.data = load_data(spec, self.job.data_dir, self.device)
        folder = self.job.data_dir
        self.state = self.checkpoints.restore_or_init(
            lambda: init_state(spec, self.data, self.device, folder), self.report
        )
        broadcast_state(self.state, self.group)

    def pretrain(self, pretraining: PretrainingState) -> None:
        """Pre-train the network, with checkpoints on the way; the one at its end is where training begins."""
        seed, layers = self.checkpoints.spec.random_seed, len(hidden_layers(self.state.model))
        seconds = 0.0
        self.timer = Timer.start(self.job.checkpoint_every, pretraining.steps)
        for epoch in pretrain_network(pretraining, self.state.model, self.data, seed):
            self.check_lease()
            seconds += epoch.seconds
            self.report("progress", 0.0, f"pre-training layer {epoch.layer} of {layers}")
            asked = self.stop.asked  # looked at once, for it may change at any moment
            if asked or self.timer.due(pretraining.steps) or epoch.epoch == pretraining.spec.epochs:
                self.checkpoint(seconds=seconds)
                seconds = 0.0
            if asked:
                raise Stopped
            self.group.broadcast(None)
        result = pretrained(pretraining, self.data.shape, seed)
        self.state.pretraining = None
        grids = {} if result.grids is None else {"pretraining": result.grids.to_bytes()}
        self.checkpoint(result.records, grids, seconds)

    def train(self) -> list[Record]:
        """Train to the end of the last epoch, with checkpoints on the way; return the records not yet stored."""
        spec, state = self.checkpoints.spec, self.state
        steps = -(-self.data.train_size // spec.training.batch_size) * spec.training.epochs
        pending: list[Record] = []
        complete: list[Record] = []  # of whole epochs since the last checkpoint
        seen_epoch = state.epoch
        self.timer = Timer.start(self.job.checkpoint_every, state.step)

        def pause(step: int) -> bool:
            return self.stop.asked or self.timer.due(step)

        try:
            for record in train(state, self.data, spec.training, spec.random_seed, spec.probes, pause, self.group):
                self.check_lease()
                if record.split == "batch":
                    self.report("progress", record.step / steps, f"loss {record.value:.4g}")
                    asked = self.stop.asked  # read only once, because it can change at any time
                    if asked or self.timer.due(record.step):
                        self.checkpoint(complete)
                        complete = []
                    if asked:
                        raise Stopped
                    continue
                pending.append(record)
                if state.epoch == seen_epoch:
                    continue
                complete, pending, seen_epoch = complete + pending, [], state.epoch
                measured, over = self._collect_measurements(state.epoch), state.is_over(spec.training.epochs)
                if measured or over or self.timer.due_after_epoch(state.step):
                    self.checkpoint(complete, measured)
                    complete = []
                self.report("progress", state.step / steps, f"epoch {state.epoch} of {spec.training.epochs}")
                if self.stop.asked:
                    if complete:
                        self.checkpoint(complete)
                    raise Stopped
        except StoreError:
            raise
        except Exception as error:  # no checkpoint follows that would store what whole epochs have measured
            if complete:
                self._commit(state.epoch, {}, complete)
            if isinstance(error, Diverged) and not state.is_over(spec.training.epochs):
                self._commit_start()
                self._commit(state.epoch + 1, self._collect_measurements(state.epoch + 1))
            raise
        return pending

    def checkpoint(
        self,
        records: Sequence[Record] = (),
        measurements: Mapping[str, bytes] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Store the state and everything measured since the last checkpoint.

        Args:
            records: of whole epochs, or of all of pre-training.
            measurements: of probes, by name.
            seconds: since the last checkpoint; None: as the records tell.
        """
        started = time.monotonic()
        self._commit_start()
        seconds = _seconds(records) if seconds is None else seconds
        self.checkpoints.save(self.state, records, seconds, measurements or {})
        pretraining = self.state.pretraining
        steps = self.state.step if pretraining is None else pretraining.steps
        self.timer.restart(steps, time.monotonic() - started)

    def finish(self, records: Sequence[Record]) -> None:
        """Store the last records, the outputs for the test images and what the network takes, and end the trial."""
        outputs = self.state.test_outputs
        assert outputs is not None
        classes = outputs.probabilities is not None
        self.checkpoints.remove_all_but_last()  # before its end, after which a crash would leave them
        files = self.checkpoints
        files.store.finish(
            files.claim.trial,
            files.worker,
            "finished",
            records=records,
            predictions=(outputs.predicted, outputs.labels) if classes else None,
            measurements=(
                self.state.epoch,
                {OUTPUTS: pack_outputs(outputs), INPUT: NetworkInput.of_data(self.data).to_bytes()},
            ),
        )
        self.report("finished", 1.0, "")

    def _commit_start(self) -> None:
        """Store the measurements taken before the first step; they are repeated if no checkpoint follows."""
        if seen := self._pack_snapshots(0):
            self._commit(0, seen)

    def _commit(self, epoch: int, measurements: Mapping[str, bytes], records: Sequence[Record] = ()) -> None:
        """Store what was measured without a checkpoint; its time counts with the next one, for a retry repeats it."""
        files = self.checkpoints
        files.store.commit_epoch(files.claim.trial, files.worker, records, None, epoch, 0.0, measurements)

    def _collect_measurements(self, epoch: int) -> dict[str, bytes]:
        """Return the probe measurements of an epoch, which may be incomplete."""
        flow = self.state.flow
        return self._pack_snapshots(epoch) | ({"flow": flow.to_bytes()} if flow is not None and len(flow.steps) else {})

    def _pack_snapshots(self, epoch: int) -> dict[str, bytes]:
        return {name: one.to_bytes() for name, one in self.state.measured.get(epoch, {}).items()}


def _seconds(records: Sequence[Record]) -> float:
    """Return the time that epochs took, by what they recorded."""
    return sum(one.value for one in records if (one.split, one.name) == ("time", "seconds"))


def run_rank(
    group: ProcessGroup, device: torch.device, report: ReportProgress, job: Job, checkpoints: Checkpoints
) -> None:
    """Run one of the processes that train a trial; rank 0 stores the results, and the worker renews the lease."""
    job.admit_code()
    if group.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 needs this process to complete its step
        follow_trial(group, device, job.threads, checkpoints.claim.spec, job.data_dir)
        return
    with at_sigterm() as stop:
        TrialRun(job, checkpoints, device, report, lambda: None, stop, group).run()


def assist(torchrun: Torchrun, device: str) -> None:
    """Train together with rank 0 until it has no more trials, in a process started by torchrun."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rank 0 completes its step and then ends this process
    torchrun.follow_tasks(torchrun.device(choose_device(device)), follow_trial)


def follow_trial(
    group: ProcessGroup, device: torch.device, threads: int, trial: str, data_dir: Path | str | None
) -> None:
    """Train a trial from the state of rank 0, like rank 0 but without storing anything; `trial` is its JSON."""
    data_dir = None if data_dir is None else Path(data_dir)
    torch.set_num_threads(threads)
    spec = TrialSpec.model_validate_json(trial)
    data = load_data(spec, data_dir, device)
    state = init_state(spec, data, device, data_dir)
    broadcast_state(state, group)
    if state.pretraining is not None:  # computed here too, so that no process waits longer than an epoch
        for _ in pretrain_network(state.pretraining, state.model, data, spec.random_seed):
            group.broadcast(None)
        broadcast_state(state, group)
    for _ in train(state, data, spec.training, spec.random_seed, spec.probes, group=group):
        pass


def check_revision(spec: TrialSpec, trial: str) -> None:
    """Check that this version of Leadline trains and measures a trial as the one that registered it.

    Raises:
        StoreError: an option that the trial uses means something else in this version.
    """
    if spec.content_hash != trial:
        raise StoreError(
            f"trial {trial[:12]} was registered with another version of Leadline, which trains or measures it"
            f" otherwise; run the study again with `leadline run`"
        )


def check_code(spec: TrialSpec, data_dir: Path | None) -> None:
    """Check that this machine has the versions of custom code and data files that identify a trial.

    Raises:
        StoreError: it has other versions; another machine may have the right ones.
    """
    if not spec.code:
        return
    try:
        here = spec.with_code(data_dir).code
    except (SpecError, DataError) as error:
        raise StoreError(str(error)) from None
    for name, identity in spec.code.items():
        if not is_local(name) and here.get(name) != identity:  # local objects were sent by the driver itself
            raise StoreError(
                f"{name} on this machine is not the version that the study was registered with; run the study again"
                f" with `leadline run`, or copy that version to this machine"
            )


def init_state(spec: TrialSpec, data: batches.Data, device: torch.device, data_dir: Path | None = None) -> TrainState:
    """Return a trial's state before its first step, and before pre-training if there is any.

    Raises:
        StoreError: the file of the weights that it starts from, or an image, cannot be read here.
        SpecError: the network has no first convolution that can whiten, and the recipe asks for one.
    """
    state = prepare(init_network(spec, data, data_dir), spec.training, device)
    state.pretraining = None if spec.pretraining is None else PretrainingState(spec.pretraining)
    return state


def init_network(spec: TrialSpec, data: batches.Data, data_dir: Path | None = None) -> nn.Module:
    """Return a trial's network before its first step, and before pre-training if there is any.

    Raises:
        StoreError: the file of the weights that it starts from, or an image, cannot be read here.
        SpecError: the network has no first convolution that can whiten, and the recipe asks for one.
    """
    model = build(spec.network, data.shape, data.classes, spec.random_seed)
    try:
        set_initial_weights(model, spec.training, data, data_dir)
    except DataError as error:
        raise StoreError(str(error)) from None
    except SpecError as error:
        if spec.training.weights is None:
            raise  # no other machine can do better
        raise StoreError(str(error)) from None
    return model


def broadcast_state(state: TrainState, group: ProcessGroup) -> None:
    """Copy the state of rank 0 to every process of a group."""
    if group.world_size > 1:
        given = group.broadcast(({}, 0, 0) if group.rank else (state.tensors(), state.step, state.epoch))
        if group.rank:
            state.load(*given)


def load_data(spec: TrialSpec, data_dir: Path | None, device: torch.device) -> batches.Data:
    """Return a trial's data on a device; the data of the last two trials are cached.

    Raises:
        StoreError: they cannot be read on this machine; another machine may have them.
    """
    elsewhere = references(spec.model_dump(mode="json", exclude={"data"}))
    identity = tuple(sorted((name, one) for name, one in spec.code.items() if name not in elsewhere))
    seed = spec.random_seed if spec.data.is_redrawn else 0
    with _LOADING:
        return _load_data(spec.data, identity, data_dir, device, seed)


_LOADING = threading.Lock()
"""Held while data are loaded, so that threads that need the same find them loaded."""


@lru_cache(maxsize=2)
def _load_data(
    spec: DataSpec, identity: tuple[tuple[str, str], ...], data_dir: Path | None, device: torch.device, seed: int
) -> batches.Data:
    """Return the data of one identity: the same specification may refer to files that have changed."""
    try:
        return batches.load(spec, data_dir, seed=seed).to(device)
    except DataError as error:
        raise StoreError(str(error)) from None
