"""Processes that train one network together: started here and watched, or started by torchrun and called to each trial.

Here, the worker that holds a trial's claim starts a process for each device and stays outside: it renews the lease,
hears what rank 0 tells, and ends them all when one dies, when they are stuck, or when it is asked to stop. Nobody
waits for the dead.

Under torchrun, rank 0 is the worker, and the others wait in its key-value store to be called. They form a group of
their own for each trial, so that one that fails on some devices leaves nothing behind for the next.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from leadline.errors import LeadlineError, SpecError, StoreError
from leadline.running.stopping import starting
from leadline.training.team import PATIENCE, Disconnected, Team, joined

AFTER_DEATH_SECONDS, AFTER_ERROR_SECONDS = 5.0, 60.0
"""In which the other processes may say what they know, or finish what they store, when one has died or failed."""

GRACE_SECONDS = 14.0
"""For rank 0 to end its step and store where it is when it is asked to stop: batch systems give 30 to all."""


class DeviceLost(LeadlineError):
    """A process of one of several devices died."""


def spread(device: torch.device, devices: int) -> list[torch.device]:
    """Return the devices of so many processes: the CPU for all, or a GPU each.

    Raises:
        SpecError: the device is one GPU by its number, or there are not so many GPUs.
    """
    if devices == 1 or device.type == "cpu":
        return [device] * devices
    if device.index is not None:
        raise SpecError(f"device {str(device)!r} is one GPU, and {devices} devices are asked for; use --device cuda")
    found = torch.cuda.device_count()
    if devices > found:
        raise SpecError(
            f"devices: {devices}, and this machine shows {found} CUDA devices to PyTorch; use at most those"
        )
    return [torch.device("cuda", index) for index in range(devices)]


# --- started here


def together(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    devices: Sequence[torch.device],
    threads: int,
    heard: Callable[..., None],
    look: Callable[[], None],
    patience: timedelta = PATIENCE,
) -> None:
    """Run function(team, device, tell, *arguments) in a process for each device, and return when all have.

    Args:
        function: that another process can import; `tell` hands what it is given to `heard`, from rank 0 alone.
        arguments: that pickle takes.
        devices: one per process.
        threads: of each.
        heard: called here with what rank 0 tells.
        look: called here about once a second until rank 0 is done; what it raises ends the processes.
        patience: how long they wait for each other.

    Raises:
        DeviceLost: a process died.
        Exception: what the function raised: in rank 0, or else in the first that did.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="leadline-") as folder:
        address = str(Path(folder) / "meeting")
        ranks: list[_Rank] = []
        try:
            for rank in range(len(devices)):
                given = function, arguments, rank, tuple(devices), threads, address, patience
                _Rank.start(context, rank, given, ranks)
            _watch(ranks, heard, look)
        finally:
            _end(ranks)
    if ranks[0].done:  # all is stored, whatever became of the others then
        return
    errors = [rank.error for rank in ranks if rank.error is not None]
    if errors:
        raise min(errors, key=_gravity)


@dataclass(eq=False)
class _Rank:
    """A process of a team, as seen from outside."""

    number: int
    process: multiprocessing.process.BaseProcess
    events: Connection
    error: BaseException | None = None
    done: bool = False

    @classmethod
    def start(cls, context: Any, number: int, given: tuple[Any, ...], ranks: "list[_Rank]") -> None:
        """Start a process, and enter it among the others, which are ended together."""
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank_main, args=(theirs, os.getpid(), *given))
        with starting():
            process.start()
            ranks.append(cls(number, process, ours))
            theirs.close()

    def ended(self, size: int) -> None:
        """Note how the process ended, if it has not said so itself."""
        self.process.join()
        if self.done or self.error is not None:
            return
        code = self.process.exitcode or 0
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        self.error = DeviceLost(
            f"the process of device {self.number + 1} of {size} died with {how}; if memory ran out, use a smaller batch"
        )


def _watch(ranks: Sequence[_Rank], heard: Callable[..., None], look: Callable[[], None]) -> None:
    """Hear the processes until all have ended, or those beside one that died, failed or stored all had their time."""
    running = {rank.events: rank for rank in ranks}
    until = float("inf")
    while running and time.monotonic() < until:
        for events in wait(list(running), timeout=0.5):
            assert isinstance(events, Connection)
            rank = running[events]
            try:
                kind, content = pickle.loads(events.recv_bytes())
            except (EOFError, OSError):
                rank.ended(len(ranks))
                del running[events]
            else:
                if kind == "told":
                    heard(*content)
                elif kind == "raised":
                    rank.error = _unpacked(*content)
                else:
                    rank.done = True
                    if rank.number == 0:  # all is stored: nobody waits for the others
                        until = min(until, time.monotonic() + AFTER_DEATH_SECONDS)
            if rank.error is not None:
                alone = isinstance(rank.error, DeviceLost | Disconnected)
                until = min(until, time.monotonic() + (AFTER_DEATH_SECONDS if alone else AFTER_ERROR_SECONDS))
        if not ranks[0].done:
            look()


def _end(ranks: Sequence[_Rank]) -> None:
    """End what still runs: rank 0 in peace, for it may store where it is, then the others."""
    for rank in ranks[:1]:
        rank.process.terminate()
        rank.process.join(GRACE_SECONDS)
    for rank in ranks:
        rank.process.kill()
        rank.process.join()
        rank.events.close()


def _gravity(error: BaseException) -> int:
    """Order what processes ended with, first what explains the rest: others only lose contact with what fails."""
    return 2 if isinstance(error, Disconnected) else 1 if isinstance(error, DeviceLost) else 0


def _rank_main(
    events: Connection,
    parent: int,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    rank: int,
    devices: tuple[torch.device, ...],
    threads: int,
    address: str,
    patience: timedelta,
) -> None:
    def follow_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    def send(kind: str, content: tuple[Any, ...]) -> None:  # whole: tensors would otherwise stay with the sender
        events.send_bytes(pickle.dumps((kind, content)))

    def tell(*content: Any) -> None:
        if rank == 0:
            send("told", content)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides what Ctrl-C means
    threading.Thread(target=follow_parent, daemon=True).start()
    # they are all on this machine, whatever its name resolves to
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(threads)
    with contextlib.suppress(BrokenPipeError):
        try:
            meeting = FileStore(address, len(devices))  # a URL would be torn apart at some characters
            meeting.set_timeout(patience)
            with joined(rank, len(devices), devices[rank], meeting, patience) as team:
                function(team, devices[rank], tell, *arguments)
        except BaseException as error:
            send("raised", _packed(error))
        else:
            send("done", ())


def _packed(error: BaseException) -> tuple[bytes | None, str, str]:
    """Return an exception as what goes through a pipe: as it is, where pickle takes it, and in words."""
    words = f"{type(error).__name__}: {error}"
    try:
        content = pickle.dumps((type(error), error.args, error.__dict__))
    except Exception:  # whatever somebody's exception may hold
        content = None
    return content, words, traceback.format_exc()


def _unpacked(content: bytes | None, words: str, trace: str) -> BaseException:
    error: BaseException = RuntimeError(words)
    if content is not None:
        with contextlib.suppress(Exception):  # a class that cannot be imported here stays in words
            kind, arguments, values = pickle.loads(content)
            error = kind.__new__(kind, *arguments)
            error.args = arguments
            error.__dict__.update(values)
    error.add_note(trace)
    return error


# --- started by torchrun


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that torchrun has started."""

    rank: int
    size: int
    local_rank: int

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own device."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" else device


def under_torchrun() -> Place | None:
    """Return this process's place among those that torchrun has started; None: it has not, or this one alone."""
    found = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
    if not all(found):
        return None
    rank, size, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank, size, local) if size > 1 else None


def check_torchrun(devices: int) -> None:
    """See that torchrun has started as many processes as there are devices, where it has started any.

    Raises:
        SpecError: they are fewer or more.
    """
    place = under_torchrun()
    if place is not None and place.size != devices:
        raise SpecError(f"torchrun started {place.size} processes, for {devices} devices; use --devices {place.size}")


@contextlib.contextmanager
def called(task: Any, place: Place, device: torch.device, patience: timedelta = PATIENCE) -> Iterator[Team]:
    """In rank 0 under torchrun, call the others to a task while the body runs.

    Args:
        task: what they are given; pickle must take it.
        place: of this process.
        device: of this process.
        patience: how long they wait for each other.

    Raises:
        StoreError: one of the others lacks what the trial needs.
        LeadlineError: what one of the others failed with.
    """
    store = _store()
    number = store.add("leadline/tasks", 1)
    store.set(f"leadline/task/{number}", pickle.dumps(task).hex())
    try:
        with joined(place.rank, place.size, device, PrefixStore(f"group/{number}", store), patience) as team:
            yield team
    except Disconnected as error:
        time.sleep(1)  # in which they may say why
        for rank in range(1, place.size):
            if store.check([f"leadline/error/{number}/{rank}"]):
                kind, _, line = store.get(f"leadline/error/{number}/{rank}").decode().partition("|")
                of_machine = kind == StoreError.__name__  # and not of the trial
                raise (StoreError if of_machine else LeadlineError)(
                    f"device {rank + 1} of {place.size}: {line}"
                ) from error
        raise


def dismiss(place: Place) -> None:
    """In rank 0 under torchrun, let the others end."""
    store = _store()
    number = store.add("leadline/tasks", 1)
    store.set(f"leadline/task/{number}", pickle.dumps(None).hex())
    with contextlib.suppress(RuntimeError):  # the store may end with this process, and they still read
        store.wait([f"leadline/left/{rank}" for rank in range(1, place.size)], timedelta(seconds=10))


def answer(place: Place, device: torch.device, follow: Callable[..., None]) -> None:
    """In any other rank under torchrun, do follow(team, device, *task) for each task until rank 0 needs no more.

    Raises:
        LeadlineError: rank 0 is gone.
    """
    store, number = _store(), 0
    while True:
        number += 1
        task = _next(store, f"leadline/task/{number}")
        if task is None:
            store.set(f"leadline/left/{place.rank}", "")
            return
        meeting = PrefixStore(f"group/{number}", store)
        try:
            with joined(place.rank, place.size, device, meeting) as team:
                follow(team, device, *task)
        except Disconnected:  # rank 0 knows why, and calls again or ends
            continue
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            kind = StoreError if isinstance(error, StoreError) else LeadlineError
            store.set(f"leadline/error/{number}/{place.rank}", f"{kind.__name__}|{line}")


def _next(store: Store, key: str) -> Any:
    while True:
        try:
            store.wait([key], timedelta(minutes=1))
            return pickle.loads(bytes.fromhex(store.get(key).decode()))
        except dist.DistStoreError:  # nothing yet
            continue
        except (RuntimeError, OSError) as error:
            raise LeadlineError("the process of rank 0, which has the study, is gone") from error


@lru_cache(maxsize=1)
def _store() -> Store:
    """Return the key-value store through which torchrun's processes find each other, apart for each restart of them."""
    place = under_torchrun()
    assert place is not None
    serves = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), place.size, serves, PATIENCE, False)
    return PrefixStore(f"leadline/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
