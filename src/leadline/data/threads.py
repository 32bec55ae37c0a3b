"""Apply a function to many items in threads, with results in order and a bounded number of items in advance.

Threads are used instead of processes because Pillow releases the global interpreter lock while it decodes and resizes,
and threads end with the trial. Measured on 2 cores under other load (load 4), medians of 5 interleaved rounds: JPEG of
500x375, cropped and resized to 224x224, 196 images/s in two threads and 214 in two processes; 32x32, where the overhead
of Python is larger, 3,871 and 5,109.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

MOST_THREADS = 16
_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

T = TypeVar("T")
R = TypeVar("R")


def count_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the CPU quota of its container.

    A quota of one and a half cores counts as two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, read_quota(*_GROUPS))))


def read_quota(groups: Path, root: Path) -> float:
    """Return the cores' worth of CPU time that the control groups of a process allow; infinity without a limit.

    The tightest limit counts, of the process's own group and of all those around it, in version 1 and version 2.

    Args:
        groups: the process's groups, as in /proc/self/cgroup.
        root: where the groups' files are; inside a container they may be those of its own group alone.
    """
    quota = math.inf
    for line in _read(groups).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / own.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                most, _, period = _read(folder / "cpu.max").partition(" ")
                first = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                quota = min(quota, _ratio(most, period), _ratio(*first))
    return quota


def limit_threads(environment: MutableMapping[str, str]) -> None:
    """Keep PyTorch, before it is imported, from computing in more threads than a container's CPU quota has cores.

    It sees all cores of the machine, and threads beyond the quota are halted until the next period. Where there is no
    quota, or the user has set a number, nothing changes.

    Args:
        environment: of the process; gets OMP_NUM_THREADS.
    """
    quota = read_quota(*_GROUPS)
    if math.isfinite(quota):
        environment.setdefault("OMP_NUM_THREADS", str(count_cores()))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _ratio(quota: str, period: str) -> float:
    """Return the quotient of two numbers of microseconds; infinity if the first is `max`, -1 or missing."""
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return math.inf
    return cores if cores > 0 else math.inf


def decoder_threads() -> int:
    """Return the number of decoding threads: one per core, at most 16, because more only wait for the interpreter."""
    return min(count_cores(), MOST_THREADS)


def map_in_order(function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int) -> Iterator[R]:
    """Yield function(item) for each item, in order; the threads end when the iterator ends or is closed.

    Args:
        function: called in several threads at once; its exceptions are raised when the result is due.
        items: consumed one by one, at most `ahead` items in advance.
        threads: number of threads.
        ahead: maximum number of pending results.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="leadline-decode")
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
