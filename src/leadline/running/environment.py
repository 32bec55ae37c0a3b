"""Facts about software and hardware that may affect the bits of a result."""

import contextlib
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def environment(devices: Sequence[torch.device]) -> dict[str, Any]:
    """Return the facts that may affect the bits of a result: versions, machine, threads, commit."""
    packages = ("leadline", "torch", "numpy", "scipy", "pillow")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else "cpu",
        "devices": len(devices),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _git_commit() -> str | None:
    """Return the commit of the folder that the study was started in, where that is a git work tree."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
