"""Child processes: started so that none is left behind, ended with their parent, and described when they die.

On Linux they are forked from a server process that has imported PyTorch and computed nothing: the first start takes as
long as these imports, every other one a fraction of a second. Elsewhere each process imports for itself.
"""

import ast
import inspect
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from leadline.errors import LeadlineError

PRELOADED = ["leadline.running.worker"]
"""Modules that the server imports, with what these import; never the caller's own, which may have changed since."""
FORKS = sys.platform.startswith("linux")
"""Whether processes are forked from the server: the system libraries of macOS do not always survive a fork."""
IMPORTED_AGAIN = 76
"""Exit code of a child that would have run its parent's script."""
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
def start_process(target: Callable[..., None], *arguments: object) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start target(pipe, *arguments) in a new process, and let the body note where it will be ended.

    What is yielded is the process and the end of the pipe at which it is heard.
    """
    context: ForkServerContext | SpawnContext = get_context("forkserver") if FORKS else get_context("spawn")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(target=_run_here, args=(dict(os.environ), target, theirs, *arguments))
    with shield_start():
        process.start()
        yield process, ours
        theirs.close()


def _run_here(environment: Mapping[str, str], target: Callable[..., None], *arguments: object) -> None:
    """Call the target in the environment of whoever started this process, which the server's may be older than."""
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def follow_parent(number: int) -> None:
    """Send this process a signal when the process that started it has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


class UnguardedScript(LeadlineError, SystemExit):
    """A script that every process it starts would run again; uncaught, it ends the script with its message alone."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


def check_guard(instead: str) -> None:
    """Check, before processes are started, that they will not run the script that starts them once more.

    A process imports the script of the one that started it. A child that has come here in doing so ends.

    Args:
        instead: what does without processes, such as `workers=0`.

    Raises:
        UnguardedScript: the call comes from a statement of the script that is under no condition at all.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(IMPORTED_AGAIN)
    script = sys.modules["__main__"]
    file, frame = getattr(script, "__file__", None), inspect.currentframe()
    while frame and not (frame.f_globals is vars(script) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None or not file or not Path(file).is_file():
        return
    line = frame.f_lineno
    nodes = ast.walk(ast.parse(Path(file).read_bytes()))
    if not any(isinstance(one, ast.If) and one.lineno <= line <= (one.end_lineno or 0) for one in nodes):
        raise UnguardedScript(
            f"{file}:{line}: this starts processes, and each of them would run the script again; put the script's"
            f' statements under `if __name__ == "__main__":`, or use {instead}'
        )


def describe_death(code: int, advice: str) -> str:
    """Return how a process died, from its exit code, and what to do.

    >>> describe_death(1, "use less memory"), describe_death(-9, "use less memory")
    ('died with exit code 1; use less memory', 'died with signal 9 (SIGKILL); use less memory')
    """
    if code == IMPORTED_AGAIN:
        return (
            "imported the script that started it, which runs the study again; put the script's statements under"
            ' `if __name__ == "__main__":`, or use workers=0'
        )
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    return f"died with {how}; {advice}"
