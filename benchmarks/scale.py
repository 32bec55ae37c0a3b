"""What a ledger costs at 100,000 trials: time and bytes per trial, per epoch and per record, with nothing trained.

    python -m benchmarks.scale [--trials 100000] [--worked 2000] [--epochs 10] [--seeds 10000] [--store URL]
        [--output FILE]

A study of so many trials is entered; of them `--worked` are taken, given epochs of made-up records, predictions of
10,000 images and an end, as a worker does it: everything but the training and the checkpoint file. Then what a verdict
reads is read, and `leadline verdict` and `leadline report` run, each as a process of its own. Without --store, SQLite
in a temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leadline.analysis.verdict import analyze
from leadline.parts.metrics.record import Record
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId
from leadline.study.expand import ExpandedStudy, expand

NAME = "scale"
IMAGES = 10_000
LEASE = 3600.0
VALUES = [
    *((split, name) for split in ("train", "validation") for name in ("loss", "accuracy", "error")),
    ("time", "seconds"),
    ("time", "images_per_second"),
]


def study(trials: int, seeds: int) -> ExpandedStudy:
    """So many trials, of networks that differ in depth and are never trained."""
    arms = -(-trials // seeds)
    spec = {
        "name": NAME,
        "arms": {"plain": {"network": "comparative-plain"}},
        "vary": {"blocks": list(range(1, arms + 1))},
        "seeds": -(-trials // arms),
        "contrasts": [["plain[blocks=1]", "plain[blocks=2]"]] if arms > 1 else [],
    }
    return expand(StudySpec.model_validate(spec))


def work(store: Store, trials: int, epochs: int, files: Callable[[], int]) -> dict[str, Any]:
    """Run so many trials that do nothing, and say what each kind of transaction took; medians in milliseconds."""
    owner = str(WorkerId.current())
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, IMAGES).astype(np.int16)
    times: dict[str, list[float]] = {"claim": [], "environment": [], "epoch": [], "finish": []}

    def timed(kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        result = call(*arguments)
        times[kind].append(time.perf_counter() - started)
        return result

    before = files()
    for _ in range(trials):
        trial = timed("claim", store.claim, NAME, owner, LEASE).trial
        timed("environment", store.set_environment, trial, owner, {"torch": "2", "threads": 1})
        for epoch in range(1, epochs + 1):
            records = [Record(epoch * 100, epoch, *key, float(generator.random())) for key in VALUES]
            checkpoint = f"{trial}-{epoch}.safetensors"
            timed("epoch", store.commit_epoch, trial, owner, records, checkpoint, epoch, 1.0)
        last = [
            Record(epochs * 100, epochs, f"final-{split}", "error", 5.0) for split in ("train", "validation", "test")
        ]
        wrong = generator.random(IMAGES) < 0.05
        predicted = np.where(wrong, (labels + 1) % 10, labels).astype(np.int16)
        timed("finish", store.finish, trial, owner, "finished", None, None, last, (predicted, labels))
    grown = files() - before
    records_each = epochs * len(VALUES) + 3
    return {
        **{f"{kind}_ms": 1000 * float(np.median(seconds)) for kind, seconds in times.items()},
        "trial_ms": 1000 * sum(map(sum, times.values())) / trials,
        "record_us": 1e6 * float(np.median(times["epoch"])) / len(VALUES),
        "bytes_per_trial": grown / trials,
        "records_per_trial": records_each,
    }


RUN = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""
"""Program that runs another; it is small, and a process counts the memory of the one that started it as its own."""


def run(line: list[str]) -> float:
    """Run a program and return the most memory that it held, in MiB; what it prints is dropped."""
    return float(subprocess.check_output([sys.executable, "-c", RUN, *line], text=True))


def measure(trials: int, worked: int, epochs: int, seeds: int, url: str | None, runs: Path) -> dict[str, Any]:
    """Enter, work and read, each once."""
    found: dict[str, Any] = {"trials": trials, "worked": worked, "epochs": epochs}

    def clocked(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        found[f"{name}_s"] = time.perf_counter() - started
        return result

    made = clocked("expand", lambda: study(trials, seeds))
    with Store.open(runs, url) as store:

        def files() -> int:
            if url is not None:
                return 0
            store.close()  # which brings SQLite's journal into its file
            return sum(path.stat().st_size for path in runs.glob("leadline.db*"))

        clocked("register", lambda: store.register(made))
        found["bytes_per_waiting_trial"] = files() / trials
        found |= work(store, worked, epochs, files)
        frame = clocked("trials_frame", lambda: store.trials_frame(NAME))
        records = clocked("records_frame", lambda: store.records_frame(NAME))
        outputs = clocked("outputs", lambda: store.outputs(NAME, probabilities=False))
        clocked("verdict", lambda: analyze(made, frame, records, outputs.items()))
        assert int(frame["state"].eq("finished").sum()) == worked
        assert len(records) == worked * found["records_per_trial"]
    for command, output in ("verdict", ()), ("report", ("--output", str(runs / "report"))):
        line = [sys.executable, "-m", "leadline", command, NAME, "--runs", str(runs), *output]
        line += [] if url is None else ["--store", url]
        found[f"leadline_{command}_mib"] = clocked(f"leadline_{command}", partial(run, line))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--worked", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10_000, help="of each arm")
    parser.add_argument("--store", default=None)
    parser.add_argument("--output", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.trials, given.worked, given.epochs, given.seeds, given.store, Path(folder))
    for name, value in found.items():
        print(f"{name:24} {value:,.4g}" if isinstance(value, float) else f"{name:24} {value:,}")
    if given.output is not None:
        given.output.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
