"""The machine that this process runs on."""

import os


def cores() -> int:
    """Cores that this process may use, where the system tells; else all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
