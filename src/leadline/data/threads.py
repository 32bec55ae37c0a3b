"""Apply a function to many items in threads, with results in order and a bounded number of items in advance.

Threads are used instead of processes because Pillow releases the global interpreter lock while it decodes and resizes,
and threads end with the trial. Measured on 2 cores under other load (load 4), medians of 5 interleaved rounds: JPEG of
500x375, cropped and resized to 224x224, 196 images/s in two threads and 214 in two processes; 32x32, where the overhead
of Python is larger, 3,871 and 5,109.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_THREADS = 16

T = TypeVar("T")
R = TypeVar("R")


def count_cores() -> int:
    """Return the number of cores that this process may use, or of all cores if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
