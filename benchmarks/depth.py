"""What depth costs: building, one step and memory of ResNet-1202, and how a step's time grows from 20 layers on.

    python -m benchmarks.depth [--output depth.json]

Memory is the peak of a fresh process above what it held before the step, once as usual and once with
`checkpoint_blocks`, both with MALLOC_MMAP_THRESHOLD_=65536: without it the C library keeps what is freed between
activations that stay, and the process shows the allocator's holes and not what the network needs. Times are medians
of interleaved steps in one process with one thread.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from leadline.networks import cifar_resnet
from leadline.networks.modules import build_network

SHAPE = (3, 32, 32)
DEPTHS = (20, 56, 110, 302, 602, 1202)


def step(model: torch.nn.Module, batch: int) -> float:
    """Seconds of one forward and backward pass."""
    images = torch.randn(batch, *SHAPE).contiguous(memory_format=torch.channels_last)
    started = time.perf_counter()
    F.cross_entropy(model(images), torch.zeros(batch, dtype=torch.int64)).backward()
    seconds = time.perf_counter() - started
    model.zero_grad()
    return seconds


def kilobytes(key: str) -> int:
    """Read a value of this process's memory from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak_megabytes(depth: int, batch: int, checkpointed: bool, results: Any) -> None:
    torch.set_num_threads(1)
    model = build_network(cifar_resnet(depth).with_(checkpoint_blocks=checkpointed), SHAPE, 10)
    model = model.to(memory_format=torch.channels_last)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: proc(5)
    before = kilobytes("VmRSS")
    seconds = step(model, batch)
    results.send(((kilobytes("VmHWM") - before) / 1024, seconds))


def memory(depth: int, batch: int, checkpointed: bool) -> tuple[float, float]:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=peak_megabytes, args=(depth, batch, checkpointed, theirs))
    process.start()
    theirs.close()  # so that a process that dies is an error here, and nobody waits for it
    found: tuple[float, float] = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("depth.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    builds = []
    for _ in range(options.rounds):
        started = time.perf_counter()
        build_network(cifar_resnet(1202), SHAPE, 10)
        builds.append(time.perf_counter() - started)
    print(f"build ResNet-1202: {statistics.median(builds):.2f} s")

    models = {
        depth: build_network(cifar_resnet(depth), SHAPE, 10).to(memory_format=torch.channels_last) for depth in DEPTHS
    }
    seconds: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for _ in range(options.rounds):
        for depth, model in models.items():
            step(model, options.batch)  # the memory of the deeper network before it has gone back by then
            seconds[depth].append(step(model, options.batch))
    median = {depth: statistics.median(times) for depth, times in seconds.items()}
    # the stem and the head cost the same at any depth: what grows is compared with the growth from 20 to 1202
    per_layer = {depth: (median[depth] - median[20]) / (depth - 20) for depth in DEPTHS[1:]}
    worst = max(abs(value / per_layer[1202] - 1) for value in per_layer.values())
    for depth, seconds_each in median.items():
        layer = 1000 * seconds_each / depth
        print(f"step of {depth:>4} layers, batch {options.batch}: {seconds_each:7.3f} s, {layer:.2f} ms/layer")
    print(f"departure of the cost per added layer from a straight line: {100 * worst:.0f}%")

    usual, usual_seconds = memory(1202, 32, False)
    checkpointed, checkpointed_seconds = memory(1202, 32, True)
    print(f"peak of a step of 1202 layers, batch 32: {usual:.0f} MiB, with checkpointing {checkpointed:.0f} MiB")
    print(f"ratio of memory {checkpointed / usual:.2f}, of time {checkpointed_seconds / usual_seconds:.2f}")
    results = {
        "build_seconds": builds,
        "step_seconds": seconds,
        "departure_from_linear": worst,
        "peak_mib": {"usual": usual, "checkpointed": checkpointed, "ratio": checkpointed / usual},
        "checkpointing_time_ratio": checkpointed_seconds / usual_seconds,
    }
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
