"""Processes that torchrun has started, of which rank 0 is the worker and calls the others to each trial.

The others wait for tasks in the key-value store of rank 0. They form a process group of their own for each trial, so
that one that fails on some devices leaves nothing behind for the next.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from leadline.distributed.process_group import TIMEOUT, Disconnected, ProcessGroup, join_process_group
from leadline.errors import LeadlineError, SpecError, StoreError


@dataclass(frozen=True)
class Torchrun:
    """Where this process stands among those that torchrun has started."""

    rank: int
    world_size: int
    local_rank: int

    @classmethod
    def current(cls) -> Self | None:
        """Return this process's place; None: torchrun has not started it, or this one alone."""
        found = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
        if not all(found):
            return None
        rank, size, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(rank, size, local) if size > 1 else None

    def device(self, device: torch.device) -> torch.device:
        """Return this process's own device."""
        return torch.device("cuda", self.local_rank) if device.type == "cuda" else device

    @contextlib.contextmanager
    def start_task(
        self, task: Sequence[Any], device: torch.device, timeout: timedelta = TIMEOUT
    ) -> Iterator[ProcessGroup]:
        """In rank 0, call the other processes to a task while the body runs.

        Args:
            task: what they are given, as a list of JSON values.
            device: of this process.
            timeout: how long they wait for each other.

        Raises:
            StoreError: one of the others lacks what the trial needs.
            LeadlineError: what one of the others failed with.
        """
        store, number = _post(task)
        rendezvous = PrefixStore(f"group/{number}", store)
        try:
            with join_process_group(self.rank, self.world_size, device, rendezvous, timeout) as group:
                yield group
        except Disconnected as error:
            time.sleep(1)  # in which they may say why
            for rank in range(1, self.world_size):
                if store.check([f"leadline/error/{number}/{rank}"]):
                    kind, _, line = store.get(f"leadline/error/{number}/{rank}").decode().partition("|")
                    of_machine = kind == StoreError.__name__  # and not of the trial
                    raise (StoreError if of_machine else LeadlineError)(
                        f"device {rank + 1} of {self.world_size}: {line}"
                    ) from error
            raise

    def end_tasks(self) -> None:
        """In rank 0, let the other processes end."""
        store, _ = _post(None)
        with contextlib.suppress(RuntimeError):  # the store may end with this process, and they still read
            store.wait([f"leadline/left/{rank}" for rank in range(1, self.world_size)], timedelta(seconds=10))

    def follow_tasks(self, device: torch.device, follow: Callable[..., None]) -> None:
        """In any other rank, do follow(group, device, *task) for each task until rank 0 needs no more.

        Raises:
            LeadlineError: rank 0 is gone.
        """
        store, number = _store(), 0
        while True:
            number += 1
            task = _wait_for_task(store, f"leadline/task/{number}")
            if task is None:
                store.set(f"leadline/left/{self.rank}", "")
                return
            rendezvous = PrefixStore(f"group/{number}", store)
            try:
                with join_process_group(self.rank, self.world_size, device, rendezvous) as group:
                    follow(group, device, *task)
            except Disconnected:  # rank 0 knows why, and calls again or ends
                continue
            except Exception as error:
                line = " ".join(f"{type(error).__name__}: {error}".split())
                kind = StoreError if isinstance(error, StoreError) else LeadlineError
                store.set(f"leadline/error/{number}/{self.rank}", f"{kind.__name__}|{line}")


def check_torchrun(devices: int) -> None:
    """Check that torchrun, if used, has started as many processes as there are devices.

    Raises:
        SpecError: the numbers differ.
    """
    found = Torchrun.current()
    if found is not None and found.world_size != devices:
        raise SpecError(
            f"torchrun started {found.world_size} processes, but {devices} devices were requested; use --devices"
            f" {found.world_size}"
        )


def _post(task: Any) -> tuple[Store, int]:
    """Give the other processes their next task; return the store and the task's number."""
    store = _store()
    number = store.add("leadline/parts/tasks", 1)
    store.set(f"leadline/task/{number}", json.dumps(task))
    return store, number


def _wait_for_task(store: Store, key: str) -> Any:
    while True:
        try:
            store.wait([key], timedelta(minutes=1))
            return json.loads(store.get(key))
        except dist.DistStoreError:  # nothing yet
            continue
        except (RuntimeError, OSError) as error:
            raise LeadlineError(
                "the process of rank 0, which runs the study, has ended; see its error, then start torchrun again"
            ) from error


@lru_cache(maxsize=1)
def _store() -> Store:
    """Return the key-value store through which torchrun's processes find each other, apart for each restart of them."""
    found = Torchrun.current()
    assert found is not None
    serves = found.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, found.world_size, serves, TIMEOUT, False)
    return PrefixStore(f"leadline/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
