"""Stop requests: SIGTERM or Ctrl-C ends a process at once, but during training only after a checkpoint."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from leadline.distributed.processes import INSIST_SECONDS

GRACE_SECONDS = 12.0
"""Maximum seconds to finish a step and write its checkpoint; batch systems typically kill after 30 s."""


class Stopped(BaseException):
    """The process was asked to stop; not an Exception, so that only the end of the worker catches it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a driver handles like Ctrl-C."""


@dataclass
class Stop:
    """Stop request of a process.

    Attributes:
        asked: whether the process has been asked to stop.
        number: the signal that asked, SIGTERM where both did.
        hears_ctrl_c: whether Ctrl-C asks to stop, so that it raises nothing while a stop is deferred.
    """

    asked: bool = False
    number: int = signal.SIGTERM
    hears_ctrl_c: bool = False
    _deferred: bool = False

    def ask(self) -> None:
        """Ask to stop.

        Raises:
            Stopped: at once outside `defer`; inside it after 12 s.
        """
        self.asked = True
        if not self._deferred:
            raise Stopped
        if _has_timer():
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Defer a stop request to the end of the body, which checks `asked` to end early.

        Raises:
            Stopped: at the end of the body if the process was asked to stop, or within it 12 s after the request.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
            if self.asked and _has_timer():
                signal.setitimer(signal.ITIMER_REAL, 0)
        if self.asked:
            raise Stopped


def _has_timer() -> bool:
    """Return whether the process's timer is this thread's: no other than the main one may set it or stop it."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def at_sigterm(or_ctrl_c: bool = False) -> Iterator[Stop]:
    """Call `ask` of the yielded `Stop` at the first SIGTERM; ignore later ones, so that the body can clean up.

    Only the main thread can handle signals; in other threads, `ask` is never called. A signal that comes while the body
    is entered or left is noted in the `Stop`, and raises nothing.

    Args:
        or_ctrl_c: whether Ctrl-C does so too, unless the process ignores it or handles it in its own way. Pressed again
            a second later, it raises KeyboardInterrupt.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    inside, heard = False, 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        first, stop.asked = not stop.asked, True
        if first or number == signal.SIGTERM:
            stop.number = number
        if first:
            heard = time.monotonic()
        if inside and first:
            stop.ask()
        elif inside and number == signal.SIGINT and time.monotonic() > heard + INSIST_SECONDS:
            raise KeyboardInterrupt

    def give_up(*_: object) -> None:
        raise Stopped

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: ask}
    if or_ctrl_c and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = ask
        stop.hears_ctrl_c = True
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = give_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        inside = True
        yield stop
    finally:
        inside = False
        if stop.asked and _has_timer():
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


_terminating: Stop | None = None


def raise_if_terminated() -> None:
    """Raise `Terminated` if the process has received SIGTERM, for loops in the body of `sigterm_as_interrupt`.

    Python discards what a signal handler raises in a finaliser, or in a callback from C, so the request would be lost.
    """
    if _terminating is not None and _terminating.asked:
        raise Terminated


@contextmanager
def sigterm_as_interrupt() -> Iterator[Stop]:
    """Raise `Terminated` in the body at the first SIGTERM; ignore later ones, so that the body can clean up.

    Afterwards, `asked` of the yielded `Stop` says whether there was one.
    """
    global _terminating
    stop = Stop()

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.asked = True
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before, outer = signal.signal(signal.SIGTERM, interrupt), _terminating
    _terminating = stop
    try:
        yield stop
    finally:
        _terminating = outer
        signal.signal(signal.SIGTERM, before)
