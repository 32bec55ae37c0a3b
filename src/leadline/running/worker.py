"""A worker: it takes trials of a study one after another, and keeps the lease of the one that it runs."""

import contextlib
import math
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

import torch

from leadline.errors import LeadlineError, StoreError
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.running.devices import DeviceLost, check_torchrun, spread, under_torchrun
from leadline.running.environment import environment
from leadline.running.job import MOST_ATTEMPTS, PATIENCE_SECONDS, Emit, Event, Job
from leadline.running.kept import Kept
from leadline.running.stopping import Stop, Stopped, held
from leadline.running.trial import train_trial
from leadline.spec import ProbeSpec, TrialSpec
from leadline.store import Claim, LeaseLost, Owner, Store
from leadline.store.connect import patiently
from leadline.store.schema import SETTLED
from leadline.training import Diverged, check_devices, choose_device
from leadline.training.memory import ran_out_of_memory
from leadline.training.team import Disconnected

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0
JOIN_SECONDS = 5.0


class _NotTold(BaseException):
    """Who is told what happens has raised something; no Exception, for it is no failure of the trial."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def work(job: Job, emit: Emit, most: float = math.inf, stop: Stop | None = None) -> int:
    """Take trials of a study and run them until none can be taken, or so many were; return how many were taken.

    While the database is gone, its calls are tried again for five minutes.

    Raises:
        StoreError: the store cannot be opened or used, or a checkpoint cannot be written.
        Stopped: the process was asked to stop; the trial has been given back.
    """
    stop = stop or Stop()
    taken = 0
    torch.set_num_threads(job.threads)
    device = choose_device(job.device)
    owner = Owner.current()
    with Store.open(job.runs, job.store_url, PATIENCE_SECONDS) as store:
        spec = store.study(job.study).spec
        devices = job.devices or spec.get("devices", 1)
        check_devices(ProbeSpec.model_validate(spec.get("probes", {})), devices)
        check_torchrun(devices)
        places = [device] * devices if under_torchrun() else spread(device, devices)  # each of them has its own
        while taken < most and run_trial(store, str(owner), places, job, emit, stop):
            taken += 1
            if stop.asked:
                raise Stopped
    return taken


def run_trial(store: Store, owner: str, devices: Sequence[torch.device], job: Job, emit: Emit, stop: Stop) -> bool:
    """Claim a trial, run it from its last checkpoint to its end, and store what it gives; False: there is none.

    A trial that diverges or fails is stored as such; the caller goes on with the next one. When the process is
    asked to stop, the step ends, a checkpoint is written, and the claim is given back, as it is whatever is raised.
    """
    claim: Claim | None = None
    try:  # around the claim as well, for a stop may come in any moment
        with held(signal.SIGINT) as interrupted, stop.gently():
            claim = store.claim(job.study, owner, LEASE_SECONDS, lambda: interrupted() or stop.asked)
        if claim is not None:
            _run_claimed(store, claim, owner, devices, job, _telling(claim, owner, emit), stop)
        return claim is not None
    except _NotTold as error:
        _give_back(store, claim, owner, emit)
        raise error.reason from None
    except BaseException:
        _give_back(store, claim, owner, emit)
        raise


def _telling(claim: Claim, owner: str, emit: Emit) -> Callable[[str, float, str], None]:
    seed = TrialSpec.model_validate_json(claim.spec).seed

    def tell(kind: str, fraction: float, text: str) -> None:
        try:
            emit(Event(kind, claim.trial, claim.arm, seed, owner, fraction, text))
        except Exception as error:
            raise _NotTold(error) from error

    return tell


def _give_back(store: Store, claim: Claim | None, owner: str, emit: Emit) -> None:
    if claim is None:
        return
    given_back = True
    with contextlib.suppress(StoreError):  # then it ends with the process, or its lease
        given_back = store.release(claim.trial, owner)
    if given_back:
        with contextlib.suppress(_NotTold):
            _telling(claim, owner, emit)("stopped", 0.0, "")


def _run_claimed(
    store: Store,
    claim: Claim,
    owner: str,
    devices: Sequence[torch.device],
    job: Job,
    tell: Callable[[str, float, str], None],
    stop: Stop,
) -> None:
    spec = TrialSpec.model_validate_json(claim.spec)
    team_lost: LeadlineError | None = None
    try:
        tell("started", claim.epochs_done / spec.training.epochs, "")
        with _heartbeat(store, claim.trial, owner) as lost:
            try:
                if claim.attempts > MOST_ATTEMPTS:
                    raise LeadlineError(
                        f"its worker process died {MOST_ATTEMPTS} times; if memory ran out, use fewer workers"
                    )
                store.set_environment(claim.trial, owner, environment(devices))
                last, earlier = claim.checkpoint, claim.earlier_checkpoint
                files = Kept(store, spec, claim.trial, owner, last, earlier, job.artifacts)
                train_trial(devices, job, files, claim, tell, lost, stop)
            except (Diverged, PretrainingDiverged) as error:
                if len(devices) == 1 or under_torchrun():  # else rank 0 has done so, which is another process
                    files.remove_earlier()
                store.finish(claim.trial, owner, "diverged", error=str(error), diverged_step=error.step)
                tell("diverged", 1.0, str(error))
            except StoreError:
                raise
            except Exception as error:
                if isinstance(error, DeviceLost | Disconnected) and store.trial(claim.trial).attempts < MOST_ATTEMPTS:
                    team_lost = error
                else:
                    line, detail = _in_words(error)
                    store.finish(claim.trial, owner, "failed", error=line + detail)
                    tell("failed", 0.0, line)
        if team_lost is not None:  # the lease is ended when nothing renews it any more
            patiently(lambda _: store.heartbeat(claim.trial, owner, -1.0), PATIENCE_SECONDS)
            tell("died", 0.0, f"{team_lost}; it is taken up again")
    except LeaseLost as error:
        tell("stopped", 0.0, str(error))


def _in_words(error: Exception) -> tuple[str, str]:
    """Return why a trial failed, in one line, and what a developer wants to see below it."""
    if isinstance(error, LeadlineError):
        return " ".join(str(error).split()), ""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    if ran_out_of_memory(error):
        return f"out of memory; use a smaller training.batch_size, or fewer workers at once ({line})", ""
    return line, f"\n{traceback.format_exc()}"


@contextlib.contextmanager
def _heartbeat(store: Store, trial: str, owner: str) -> Iterator[threading.Event]:
    """Renew the trial's lease while the body runs; the event is set when another worker has taken the trial over."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        pause = HEARTBEAT_SECONDS
        while not done.wait(pause):
            pause = HEARTBEAT_SECONDS / 4
            with contextlib.suppress(StoreError):
                if not store.heartbeat(trial, owner, LEASE_SECONDS):
                    if store.trial(trial).state not in SETTLED:  # else it has just ended
                        lost.set()
                    return
                pause = HEARTBEAT_SECONDS

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join(JOIN_SECONDS)  # it may hang on a database that is gone
