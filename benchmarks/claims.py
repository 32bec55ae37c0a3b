"""What a ledger of 100,000 trials takes: many processes claim and end trials that do nothing, and none may be lost.

    python -m benchmarks.claims [--store postgresql://user@host/empty] [--workers 32] [--pause 1.0]

Without --store: SQLite in a temporary folder, which one machine's processes share; give fewer workers. The store must
be empty, and is left with what was entered. Every worker claims, rests `--pause` seconds as a trial would train (far
shorter than any real one), and ends its trial; with --pause 0 they claim as fast as the database lets them, and what is
measured is how they queue. A claim's time is that of `Store.claim` alone. Any trial that is lost or run twice fails
the whole.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from leadline.parts.metrics.record import Record
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId
from leadline.study.expand import ExpandedStudy, expand

NAME = "claims"
SEEDS = 10_000
HOUR = 3600.0


def study(trials: int) -> ExpandedStudy:
    """As many trials as asked, of networks that differ in a width and are never built."""
    arms = -(-trials // SEEDS)
    return expand(
        StudySpec.model_validate(
            {
                "name": NAME,
                "data": {"name": "digits"},
                "arms": {"plain": {"network": "comparative-plain"}},
                "vary": {"blocks": list(range(1, arms + 1))},
                "seeds": -(-trials // arms),
                "contrasts": [],
            }
        )
    )


def work(runs: Path, url: str | None, most: int, pause: float, ready: Any, results: Any) -> None:
    """Claim and end so many trials; send the seconds of every claim and the trials."""
    owner = str(WorkerId.current())
    claims, ends, taken = [], [], []
    with Store.open(runs, url) as store:
        store.studies()  # connects
        ready.wait()
        time.sleep(pause * (WorkerId.current().pid % 97) / 97)  # as trials end at any time, not all at once
        for number in range(most):
            started = time.perf_counter()
            claim = store.claim(NAME, owner, HOUR)
            claims.append(time.perf_counter() - started)
            if claim is None:
                break
            taken.append(claim.trial)
            time.sleep(pause)
            started = time.perf_counter()
            record = Record(1, 1, "train", "loss", float(number))
            store.finish(claim.trial, owner, "finished", records=[record])
            ends.append(time.perf_counter() - started)
    results.put((claims, ends, taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", help="SQLAlchemy URL of an empty database")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--each", type=int, default=30, help="trials that each worker runs")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that a trial takes")
    parser.add_argument("--output", type=Path, default=Path("claims.json"))
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")  # nothing is connected yet, and 32 imports would take a minute
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        with Store.open(runs, options.store) as store:
            if store.studies():
                raise SystemExit("the store holds studies; give an empty one")
            started = time.perf_counter()
            store.register(study(options.trials))
            registered = time.perf_counter() - started
        results, ready = context.Queue(), context.Barrier(options.workers + 1)
        given = (runs, options.store, options.each, options.pause, ready, results)
        processes = [context.Process(target=work, args=given) for _ in range(options.workers)]
        for process in processes:
            process.start()
        ready.wait()
        started = time.perf_counter()
        found = [results.get(timeout=600) for _ in processes]
        seconds = time.perf_counter() - started
        for process in processes:
            process.join()
        with Store.open(runs, options.store) as store:
            counts = store.counts(NAME)
            records = Counter(store.records_frame(NAME)["trial"])
    taken = Counter(trial for _, _, trials in found for trial in trials)
    claims = sorted(second for one, _, _ in found for second in one)
    ends = sorted(second for _, one, _ in found for second in one)
    doubled = sum(number > 1 for number in taken.values()) + sum(number > 1 for number in records.values())
    lost = len(taken.keys() ^ records.keys()) + abs(counts["finished"] - len(taken)) + counts["running"]
    result = {
        "database": (options.store or "sqlite").split(":")[0],
        "trials": sum(counts.values()),
        "workers": options.workers,
        "pause": options.pause,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # above the number of cores others disturb the measurement
        "register_seconds": registered,
        "ran": len(taken),
        "seconds": seconds,
        "lost": lost,
        "doubled": doubled,
        "claim_ms": {"median": 1e3 * statistics.median(claims), "p95": 1e3 * claims[int(0.95 * len(claims))]},
        "end_ms": {"median": 1e3 * statistics.median(ends), "p95": 1e3 * ends[int(0.95 * len(ends))]},
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if lost or doubled:
        raise SystemExit(f"{lost} trials lost, {doubled} run twice")


if __name__ == "__main__":
    main()
