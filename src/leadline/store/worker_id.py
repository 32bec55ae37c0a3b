"""Identifier of a process that runs trials, by which another process on the same machine can tell whether it is
dead."""

import os
import socket
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

UNKNOWN = "-"
"""The start of a process where the system does not tell it."""


@dataclass(frozen=True)
class WorkerId:
    """A process, written `host:pid:start`.

    The host is the machine's name and, on Linux, its boot and process namespace as well, so that two containers of
    one name never judge each other's processes. The start tells a process from a later one with its number.
    """

    host: str
    pid: int
    start: str

    @classmethod
    def current(cls) -> Self:
        """Return the id of this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the id of a process of this machine, given its number."""
        process = _process(pid)
        return cls(_host(), pid, process[1] if process else UNKNOWN)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `host:pid:start`; None for anything else."""
        host, _, rest = text.partition(":")
        pid, _, start = rest.partition(":")
        return cls(host, int(pid), start) if host and pid.isdecimal() and start else None

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    def is_here(self) -> bool:
        """Whether the process is, or was, one of this machine that can be asked about."""
        # On Windows os.kill would end the process that it is asked about.
        return self.host == _host() and os.name == "posix"

    @property
    def is_certain(self) -> bool:
        """Whether a process that has this number now can be told from this one; else only the lease tells."""
        return self.start != UNKNOWN

    def is_dead(self) -> bool:
        """Whether the process is certainly no more; False for a process of elsewhere, which only its lease can tell."""
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


@lru_cache(maxsize=1)  # a claim asks for every trial that runs
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
    """The state letter and the start time, in clock ticks after boot, of a process; None where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the second field, the command's name in brackets, may itself hold brackets and spaces.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
