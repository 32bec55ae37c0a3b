"""Child processes: started so that none is left behind, ended with their parent, and described when they die."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType

INSIST_SECONDS = 1.0
"""After which a second signal is somebody who will not wait; sooner, it is the first sent to a whole group as well."""


@contextmanager
def hold_signal(number: int) -> Iterator[Callable[[], bool]]:
    """Let a signal have its effect only after the body, unless it comes again after a while.

    So that no exception is raised where nobody knows yet of what has just begun. Only what Python handles is held, and
    only in the main thread. What is yielded tells whether it has come.
    """
    handler, came = signal.getsignal(number), None

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came is not None and time.monotonic() > came + INSIST_SECONDS:
            handler(number, frame)
        came = came or time.monotonic()

    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(number, note)
    try:
        yield lambda: came is not None
    finally:
        signal.signal(number, handler)
        if came is not None:
            signal.raise_signal(number)


@contextmanager
def shield_start() -> Iterator[None]:
    """Let the body start a process and note where it will be ended: being asked to stop has its effect after that.

    The process hears no Ctrl-C from its first moment, its imports included: who started it decides what that means.
    """
    with hold_signal(signal.SIGTERM), hold_signal(signal.SIGINT):
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        resource_tracker.ensure_running()  # started in the body, it would let the signal through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def start_process(target: Callable[..., None], *arguments: object) -> Iterator[tuple[SpawnProcess, Connection]]:
    """Start target(pipe, parent, *arguments) in a new process, and let the body note where it will be ended.

    What is yielded is the process and the end of the pipe at which it is heard; `parent` is the number of this process.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(theirs, os.getpid(), *arguments))
    with shield_start():
        process.start()
        yield process, ours
        theirs.close()


def follow_parent(parent: int, number: int) -> None:
    """Send this process a signal when its parent has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def describe_exit(code: int) -> str:
    """Return how a process died, from its exit code.

    >>> describe_exit(1), describe_exit(-9)
    ('exit code 1', 'signal 9 (SIGKILL)')
    """
    return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
