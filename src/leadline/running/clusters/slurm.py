"""Workers as the jobs of a Slurm array: submitted by submitit, or as a script for sbatch."""

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from leadline.errors import LeadlineError, SpecError, StoreError, not_installed
from leadline.running.clusters.worker import take_trials
from leadline.running.job import Job
from leadline.store.connect import address
from leadline.store.secrets import has_secrets

WARNING_SECONDS = 90
"""Seconds before its time limit at which a job is signalled, so that it can release its trial."""
MOST_TIMEOUTS = 1000
"""Maximum number of times that a job is requeued after its time limit while trials are left."""
_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_MEMORY = re.compile(r"\d+[KMGT]?")


@dataclass(frozen=True)
class Resources:
    """Resources that each job of the array requests from Slurm."""

    workers: int = 1
    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    memory: str = "4G"
    options: Mapping[str, str] = field(default_factory=dict)  # any other of sbatch: {"partition": "gpu"}
    setup: tuple[str, ...] = ()  # commands that run before each worker

    @classmethod
    def of(
        cls, workers: int, time: str, cpus: int, gpus: int, memory: str, options: Sequence[str], setup: Sequence[str]
    ) -> "Resources":
        """Parse resources from command-line options.

        Raises:
            SpecError: Slurm would not understand a time, a memory size or an option.
        """
        match = _TIME.fullmatch(time)
        if match is None:
            raise SpecError(f"--time {time!r}: expected hours:minutes:seconds, such as 4:00:00 or 1-12:00:00")
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        whole = (days * 24 + hours) * 60 + minutes + (seconds > 0)
        if whole * 60 <= WARNING_SECONDS:
            raise SpecError(
                f"--time {time}: a job is signalled {WARNING_SECONDS} s before its time limit; allow at"
                f" least a few minutes"
            )
        if not _MEMORY.fullmatch(memory):
            raise SpecError(f"--memory {memory!r}: expected a size such as 8G or 500M")
        read: dict[str, str] = {}
        for text in options:
            key, equals, value = text.partition("=")
            if not equals or not re.fullmatch(r"[a-z][a-z-]*", key) or not value.isprintable() or not value:
                raise SpecError(f"--option {text!r}: expected KEY=VALUE of sbatch, such as partition=gpu")
            read[key] = value
        return cls(workers, whole, cpus, gpus, memory, read, tuple(setup))

    @property
    def time(self) -> str:
        """Time limit in sbatch's format."""
        return f"{self.minutes // 60}:{self.minutes % 60:02}:00"


def check_store(store_url: str | None, runs: Path, workers: int) -> None:
    """Check that jobs on several machines can share a store and that its URL contains no password.

    Raises:
        StoreError: they cannot, or it does.
    """
    url = address(store_url, runs)
    if workers > 1 and url.get_backend_name() == "sqlite":
        raise StoreError(
            f"{workers} workers may run on several machines, but a SQLite store works on one machine only; use --store"
            f" postgresql://HOST/NAME or --workers 1"
        )
    if url.password is not None or has_secrets(url.render_as_string()):
        raise StoreError(
            "--store: the password would be readable in the job files; remove it from the URL and put it into the"
            " environment (PGPASSWORD) or into ~/.pgpass, which PostgreSQL clients read"
        )


def script(job: Job, resources: Resources) -> str:
    """Return an sbatch script for an array of `leadline worker` jobs, each of which gets SIGTERM before its time
    limit."""
    job = job.with_absolute_paths()
    command = [sys.executable, "-m", "leadline"]
    command += ["--trust", ",".join(sorted(job.trusted))] if job.trusted else []
    command += ["worker", job.study, "--runs", str(job.runs)]
    command += ["--store", job.store_url] if job.store_url else []
    command += ["--data-dir", str(job.data_dir)] if job.data_dir else []
    command += ["--devices", str(job.devices)] if job.devices else []
    command += ["--trials-per-worker", str(job.trials_at_once)] if job.trials_at_once > 1 else []
    command += ["--artifacts", job.artifacts] if job.artifacts else []
    command += ["--checkpoint-every", str(job.checkpoint_every), "--device", job.device, "--until-empty"]
    asked: dict[str, str | None] = {
        "job-name": f"leadline-{job.study}",
        "array": f"0-{resources.workers - 1}",
        "time": resources.time,
        "cpus-per-task": str(resources.cpus),
        "mem": resources.memory,
        **({"gpus-per-node": str(resources.gpus)} if resources.gpus else {}),
        "signal": f"TERM@{WARNING_SECONDS}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{job.runs}/slurm-%A_%a.log",
        **resources.options,
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{key}" + (f"={_quote(value)}" if value is not None else "") for key, value in asked.items()]
    lines += ["", *resources.setup, f"srun {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def _quote(value: str) -> str:
    return value if re.fullmatch(r"[\w@%+=:,./-]+", value) else f'"{value}"'


@dataclass(frozen=True)
class ArrayWorker:
    """One worker of the array: called by submitit in a job, and queued again when the job's time is over."""

    job: Job

    def __call__(self) -> str:
        """Take trials until every one has ended; give the line of counts."""
        import submitit

        warning = submitit.JobEnvironment()._usr_sig()
        queue_again = signal.getsignal(warning)
        warned: list[int] = []

        def warn(number: int, _: object) -> None:
            # Submitit's own handler would end the process in the middle of a step; the trial is given back first.
            warned.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(warning, warn)
        tally = take_trials(self.job, self.job.study, until_empty=True)
        signal.signal(warning, queue_again)
        if warned and callable(queue_again):
            queue_again(warned[0], None)
        if tally.stopped == signal.SIGINT:
            raise KeyboardInterrupt
        return tally.line()

    def checkpoint(self) -> Any:
        """Return how to continue: as before, because the ledger knows what is left."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(job: Job, resources: Resources, cluster: Literal["slurm", "local", "debug"] = "slurm") -> list[Any]:
    """Submit the array and return submitit's jobs.

    Args:
        job: study, store, data and device of the workers.
        resources: what each worker gets.
        cluster: slurm; or processes of this machine (local), or this process (debug), to try things.

    Raises:
        LeadlineError: submitit is not installed, or Slurm is not here or refuses.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise LeadlineError(f"{not_installed('submitting', 'submitit', 'slurm')}, or use --print") from None
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise LeadlineError("sbatch was not found; run this on a Slurm login node, or use --print")
    job = job.with_absolute_paths()
    executor = submitit.AutoExecutor(job.runs / "slurm", cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
    executor.update_parameters(
        name=f"leadline-{job.study}",
        timeout_min=resources.minutes,
        cpus_per_task=resources.cpus,
        gpus_per_node=resources.gpus,
        slurm_mem=resources.memory,
        slurm_array_parallelism=resources.workers,
        slurm_signal_delay_s=WARNING_SECONDS,
        slurm_setup=list(resources.setup),
        slurm_additional_parameters=dict(resources.options),
    )
    try:
        with executor.batch():
            return [executor.submit(ArrayWorker(job)) for _ in range(resources.workers)]
    except Exception as error:
        if cluster != "slurm":
            raise
        raise LeadlineError(f"Slurm rejected the submission: {' '.join(str(error).split())}") from None
