"""Processes that train one network, started on this machine and watched.

The worker that holds a trial's claim starts a process for each device and stays outside: it renews the lease, hears
what rank 0 tells, and ends them all when one dies, when they are stuck, or when it is asked to stop. Nobody waits for
the dead.
"""

import contextlib
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]

from leadline.distributed.process_group import TIMEOUT, Disconnected, join_process_group
from leadline.distributed.processes import describe_death, follow_parent, start_process
from leadline.errors import LeadlineError, SpecError

AFTER_DEATH_SECONDS, AFTER_ERROR_SECONDS = 5.0, 60.0
"""In which the other processes may say what they know, or finish what they store, when one has died or failed."""

GRACE_SECONDS = 14.0
"""For rank 0 to end its step and store where it is when it is asked to stop: batch systems give 30 to all."""


class ProcessDied(LeadlineError):
    """A process of a group that trains one network died."""


def assign_devices(device: torch.device, count: int, place: int = 0) -> list[torch.device]:
    """Return the device of each of the `count` processes of a trial: the CPU for all, or a card each.

    Workers take the cards in turn: with two processes for a trial, the worker at place 0 takes cards 0 and 1, that at
    place 1 cards 2 and 3, and so on, beginning again after the last card.

    Args:
        device: as `choose_device` returns it; a card named by its number is taken at every place.
        count: number of processes.
        place: of the worker among those of this machine, from 0.

    Raises:
        SpecError: the device is one GPU by its number, or there are not so many GPUs.
    """
    if device.type == "cpu" or (count == 1 and device.index is not None):
        return [device] * count
    if device.type == "mps":
        if count > 1:
            raise SpecError(f"device 'mps' is one GPU, but {count} devices were requested; use --device cpu")
        return [device]
    if device.index is not None:
        raise SpecError(f"device {str(device)!r} is one GPU, but {count} devices were requested; use --device cuda")
    found = torch.cuda.device_count()
    if count > found:
        raise SpecError(
            f"devices: {count}, but PyTorch sees {found} CUDA devices on this machine; use at most that many"
        )
    return [torch.device("cuda", (place * count + number) % found) for number in range(count)]


def launch(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    devices: Sequence[torch.device],
    threads: int,
    receive: Callable[..., None],
    check: Callable[[], None],
    timeout: timedelta = TIMEOUT,
) -> None:
    """Run function(group, device, report, *arguments) in one process per device; return when all have returned.

    Args:
        function: importable by another process; `report` of rank 0 passes its arguments to `receive`.
        arguments: must be picklable.
        devices: one per process.
        threads: number of threads per process.
        receive: called in this process with each report of rank 0.
        check: called in this process about once a second until rank 0 is done; an exception ends the processes.
        timeout: how long the processes wait for each other.

    Raises:
        ProcessDied: a process died.
        Exception: the function raised it, in rank 0 or else in the first process that failed.
    """
    with tempfile.TemporaryDirectory(prefix="leadline-") as folder:
        rendezvous = str(Path(folder) / "rendezvous")
        ranks: list[_Rank] = []
        try:
            for rank in range(len(devices)):
                given = function, arguments, rank, tuple(devices), threads, rendezvous, timeout
                with start_process(_run_rank, *given) as (process, events):
                    ranks.append(_Rank(rank, process, events))
            _watch(ranks, receive, check)
        finally:
            _end(ranks)
    if ranks[0].done:  # all results are stored, however the other processes ended
        return
    errors = [rank.error for rank in ranks if rank.error is not None]
    if errors:
        raise min(errors, key=_error_rank)


@dataclass(eq=False)
class _Rank:
    """A process of a group, as seen by the parent process."""

    number: int
    process: BaseProcess
    events: Connection
    error: BaseException | None = None
    done: bool = False

    def note_end(self, world_size: int) -> None:
        """Record how the process ended, unless it has reported that itself."""
        self.process.join()
        if self.done or self.error is not None:
            return
        how = describe_death(self.process.exitcode or 0, "if memory ran out, use a smaller batch")
        self.error = ProcessDied(f"the process of device {self.number + 1} of {world_size} {how}")


def _watch(ranks: Sequence[_Rank], receive: Callable[..., None], check: Callable[[], None]) -> None:
    """Receive from the processes until all have ended, or until a grace period after one died, failed or finished."""
    running = {rank.events: rank for rank in ranks}
    until = float("inf")
    while running and time.monotonic() < until:
        for events in wait(list(running), timeout=0.5):
            assert isinstance(events, Connection)
            rank = running[events]
            try:
                kind, content = pickle.loads(events.recv_bytes())
            except (EOFError, OSError):
                rank.note_end(len(ranks))
                del running[events]
            else:
                if kind == "reported":
                    receive(*content)
                elif kind == "raised":
                    rank.error = _unpack_error(*content)
                else:
                    rank.done = True
                    if rank.number == 0:  # all results are stored, so the others are not needed any more
                        until = min(until, time.monotonic() + AFTER_DEATH_SECONDS)
            if rank.error is not None:
                alone = isinstance(rank.error, ProcessDied | Disconnected)
                until = min(until, time.monotonic() + (AFTER_DEATH_SECONDS if alone else AFTER_ERROR_SECONDS))
        if not ranks[0].done:
            check()


def _end(ranks: Sequence[_Rank]) -> None:
    """End the processes that still run: first rank 0, which may still write a checkpoint, then the others."""
    for rank in ranks[:1]:
        rank.process.terminate()
        rank.process.join(GRACE_SECONDS)
    for rank in ranks:
        rank.process.kill()
        rank.process.join()
        rank.events.close()


def _error_rank(error: BaseException) -> int:
    """Return the sort key of an error, causes first: other processes only lose contact with the one that failed."""
    return 2 if isinstance(error, Disconnected) else 1 if isinstance(error, ProcessDied) else 0


def _run_rank(
    events: Connection,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    rank: int,
    devices: tuple[torch.device, ...],
    threads: int,
    rendezvous: str,
    timeout: timedelta,
) -> None:
    """Join the group in a new process and run the function, sending its outcome to the parent."""

    def send(kind: str, content: tuple[Any, ...]) -> None:  # pickled, because shared tensors would need the sender
        events.send_bytes(pickle.dumps((kind, content)))

    def report(*content: Any) -> None:
        if rank == 0:
            send("reported", content)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    follow_parent(signal.SIGKILL)
    # all processes are on this machine, whatever its name resolves to
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(threads)
    with contextlib.suppress(BrokenPipeError):
        try:
            store = FileStore(rendezvous, len(devices))  # not a file:// URL, which fails for some characters in a path
            store.set_timeout(timeout)
            with join_process_group(rank, len(devices), devices[rank], store, timeout) as group:
                function(group, devices[rank], report, *arguments)
        except BaseException as error:
            send("raised", _pack_error(error))
        else:
            send("done", ())


def _pack_error(error: BaseException) -> tuple[bytes | None, str, str]:
    """Return an exception in a form that can be sent through a pipe: pickled if possible, and as text."""
    words = f"{type(error).__name__}: {error}"
    try:
        content = pickle.dumps((type(error), error.args, error.__dict__))
    except Exception:  # custom exceptions can contain anything
        content = None
    return content, words, traceback.format_exc()


def _unpack_error(content: bytes | None, words: str, trace: str) -> BaseException:
    error: BaseException = RuntimeError(words)
    if content is not None:
        with contextlib.suppress(Exception):  # the class may not be importable here
            kind, arguments, values = pickle.loads(content)
            error = kind.__new__(kind, *arguments)
            error.args = arguments
            error.__dict__.update(values)
    error.add_note(trace)
    return error
