"""Places of standalone workers on their machine, which decide who trains on which card."""

import fcntl
import itertools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import platformdirs


@contextmanager
def hold_place(folder: Path | None = None) -> Iterator[int]:
    """Hold the lowest number that no other worker of this user holds on this machine, until the body or process ends.

    Where no file can be locked, it is 0.

    Args:
        folder: of the files that are locked; None: in the user's cache folder.
    """
    folder = folder or platformdirs.user_cache_path("leadline") / "workers" / platform.node()
    try:
        place, file = _lock_first(folder)
    except OSError:
        yield 0
        return
    with file:
        yield place


def _lock_first(folder: Path) -> tuple[int, IO[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        file = (folder / f"{place}.lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        except OSError:
            file.close()
            raise
        else:
            return place, file
    raise AssertionError
