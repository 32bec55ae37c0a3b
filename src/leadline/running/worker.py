"""A worker, which runs trials of a study one by one and renews the lease of the current trial."""

import contextlib
import math
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from leadline.distributed.launch import ProcessDied, assign_devices, launch
from leadline.distributed.process_group import Disconnected
from leadline.distributed.processes import hold_signal
from leadline.distributed.torchrun import Torchrun, check_torchrun
from leadline.errors import LeadlineError, StoreError
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.running.checkpoints import Checkpoints
from leadline.running.environment import continue_in, environment
from leadline.running.job import MOST_ATTEMPTS, PATIENCE_SECONDS, Emit, Event, Job, ReportProgress
from leadline.running.stopping import Stop, Stopped
from leadline.running.trial import TrialRun, run_rank
from leadline.specs import ProbeSpec, TrialSpec
from leadline.store import Claim, LeaseLost, Store, WorkerId
from leadline.store.connect import retry_while_unreachable
from leadline.store.schema import SETTLED
from leadline.training import Diverged, check_devices, choose_device
from leadline.training.device_errors import lost_device, ran_out_of_memory
from leadline.training.numerics import numerics

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0
JOIN_SECONDS = 5.0


class DeviceFailed(LeadlineError):
    """An accelerator returned an error, after which it fails every call of this process; another process may use it."""


class _ReportFailed(BaseException):
    """The event callback raised an error; not an Exception, because it is not a failure of the trial."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


def work(job: Job, emit: Emit, most: float = math.inf, stop: Stop | None = None, thread: int = 0) -> int:
    """Claim and run trials of a study until none is available or `most` have run; return how many were run.

    Calls to an unreachable database are retried for five minutes. `thread` tells the threads of a process apart.

    Raises:
        StoreError: the store cannot be opened or used, or a checkpoint cannot be written.
        DeviceFailed: the device failed, and the trial has been given back.
        Stopped: the process was asked to stop; the trial has been given back.
    """
    stop = stop or Stop()
    taken = 0
    torch.set_num_threads(job.threads)
    job.admit_code()
    device = choose_device(job.device)
    with Store.open(job.runs, job.store_url, PATIENCE_SECONDS) as store:
        spec = store.study(job.study).spec
        count = job.devices or spec.get("devices", 1)
        check_devices(ProbeSpec.model_validate(spec.get("probes", {})), count)
        check_torchrun(count)
        devices = [device] * count if Torchrun.current() else assign_devices(device, count, job.place)
        worker = Worker(store, str(WorkerId.current(thread)), devices, job, emit, stop)
        while taken < most and worker.run_trial():
            taken += 1
            if stop.asked:
                raise Stopped
    return taken


@dataclass(frozen=True)
class Worker:
    """Claim and run trials of a study, one at a time."""

    store: Store
    id: str
    devices: Sequence[torch.device]  # per trial
    job: Job
    emit: Emit
    stop: Stop

    def run_trial(self) -> bool:
        """Claim a trial, run it from its last checkpoint, and store its results; return False if none is available.

        If a trial diverges or fails, its state is stored and the caller continues with the next one. If the process is
        asked to stop, the current step is completed, a checkpoint is written and the claim is released. The claim is
        also released after any exception.
        """
        claim: Claim | None = None
        try:  # includes the claim, because a stop request can arrive at any time
            hears = self.stop.hears_ctrl_c
            hold = contextlib.nullcontext(bool) if hears else hold_signal(signal.SIGINT)  # bool() is False
            with hold as interrupted, self.stop.defer():
                claim = self.store.claim(
                    self.job.study, self.id, LEASE_SECONDS, lambda: interrupted() or self.stop.asked
                )
            if claim is not None:
                self._run(claim)
            return claim is not None
        except _ReportFailed as error:
            self._give_back(claim)
            raise error.reason from None
        except DeviceFailed:  # the attempt counts
            raise
        except BaseException:
            self._give_back(claim)
            raise

    def _run(self, claim: Claim) -> None:
        """Run a trial under its lease and store its final state."""
        trial, report = claim.trial, self._make_report(claim)
        lost_process: Exception | None = None
        try:
            with _heartbeat(self.store, trial, self.id) as taken_over:
                try:
                    checkpoints = Checkpoints(self.store, claim, self.id, self.job.artifacts)
                    report("started", claim.epochs_done / checkpoints.spec.training.epochs, "")
                    if claim.attempts > MOST_ATTEMPTS:
                        raise LeadlineError(
                            f"its worker process died {MOST_ATTEMPTS} times; if memory ran out, use fewer workers"
                        )
                    self._note_environment(claim, checkpoints.spec, report)
                    self._train(checkpoints, report, taken_over)
                except (Diverged, PretrainingDiverged) as error:
                    self.store.finish(trial, self.id, "diverged", error=str(error), diverged_step=error.step)
                    report("diverged", 1.0, str(error))
                except StoreError:
                    raise
                except Exception as error:
                    lost = lost_device(error) or isinstance(error, ProcessDied | Disconnected)
                    if lost and self.store.trial(trial).attempts < MOST_ATTEMPTS:
                        lost_process = error
                    else:
                        line, detail = _describe_failure(error)
                        self.store.finish(trial, self.id, "failed", error=line + detail)
                        report("failed", 0.0, line)
            if lost_process is not None:  # end the lease only after the heartbeat has stopped
                retry_while_unreachable(lambda _: self.store.heartbeat(trial, self.id, -1.0), PATIENCE_SECONDS)
                reason = " ".join(str(lost_process).split("\n")[0].split())
                report("died", 0.0, f"{reason}; the trial will be resumed")
                if lost_device(lost_process):
                    raise DeviceFailed(f"{reason}; run the same command to resume its trial")
        except LeaseLost as error:
            report("stopped", 0.0, str(error))

    def _note_environment(self, claim: Claim, spec: TrialSpec, report: ReportProgress) -> None:
        """Store where a trial trains, beside where it did before its last checkpoint, and say what has changed."""
        before = None if claim.checkpoint is None else self.store.trial(claim.trial).environment
        found, line = continue_in(environment(self.devices, spec.training.precision), before)
        self.store.set_environment(claim.trial, self.id, found, line)
        if line:
            report("moved", claim.epochs_done / spec.training.epochs, line)

    def _train(self, checkpoints: Checkpoints, report: ReportProgress, lost: threading.Event) -> None:
        """Train in this process on one device; on several, in new processes or in those of torchrun."""
        job, device = self.job, self.devices[0]

        def check_lease() -> None:
            if lost.is_set():
                raise LeaseLost(f"trial {checkpoints.claim.trial[:12]}: another worker has taken it over")

        if len(self.devices) == 1:
            with numerics(device):  # which makes a card the current one while data are loaded, too
                TrialRun(job, checkpoints, device, report, check_lease, self.stop).run()
        elif (torchrun := Torchrun.current()) is not None:
            device = torchrun.device(device)
            data_dir = None if job.data_dir is None else str(job.data_dir)
            with torchrun.start_task([job.threads, checkpoints.claim.spec, data_dir], device) as group:
                TrialRun(job, checkpoints, device, report, check_lease, self.stop, group).run()
        else:
            launch(run_rank, (job, checkpoints), self.devices, job.threads, report, check_lease)

    def _make_report(self, claim: Claim) -> ReportProgress:
        """Return a function that emits the events of a claimed trial."""

        def report(kind: str, fraction: float, text: str) -> None:
            try:
                self.emit(Event(kind, claim.trial, claim.arm, claim.seed, self.id, fraction, text))
            except Exception as error:
                raise _ReportFailed(error) from error

        return report

    def _give_back(self, claim: Claim | None) -> None:
        """Release the trial so that another worker can claim it."""
        if claim is None:
            return
        given_back = True
        with contextlib.suppress(StoreError):  # the claim then expires with the process or the lease
            given_back = self.store.release(claim.trial, self.id)
        if given_back:
            with contextlib.suppress(_ReportFailed):
                self._make_report(claim)("stopped", 0.0, "")


def _describe_failure(error: Exception) -> tuple[str, str]:
    """Return why a trial failed in one line, followed by the traceback."""
    if isinstance(error, LeadlineError):
        return " ".join(str(error).split()), ""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    if ran_out_of_memory(error):
        return f"out of memory; use a smaller training.batch_size or fewer workers ({line})", ""
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
                    if store.trial(trial).state not in SETTLED:  # otherwise, the trial has just ended
                        lost.set()
                    return
                pause = HEARTBEAT_SECONDS

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join(JOIN_SECONDS)  # the thread may hang on an unreachable database
