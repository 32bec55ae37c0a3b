"""Stop requests: SIGTERM ends a process at once, but during training only after a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

GRACE_SECONDS = 12.0
"""Maximum seconds to finish a step and write its checkpoint; batch systems typically kill after 30 s."""


class Stopped(BaseException):
    """The process was asked to stop; no Exception, so that nothing but the worker's end catches it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which means to a driver what Ctrl-C does."""


@dataclass
class Stop:
    """Whether a process has been asked to stop, which it is once.

    Attributes:
        asked: True from then on.
    """

    asked: bool = False
    _gentle: bool = False

    def ask(self) -> None:
        """Ask to stop.

        Raises:
            Stopped: unless a trial is between its steps, where it sees `asked`; then, after 12 s.
        """
        self.asked = True
        if not self._gentle:
            raise Stopped
        if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """Let the body look at `asked` by itself.

        Raises:
            Stopped: on leaving it, when asked; and within it, when that takes too long.
        """
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False
            if self.asked and hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
        if self.asked:
            raise Stopped


@contextmanager
def at_sigterm() -> Iterator[Stop]:
    """Ask the yielded `Stop` at the first SIGTERM within the body; later ones are ignored, so that it can clean up.

    Outside the main thread, which alone may set signals, nobody asks it.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.ask()

    def give_up(*_: object) -> None:
        raise Stopped

    alarm = getattr(signal, "SIGALRM", None)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, alarm) if number is not None}
    if alarm is not None:
        signal.signal(alarm, give_up)
    signal.signal(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def sigterm_as_interrupt() -> Iterator[Stop]:
    """Raise `Terminated` in the body at the first SIGTERM; later ones are ignored, so that it can clean up.

    What is yielded tells afterwards whether there was one.
    """
    stop = Stop()

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop.asked = True
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
