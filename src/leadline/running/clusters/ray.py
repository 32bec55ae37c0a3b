"""Trials as tasks of a Ray cluster; the ledger stays authoritative: a task claims its trial as any worker does.

A task takes the study's next trial, whichever that is. When its process or node dies, the driver ends the trial's
lease and sends another task, which goes on from the trial's last checkpoint if it can read it, and else from the start,
to the same bits. Should Ray be mistaken about the death, the trial's old owner is refused by the ledger.
"""

import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from leadline.errors import LeadlineError, SpecError, StoreError, not_installed
from leadline.running.executors import ENDS
from leadline.running.job import MOST_ATTEMPTS, PATIENCE_SECONDS, Emit, Event, Job
from leadline.running.stopping import Stopped, at_sigterm, raise_if_terminated
from leadline.running.worker import work
from leadline.store import Store
from leadline.store.connect import address as store_address
from leadline.store.schema import SETTLED

WAIT_SECONDS = 0.5
"""Seconds between two checks for events from tasks."""
AT_ONCE = 1000
"""Maximum number of tasks that run or are queued; Ray examines each of them in every scheduling step."""
CONNECT_SECONDS = 10.0
GRACE_SECONDS = 20.0
"""Maximum seconds for tasks to write checkpoints and release their trials when the driver is stopped."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else Ray reports its use over the network
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default, about which Ray warns otherwise
}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment that keeps a single-machine cluster off the network; Ray reads it when it is imported."""


@dataclass(frozen=True)
class RayTasks:
    """Run trials as tasks of a Ray cluster; a task whose process or node dies is submitted again."""

    address: str | None = None  # None: RAY_ADDRESS, and where that is not set, a cluster of this machine alone
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0  # 0.25: four trials share a GPU

    def __post_init__(self) -> None:
        for option, value in (("--cpus-per-trial", self.cpus_per_trial), ("--gpus-per-trial", self.gpus_per_trial)):
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"{option} {value}: expected 0 or more, such as 0.25")
        if self.gpus_per_trial > 1 and self.gpus_per_trial != int(self.gpus_per_trial):
            raise SpecError(f"--gpus-per-trial {self.gpus_per_trial}: values above 1 must be whole numbers")
        if not self.cpus_per_trial and not self.gpus_per_trial:
            raise SpecError(
                "--cpus-per-trial 0 --gpus-per-trial 0: a trial must reserve some resource, or all trials"
                " would start at once; give one of the two"
            )

    def device(self, asked: str) -> str:
        """Return the device of a trial: CUDA if Ray assigns GPUs to it, else the CPU.

        Raises:
            SpecError: another device was requested.
        """
        ours = "cuda" if self.gpus_per_trial else "cpu"
        if asked not in ("auto", ours):
            raise SpecError(
                f"--device {asked} --gpus-per-trial {self.gpus_per_trial:g}: trials on Ray use the device that Ray"
                f" assigns, which is {ours}; remove --device or change --gpus-per-trial"
            )
        return ours

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is available.

        Raises:
            LeadlineError: Ray is not installed, its cluster cannot be reached or has no node that is large enough, or
                tasks cannot use the store.
        """
        job = job.with_absolute_paths()
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        ray = import_ray(QUIET if address != "local" else QUIET | ON_LOOPBACK)
        _connect(ray, address)
        with Store.open(job.runs, job.store_url) as store:
            self._check(ray, job)
            store.patience = PATIENCE_SECONDS
            counts = store.counts(job.study)
            driver = _Driver(ray, self, job, emit, store)
            try:
                driver.run(counts["waiting"] + counts["running"])
            finally:
                driver.stop()

    def _check(self, ray: ModuleType, job: Job) -> None:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}
        if not any(all(node["Resources"].get(kind, 0) >= need for kind, need in asked.items()) for node in nodes):
            largest = {kind: max((node["Resources"].get(kind, 0) for node in nodes), default=0) for kind in asked}
            raise LeadlineError(
                f"no node of the Ray cluster has {asked['CPU']:g} CPUs and {asked['GPU']:g} GPUs for a trial; the"
                f" largest has {largest['CPU']:g} and {largest['GPU']:g}; reduce --cpus-per-trial or --gpus-per-trial"
            )
        machines = {node["NodeManagerHostname"] for node in nodes}
        url = store_address(job.store_url, job.runs)
        if len(machines) > 1 and url.get_backend_name() == "sqlite":
            raise LeadlineError(
                f"the Ray cluster has {len(machines)} machines, but a SQLite store works on one machine only; use"
                f" --store postgresql://HOST/NAME"
            )


@dataclass
class _Driver:
    """Submit tasks, forward their events, and resubmit lost ones."""

    ray: ModuleType
    wanted: RayTasks
    job: Job
    emit: Emit
    store: Store
    mailbox: Any = None
    tasks: dict[Any, int] = field(default_factory=dict)  # reference -> number
    last: dict[int, Event] = field(default_factory=dict)  # number of a task -> its last event
    sent: int = 0
    deaths: int = 0  # consecutive deaths of tasks that had reported nothing yet
    refusals: int = 0  # tasks whose machine could not run a trial, since a trial last ended

    def run(self, trials: int) -> None:
        here = self.ray.get_runtime_context().get_node_id()
        # On the driver's own node, so that both survive or fail together.
        pinned = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self.mailbox = self.ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=pinned).remote()
        wanted = self.wanted
        # No retries by Ray, which would wait for the lease of a lost trial to expire.
        task = self.ray.remote(_run_one).options(
            num_cpus=wanted.cpus_per_trial, num_gpus=wanted.gpus_per_trial, max_retries=0
        )
        while trials or self.tasks:
            for _ in range(min(trials, AT_ONCE - len(self.tasks))):
                self.tasks[task.remote(self.job, self.sent, self.mailbox)] = self.sent
                self.sent += 1
                trials -= 1
            raise_if_terminated()
            done, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=WAIT_SECONDS)
            self.listen()
            trials += sum(not self.settle(reference, self.tasks.pop(reference)) for reference in done)
        self.listen()

    def listen(self) -> None:
        """Emit the events that tasks have reported."""
        for number, event in self.ray.get(self.mailbox.take.remote()):
            self.deaths = 0
            self.refusals = 0 if event.kind in SETTLED else self.refusals
            self.last[number] = event
            self.emit(event)

    def settle(self, reference: Any, number: int) -> bool:
        """Return whether a task ended normally; end the lease of one that died.

        Raises:
            LeadlineError: the task raised it, or consecutive tasks died before they had started.
        """
        errors = self.ray.exceptions
        try:
            self.ray.get(reference)
            return True
        except errors.RayTaskError as error:
            if isinstance(error.cause, StoreError):  # another machine may have the data, or enough space
                self.refusals += 1
                if self.refusals < MOST_ATTEMPTS:
                    return False
            if isinstance(error.cause, LeadlineError):
                raise error.cause from None
            raise LeadlineError(f"{self.job.study}: a Ray task failed: {_first_line(error.cause)}") from None
        except errors.RayError as error:
            event = self.last.get(number)
            if event is None:
                self.deaths += 1
                if self.deaths >= MOST_ATTEMPTS:
                    raise LeadlineError(
                        f"{self.job.study}: {self.deaths} Ray tasks died before they started a trial:"
                        f" {_first_line(error)}"
                    ) from None
            elif event.kind not in ENDS:
                self.end_lease(event)
                text = f"its process or node died ({type(error).__name__}); the trial will be resumed"
                self.emit(replace(event, kind="died", text=text))
            return False

    def stop(self) -> None:
        """Let tasks write a checkpoint and release their trials; end those that do not, and their leases."""
        left = list(self.tasks)
        if not left:
            return
        with suppress(KeyboardInterrupt, self.ray.exceptions.RayError):  # a second Ctrl-C waits no longer
            begun = self.ray.get(self.mailbox.stop.remote())
            self.last.update(self.ray.get(self.mailbox.take.remote()))
            for reference, number in self.tasks.items():
                if number not in begun:  # and will not claim a trial any more; one that may have is not interrupted
                    self.ray.cancel(reference)
            _, left = self.ray.wait(left, num_returns=len(left), timeout=GRACE_SECONDS)
            self.listen()
        for reference in left:
            self.ray.cancel(reference, force=True)
        for number in self.tasks.values():  # a task may not have ended in time
            if (event := self.last.get(number)) is not None and event.kind not in ENDS:
                self.end_lease(event)

    def end_lease(self, event: Event) -> None:
        """End a lease so that the trial can be resumed at once; without the database, it expires by itself."""
        with suppress(StoreError):
            self.store.heartbeat(event.trial, event.owner, -1.0)


class _Mailbox:
    """The events of tasks until the driver takes them, which tasks have begun, and whether they are to stop."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Event]] = []
        self.begun: set[int] = set()
        self.stopping = False

    def begin(self, number: int) -> bool:
        """Return whether a task may claim a trial, which it asks once."""
        if not self.stopping:
            self.begun.add(number)
        return not self.stopping

    def put(self, number: int, event: Event) -> None:
        self.events.append((number, event))

    def take(self) -> list[tuple[int, Event]]:
        taken, self.events = self.events, []
        return taken

    def stop(self) -> set[int]:
        """Let no further task begin; return those that have."""
        self.stopping = True
        return self.begun

    def is_stopping(self) -> bool:
        return self.stopping


def _run_one(job: Job, number: int, mailbox: Any) -> None:
    """Claim one trial and run it; the body of a task."""
    import ray

    reported = -math.inf

    def emit(event: Event) -> None:
        nonlocal reported
        if event.kind == "progress":
            if time.monotonic() - reported < WAIT_SECONDS:
                return
            reported = time.monotonic()
        reference = mailbox.put.remote(number, event)
        if event.kind != "progress":
            ray.get(reference)  # the driver must know the owner of the trial before anything can happen to it

    if ray.get(mailbox.begin.remote(number)):
        with suppress(Stopped), at_sigterm() as stop, _stop_on_request(mailbox):
            work(job, emit, most=1, stop=stop)


@contextmanager
def _stop_on_request(mailbox: Any) -> Iterator[None]:
    """Send this process SIGTERM, as a batch system does, when the driver asks its tasks to stop.

    Cancelling by Ray raises KeyboardInterrupt anywhere in the task, where it may be swallowed.
    """
    import ray

    over, signalling = threading.Event(), threading.Lock()

    def listen() -> None:
        while not over.wait(WAIT_SECONDS):
            if ray.get(mailbox.is_stopping.remote()):
                with signalling:
                    if not over.is_set():
                        os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        with signalling:
            over.set()


def import_ray(settings: Mapping[str, str]) -> ModuleType:
    """Import Ray with these environment variables, unless they are already set.

    Raises:
        LeadlineError: it is not installed.
    """
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError:
        raise LeadlineError(not_installed("--executor ray", "ray", "ray")) from None
    return ray


def _connect(ray: ModuleType, address: str) -> None:
    """Connect to a cluster until the program ends, unless it is connected; "local" starts one on this machine."""
    if ray.is_initialized():
        return
    start = {"include_dashboard": False} if address == "local" else {}
    try:
        if match := re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address):  # Ray itself would try for minutes
            socket.create_connection((match[1], int(match[2])), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR", namespace="leadline", **start)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise LeadlineError(f"Ray cluster {address}: cannot be reached: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
