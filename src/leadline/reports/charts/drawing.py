"""Charts drawn in processes of their own, so that several are drawn at once and the caller goes on.

vl-convert draws in one thread and lets nothing else in its process run meanwhile.
"""

import atexit
import json
import subprocess
import sys
import threading
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import altair as alt
import vl_convert

from leadline.data.threads import count_cores
from leadline.errors import LeadlineError

MOST_PROCESSES = 4
PROGRAM = Path(__file__).with_name("drawing_process.py")


def draw_svg(specification: dict[str, Any]) -> str:
    """Return a chart as an image, from its Vega-Lite specification.

    Raises:
        ValueError: Vega-Lite cannot draw it.
        LeadlineError: the process that draws has ended.
    """
    return start_svg(specification).result()


def start_svg(specification: dict[str, Any]) -> Future[str]:
    """Begin to draw a chart; the result is that of `draw_svg`."""
    return _drawing().submit({"specification": specification})


def start_bundle(snippet: str) -> Future[str]:
    """Begin to put the Vega libraries and a snippet that uses them into one script."""
    return _drawing().submit({"snippet": snippet})


@cache
def vegalite_version() -> str:
    """Return the version of Vega-Lite that charts are made for, or the newest there is of the same generation."""
    major, minor = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    same = [version for version in known if version.split(".")[0] == major]
    return f"{major}.{minor}" if f"{major}.{minor}" in known else (same or known)[-1]


class _Process:
    """A process that draws one chart after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.close)

    def ask(self, request: dict[str, Any]) -> str:
        """Return what it answers.

        Raises:
            ValueError: it cannot draw what is asked.
            LeadlineError: it has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            self.close()
            raise LeadlineError(
                f"the process that draws charts ended with exit code {self._process.returncode}; if memory is"
                " short, end other programs, then run the command again"
            )
        reply: dict[str, str] = json.loads(line)
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply["drawn"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class _Drawing:
    """Processes that are started as there are charts for them, each asked by a thread of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: SimpleQueue[tuple[dict[str, Any], Future[str]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open = self._threads = 0

    def submit(self, request: dict[str, Any]) -> Future[str]:
        """Return what a process is going to answer."""
        future: Future[str] = Future()
        with self._lock:
            self._open += 1
            starts = self._threads < min(self._open, self._most)
            self._threads += starts
        self._waiting.put((request, future))
        if starts:  # daemons: a program that is interrupted does not wait for its charts
            threading.Thread(target=self._answer, name="drawing", daemon=True).start()
        return future

    def _answer(self) -> None:
        process: _Process | None = None
        while True:
            request, future = self._waiting.get()
            try:
                process = process or _Process()
                drawn = process.ask(request | {"version": vegalite_version()})
            except ValueError as error:
                future.set_exception(error)
            except Exception as error:
                process = None
                future.set_exception(error)
            else:
                future.set_result(drawn)
            with self._lock:
                self._open -= 1


@cache
def _drawing() -> _Drawing:
    return _Drawing(min(count_cores(), MOST_PROCESSES))
