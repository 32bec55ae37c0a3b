"""Identifiers of worker processes, from which other processes on the same machine can tell whether a worker is dead."""

import os
import socket
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

UNKNOWN = "-"
"""Start of a process whose start time is not available."""


@dataclass(frozen=True)
class WorkerId:
    """A process, written `host:pid:start`, or one of several threads in it, `host:pid:start#1`.

    The host is the machine's name and, on Linux, its boot id and process namespace, which distinguishes containers of
    the same name. The start time distinguishes a process from a later one with the same pid.
    """

    host: str
    pid: int
    start: str
    thread: int = 0

    @classmethod
    def current(cls, thread: int = 0) -> Self:
        """Return the id of this process, or of a thread by its number."""
        return replace(cls.of(os.getpid()), thread=thread)

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the id of a process of this machine from its pid."""
        process = _process(pid)
        return cls(_host(), pid, process[1] if process else UNKNOWN)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse what `str` returns; return None for any other text."""
        host, _, rest = text.partition(":")
        pid, _, rest = rest.partition(":")
        start, _, thread = rest.partition("#")
        known = host and pid.isdecimal() and start and (thread or "0").isdecimal()
        return cls(host, int(pid), start, int(thread or 0)) if known else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}" + (f"#{self.thread}" if self.thread else "")

    def is_here(self) -> bool:
        """Return whether the process is or was on this machine and can be checked."""
        # On Windows, os.kill would end the process.
        return self.host == _host() and os.name == "posix"

    @property
    def is_certain(self) -> bool:
        """Whether the process can be distinguished from a later one with the same pid."""
        return self.start != UNKNOWN

    def is_stopped(self) -> bool:
        """Return whether the process is on this machine and was stopped by a signal, such as Ctrl-Z."""
        process = _process(self.pid) if self.is_here() else None
        return process is not None and process[0] in "Tt" and process[1] == self.start

    def is_dead(self) -> bool:
        """Return whether the process has certainly ended; always False for a process of another machine."""
        if not self.is_here():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        process = _process(self.pid)
        return process is not None and (process[0] in "ZX" or process[1] != self.start)


@lru_cache(maxsize=1)  # needed for every running trial in each claim
def _host() -> str:
    name = socket.gethostname().replace(":", "-") or "localhost"
    if sys.platform != "linux":
        return name
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{name}/{boot[:8]}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return name


def _process(pid: int) -> tuple[str, str] | None:
    """Return the state letter and the start time of a process, in clock ticks after boot; None if unavailable."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the second field, the command's name in brackets, may itself contain brackets and spaces.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
