"""A study's runs written to a tracker while it runs, by a process of its own that reads the store.

Training knows nothing of it, and a tracker that fails, or hangs, ends with one line.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from leadline.distributed.processes import follow_parent, start_process
from leadline.errors import LeadlineError
from leadline.running.job import PATIENCE_SECONDS, Job
from leadline.store.following import Follower

EVERY_SECONDS = 5.0
"""Between two readings of the store."""
CLOSING_SECONDS = 120.0
"""In which, after the study, what is left must be written."""
NICE = 10


@dataclass(frozen=True)
class Log:
    """Where a study is logged.

    Args:
        tracker: name.
        folder: None: a folder of the tracker's name in the runs folder.
    """

    tracker: str
    folder: Path | None = None

    def check(self) -> None:
        """Check that the tracker exists and is installed.

        Raises:
            SpecError: there is none of that name.
            LeadlineError: it is not installed.
        """
        from leadline.reports.trackers import find_tracker  # a second of imports, for studies that are logged

        find_tracker(self.tracker, "--log")

    def place(self, runs: Path) -> Path:
        """Return the folder."""
        return (runs / self.tracker if self.folder is None else self.folder).absolute()


@contextmanager
def logged(job: Job, log: Log | None, say: Callable[[str], None]) -> Iterator[None]:
    """Log a registered study while the body runs it, and then what is left; `say` gets a line if that fails."""
    if log is None:
        yield
        return
    with start_process(_main, job.with_absolute_paths(), log.tracker, log.place(job.runs)) as started:
        process, pipe = started
    ready, failed = threading.Event(), list[str]()

    def listen() -> None:
        with suppress(EOFError, OSError):
            pipe.recv()
        ready.set()
        with suppress(EOFError, OSError):
            failed.append(pipe.recv())
            say(_after(job, log, failed[0]))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        ready.wait(CLOSING_SECONDS)
        process.terminate()  # which asks for the rest
        process.join(CLOSING_SECONDS)
        late = process.is_alive()
        process.kill()
        process.join()
        listener.join(1.0)
        if not failed and (late or process.exitcode):
            reason = f"not done after {CLOSING_SECONDS:.0f} s" if late else f"its process ended ({process.exitcode})"
            say(_after(job, log, reason))


def _after(job: Job, log: Log, reason: str) -> str:
    command = f"leadline export-runs {job.study} --to {log.tracker} --output {log.place(job.runs)}"
    return f"--log {log.tracker}: {reason}; training is not affected, and `{command}` writes what is missing"


def _main(pipe: Connection, job: Job, tracker: str, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ending.set())
    follow_parent(signal.SIGTERM)
    os.nice(NICE)
    with Path(os.devnull).open("w") as nowhere:  # what trackers print would break the progress bars
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        pipe.send("ready")  # a signal asks for the end from here on
        job.admit_code()
        follow(job, tracker, folder, ending)
    except Exception as error:  # whatever a tracker raises is one line, and the run goes on
        lines = error.lines if isinstance(error, LeadlineError) else f"{type(error).__name__}: {error}".splitlines()
        with suppress(OSError):
            pipe.send(lines[0])
    pipe.close()
    sys.exit(0)


def follow(job: Job, tracker: str, folder: Path, ending: threading.Event) -> None:
    """Write a study's runs to a tracker until the study ends, and its verdict if every trial has ended then.

    Raises:
        LeadlineError: the store cannot be read, or the folder cannot be written; trackers may raise anything else.
    """
    from leadline.reports.trackers import find_tracker
    from leadline.reports.trackers.writing import StudyWriter

    with Follower.follow(job.runs, job.store_url) as store, find_tracker(tracker, "--log")(folder, job.study) as place:
        store.patience = PATIENCE_SECONDS
        writer = StudyWriter(store, job.study, place)
        while not ending.wait(EVERY_SECONDS):
            writer.write_runs()
        writer.write_runs()
        if writer.complete:
            writer.write_verdict()
