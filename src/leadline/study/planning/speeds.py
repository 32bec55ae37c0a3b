"""What is known of this machine's speed, in the user's cache folder: its calibration, and networks that were timed."""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
import torch

from leadline.data.files import write_cache_file
from leadline.data.threads import count_cores
from leadline.parts.code import identify_all
from leadline.study.planning import calibration
from leadline.study.planning.timing import Timing, Work, today

Say = Callable[[str], None]

_FORMAT = 1
"""Of the files; a higher number makes every machine calibrate again."""


@dataclass(frozen=True)
class Speed:
    """A calibration.

    Attributes:
        units: what takes time, as in `Amounts` -> seconds of one unit of it.
        day: when it was measured, as an ISO date in UTC.
    """

    units: Mapping[str, float]
    day: str


@dataclass(frozen=True)
class Speeds:
    """The speed of one device of this machine, with so many threads per process and so many processes at once."""

    device: torch.device
    threads: int
    workers: int

    def calibrated(self, say: Say) -> Speed:
        """Return the calibration of the device, measured now if there is none.

        Args:
            say: called with a line before seconds are spent on it.
        """
        path, machine = self._path("calibration"), self._machine()
        reason = ""
        try:
            found = json.loads(path.read_bytes())
            if found["machine"] == machine:
                units = {str(name): _read_seconds(value) for name, value in found["units"].items()}
                if any(units.values()):
                    return Speed(units, str(found["day"]))
                raise ValueError("nothing takes time")
            reason = f"{path} is of another machine; "
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            reason = f"{path} is damaged; "
        say(f"{reason}calibrating this machine (once, about {calibration.SECONDS} s)")
        speed = Speed(calibration.calibrate(self.device, self.threads), today())
        _write(path, {"machine": machine, **asdict(speed)})
        return speed

    def timed(self, work: Work) -> Timing | None:
        """Return how long a network took when it was last timed with as many others at once, or None."""
        try:
            found = self._timed()[self._key(work)]
            snapshots = {name: (float(one), int(other)) for name, (one, other) in found["snapshots"].items()}
            times = {name: _read_seconds(found[name]) for name in ("step", "evaluation", "share", "start", "flow")}
            counts = {name: int(found[name]) for name in ("steps", "flow_bytes")}
            return Timing(**{**found, **times, **counts, "snapshots": snapshots})
        except (KeyError, ValueError, TypeError, AttributeError):
            return None

    def keep(self, timings: Mapping[Work, Timing]) -> None:
        """Keep how long networks took."""
        kept = {self._key(work): asdict(timing) for work, timing in timings.items()}
        _write(self._path("timed"), {"machine": self._machine(), "timed": self._timed() | kept})

    def _timed(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path("timed").read_bytes())
            return dict(found["timed"]) if found["machine"] == self._machine() else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # a missing or damaged file is written again

    def _key(self, work: Work) -> str:
        code = identify_all(work.trial.model_dump(mode="json"))
        described = json.dumps([work.trial.content_hash, work.shape, work.classes, self.workers, code], sort_keys=True)
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def _path(self, kind: str) -> Path:
        digest = hashlib.blake2b(json.dumps(self._machine(), sort_keys=True).encode(), digest_size=8).hexdigest()
        return platformdirs.user_cache_path("leadline") / "speed" / f"{kind}-{digest}.json"

    def _machine(self) -> dict[str, Any]:
        device = self.device
        return {
            "format": _FORMAT,
            "host": platform.node(),
            "processor": platform.machine(),
            "cores": count_cores(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": self.threads,
            "leadline": metadata.version("leadline"),
            "torch": torch.__version__,
        }


def _read_seconds(value: Any) -> float:
    """Return a time from a file.

    Raises:
        ValueError: it is below 0, infinite or NaN.
    """
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} is no time")
    return seconds


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_cache_file(path, json.dumps(content, indent=1).encode())
