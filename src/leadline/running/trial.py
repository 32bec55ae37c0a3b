"""A claimed trial trained to its end, on one device or several, and what it gives stored."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from leadline.data import batches
from leadline.errors import DataError, StoreError
from leadline.layerwise import hidden_layers, pretrain_network, pretrained
from leadline.nets import build
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.pretraining.state import PretrainingState
from leadline.record import Record
from leadline.running.checkpoints import Timer
from leadline.running.devices import Place, answer, called, together, under_torchrun
from leadline.running.job import Job
from leadline.running.kept import Kept, begun
from leadline.running.stopping import Stop, Stopped, at_sigterm
from leadline.spec import DataSpec, TrialSpec, canonical_json
from leadline.store import Claim, LeaseLost, Store
from leadline.training import Diverged, TrainState, choose_device, prepare, train
from leadline.training.team import ALONE, Team


def train_trial(
    devices: Sequence[torch.device],
    job: Job,
    files: Kept,
    claim: Claim,
    tell: Callable[[str, float, str], None],
    lost: threading.Event,
    stop: Stop,
) -> None:
    """Train on one device, in this process, or on several: in new processes, or with those of torchrun."""

    def look() -> None:
        if lost.is_set():
            raise LeaseLost(f"trial {claim.trial[:12]}: another worker has taken it over")

    if len(devices) == 1:
        _train_and_store(job, files, claim, devices[0], tell, look, stop, ALONE)
    elif (place := under_torchrun()) is not None:
        device = place.device(devices[0])
        with called((job.threads, claim.spec, job.data_dir), place, device) as team:
            _train_and_store(job, files, claim, device, tell, look, stop, team)
    else:
        together(_train_beside_others, (job, files, claim), devices, job.threads, tell, look)


def _train_beside_others(
    team: Team,
    device: torch.device,
    tell: Callable[[str, float, str], None],
    job: Job,
    files: Kept,
    claim: Claim,
) -> None:
    """Be one of the processes of a trial; rank 0 stores what it gives, and a worker outside keeps its lease."""
    if team.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while rank 0 needs it to end a step; then it ends as well
        _follow(team, device, job.threads, claim.spec, job.data_dir)
        return
    with at_sigterm() as stop:
        try:
            _train_and_store(job, files, claim, device, tell, lambda: None, stop, team)
        except (Diverged, PretrainingDiverged):
            files.remove_earlier()
            raise


def assist(place: Place, device: str) -> None:
    """Train beside rank 0 for as long as it has trials, in a process that torchrun has started."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 ends its step first, and then calls no more
    answer(place, place.device(choose_device(device)), _follow)


def _follow(team: Team, device: torch.device, threads: int, trial: str, data_dir: Path | None) -> None:
    """Train a trial as rank 0 does, from the state that it gives, and store nothing.

    Args:
        team: of which this is not rank 0.
        device: of this process.
        threads: of this process.
        trial: its specification as JSON.
        data_dir: folder of the data sets.
    """
    torch.set_num_threads(threads)
    spec = TrialSpec.model_validate_json(trial)
    data = _dataset(canonical_json(spec.data.model_dump(mode="json")), data_dir, device)
    state = _fresh(spec, data, device)
    _share(state, team)
    if state.pretraining is not None:  # as rank 0 does, for nobody waits for another longer than an epoch
        for _ in pretrain_network(state.pretraining, state.model, data, spec.seed):
            team.told(None)
        _share(state, team)
    for _ in train(state, data, spec.training, spec.seed, spec.probes, team=team):
        pass


def _train_and_store(
    job: Job,
    files: Kept,
    claim: Claim,
    device: torch.device,
    tell: Callable[[str, float, str], None],
    look: Callable[[], None],
    stop: Stop,
    team: Team,
) -> None:
    store, spec, owner = files.store, files.spec, files.owner
    data = _dataset(canonical_json(spec.data.model_dump(mode="json")), job.data_dir, device)
    state = begun(files, claim, lambda: _fresh(spec, data, device), tell)
    _share(state, team)
    if state.pretraining is not None:
        with stop.gently():
            _pretrain_and_store(job, files, state, data, tell, look, stop, team)
        _share(state, team)
    steps = -(-data.train_size // spec.training.batch_size) * spec.training.epochs
    pending: list[Record] = []
    stored_epoch = state.epoch
    timer = Timer.start(job.checkpoint_every, state.step)

    def due(step: int) -> bool:
        return stop.asked or timer.due(step)

    with stop.gently():
        for record in _records(store, claim, spec, owner, state, data, due, team):
            look()
            if record.split == "batch":
                tell("progress", record.step / steps, f"loss {record.value:.4g}")
                asked = stop.asked  # looked at once, for it may change at any moment
                if asked or timer.due(record.step):
                    _commit_start(store, claim, owner, state)
                    files.keep(state, [], 0.0, {})
                    timer.restart(state.step)
                if asked:
                    raise Stopped
            else:
                pending.append(record)
                if state.epoch == stored_epoch:
                    continue
                stored_epoch = state.epoch
                seconds = sum(one.value for one in pending if (one.split, one.name) == ("time", "seconds"))
                _commit_start(store, claim, owner, state)
                files.keep(state, pending, seconds, _measured(state, state.epoch))
                timer.restart(state.step)
                pending = []
                tell("progress", state.step / steps, f"epoch {state.epoch} of {spec.training.epochs}")
                if stop.asked:
                    raise Stopped
        assert state.test_predictions is not None
        predictions = state.test_predictions, data.test_labels.astype(np.int16)
        files.remove_earlier()  # nobody would, were the process killed after the trial's end
        store.finish(claim.trial, owner, "finished", records=pending, predictions=predictions)
        tell("finished", 1.0, "")


def _pretrain_and_store(
    job: Job,
    files: Kept,
    state: TrainState,
    data: batches.Data,
    tell: Callable[[str, float, str], None],
    look: Callable[[], None],
    stop: Stop,
    team: Team,
) -> None:
    """Pre-train a state's network, with checkpoints on the way; the one at its end is where training begins."""
    before, seed = state.pretraining, files.spec.seed
    assert before is not None
    layers, seconds = len(hidden_layers(state.model)), 0.0
    timer = Timer.start(job.checkpoint_every, before.steps)
    for epoch in pretrain_network(before, state.model, data, seed):
        look()
        seconds += epoch.seconds
        tell("progress", 0.0, f"pre-training layer {epoch.layer} of {layers}")
        asked = stop.asked  # looked at once, for it may change at any moment
        if asked or timer.due(before.steps) or epoch.epoch == before.spec.epochs:
            files.keep(state, [], seconds, {})
            timer.restart(before.steps)
            seconds = 0.0
        if asked:
            raise Stopped
        team.told(None)
    left = pretrained(before, data.shape, seed)
    state.pretraining = None
    files.keep(state, left.records, seconds, {} if left.pictures is None else {"pretraining": left.pictures.to_bytes()})


def _fresh(spec: TrialSpec, data: batches.Data, device: torch.device) -> TrainState:
    """Return a trial's state before its first step, and before its pre-training where it asks for one."""
    state = prepare(build(spec.network, data.shape, data.classes, spec.seed), spec.training, device)
    state.pretraining = None if spec.pretraining is None else PretrainingState(spec.pretraining)
    return state


def _share(state: TrainState, team: Team) -> None:
    """Bring every process of a team to where rank 0 is."""
    if team.size > 1:
        given = team.told(({}, 0, 0) if team.rank else (state.tensors(), state.step, state.epoch))
        if team.rank:
            state.load(*given)


def _records(
    store: Store,
    claim: Claim,
    spec: TrialSpec,
    owner: str,
    state: TrainState,
    data: batches.Data,
    pause: Callable[[int], bool],
    team: Team,
) -> Iterator[Record]:
    """Train; of an epoch in which training diverges, store what probes saw of it, which no later epoch will."""
    try:
        yield from train(state, data, spec.training, spec.seed, spec.probes, pause, team)
    except Diverged:
        if state.epoch < spec.training.epochs:
            _commit_start(store, claim, owner, state)
            cut_short = state.epoch + 1
            store.commit_epoch(claim.trial, owner, [], None, cut_short, 0.0, _measured(state, cut_short))
        raise


def _commit_start(store: Store, claim: Claim, owner: str, state: TrainState) -> None:
    """Store what probes saw before the first step, once; a trial that is killed before its checkpoint sees it again."""
    if seen := {name: one.to_bytes() for name, one in state.measured.get(0, {}).items()}:
        store.commit_epoch(claim.trial, owner, [], None, 0, 0.0, seen)


def _measured(state: TrainState, epoch: int) -> dict[str, bytes]:
    """Return what probes measured in an epoch, or in the part of it that training got through."""
    seen = {name: one.to_bytes() for name, one in state.measured.get(epoch, {}).items()}
    if state.flow is not None and len(state.flow.steps):
        seen["flow"] = state.flow.to_bytes()
    return seen


@lru_cache(maxsize=2)
def _dataset(spec: str, data_dir: Path | None, device: torch.device) -> batches.Data:
    try:
        return batches.load(DataSpec.model_validate_json(spec), data_dir).to(device)
    except DataError as error:  # of this machine, not of the trial: another may have what is missing here
        raise StoreError(str(error)) from None
