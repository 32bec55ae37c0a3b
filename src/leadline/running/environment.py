"""Facts about software and hardware that may affect the bits of a result."""

import contextlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from leadline.specs.training import Precision
from leadline.text import join

_PACKAGES = ("leadline", "torch", "numpy", "scipy", "pillow")
_DECISIVE = (*_PACKAGES, "cpu", "device", "devices", "threads", "cuda", "cudnn", "driver", "compute_capability", "tf32")


def environment(devices: Sequence[torch.device], precision: Precision = "float32") -> dict[str, Any]:
    """Return the facts that may affect the bits of a result: versions, machine, card, threads, commit."""
    device = devices[0]
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "devices": len(devices),
        **(_cuda(device, precision) if device.type == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def continue_in(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """Return the environment to store for a trial that goes on, and a line if its bits may differ from now on.

    Args:
        now: the environment in which it goes on.
        before: what is stored so far: the environment of its last steps, which holds those before it, oldest first, as
            `earlier`.

    Example:
        >>> continue_in({"torch": "2.13.0"}, {"torch": "2.12.0"})[1]
        'goes on with torch 2.13.0 (before: 2.12.0): bits may differ from those of a run without a break'
    """
    if not before:
        return dict(now), ""
    earlier, last = before.get("earlier", []), {key: value for key, value in before.items() if key != "earlier"}
    if last == now:
        return dict(before), ""
    changed = [
        f"{key.replace('_', ' ')} {now[key]} (before: {last[key]})"
        for key in _DECISIVE
        if key in now and key in last and now[key] != last[key]
    ]
    line = f"goes on with {join(changed)}: bits may differ from those of a run without a break" if changed else ""
    return {**now, "earlier": [*earlier, last]}, line


def _cuda(device: torch.device, precision: Precision) -> dict[str, Any]:
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "compute_capability": f"{major}.{minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver_version(),
        "tf32": precision == "tf32",
    }


@lru_cache(maxsize=1)
def _driver_version() -> str | None:
    """Return the version of the NVIDIA driver, which all cards of a machine share."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return next(iter(_output_of(asked).splitlines()), None)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _git_commit() -> str | None:
    """Return the commit of the folder that the study was started in, where that is a git work tree."""
    return _output_of(["git", "rev-parse", "HEAD"]) or None


def _output_of(command: Sequence[str]) -> str:
    """Return what a program prints; empty: it is not there, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
