"""A worker: it takes trials of a study one after another, and keeps the lease of the one that it runs."""

import contextlib
import math
import threading
import traceback
from collections.abc import Iterator, Sequence

import torch

from leadline.errors import LeadlineError, StoreError
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.running.devices import check_torchrun, spread
from leadline.running.environment import environment
from leadline.running.job import MOST_ATTEMPTS, Emit, Event, Job
from leadline.running.kept import Kept
from leadline.running.stopping import Stop, Stopped
from leadline.running.trial import train_trial
from leadline.spec import ProbeSpec, TrialSpec
from leadline.store import Claim, LeaseLost, Owner, Store
from leadline.training import Diverged, check_devices, choose_device
from leadline.training.memory import ran_out_of_memory

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0
JOIN_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""For which a worker tries to reach a database that is gone, before it gives up."""


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
        places = spread(device, devices)
        while taken < most and (claim := store.claim(job.study, str(owner), LEASE_SECONDS)) is not None:
            taken += 1
            run_trial(store, claim, str(owner), places, job, emit, stop)
            if stop.asked:
                raise Stopped
    return taken


def run_trial(
    store: Store,
    claim: Claim,
    owner: str,
    devices: Sequence[torch.device],
    job: Job,
    emit: Emit,
    stop: Stop,
) -> None:
    """Run one claimed trial from its last checkpoint to its end, and store what it gives.

    A trial that diverges or fails is stored as such; the caller goes on with the next one. When the process is
    asked to stop, the step ends, a checkpoint is written, and the claim is given back.
    """
    spec = TrialSpec.model_validate_json(claim.spec)

    def tell(kind: str, fraction: float = 0.0, text: str = "") -> None:
        emit(Event(kind, claim.trial, claim.arm, spec.seed, owner, fraction, text))

    try:  # from the first moment, for a stop may come in any
        tell("started", claim.epochs_done / spec.training.epochs)
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
                store.finish(claim.trial, owner, "diverged", error=str(error), diverged_step=error.step)
                files.remove_earlier()
                tell("diverged", 1.0, str(error))
            except StoreError:
                raise
            except Exception as error:
                line, detail = _in_words(error)
                store.finish(claim.trial, owner, "failed", error=line + detail)
                tell("failed", 0.0, line)
    except LeaseLost as error:
        tell("stopped", 0.0, str(error))
    except (Stopped, KeyboardInterrupt, StoreError):
        given_back = True
        with contextlib.suppress(StoreError):  # then it ends with the process, or its lease
            given_back = store.release(claim.trial, owner)
        if given_back:
            tell("stopped")
        raise


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
