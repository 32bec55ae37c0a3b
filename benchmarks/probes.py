"""What the flow probes cost: seconds of a training step with them over those without, interleaved; ratios as JSON.

    python -m benchmarks.probes [--steps 4] [--rounds 9] [--output probes.json]

Each round times a few steps of ResNet-20 for 32x32 images at batch 128, without probes and with each choice of them,
on one model in an order that changes from round to round. A ratio is the median over rounds of a choice's seconds
over the mean of that round's two without. `host` is the part of a step that the probe itself counted.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.probes.flow import WHAT, probe

BATCH = 128
LIMITS = {"gradients": 1.03, "activations": 1.10}
CHOICES: dict[str, tuple[str, ...]] = {**{what: (what,) for what in WHAT}, "all": WHAT}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("probes.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = build(cifar_resnet(20), (3, 32, 32), 10).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, fused=True)
    images = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH, device=device) % 10

    def steps() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(options.steps):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def probed(what: tuple[str, ...]) -> tuple[float, float]:
        with probe(model, optimizer, what=what) as flow:
            seconds = steps()
        return seconds, flow.seconds

    steps()
    for what in CHOICES.values():
        probed(what)
    bare: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
    ratios: dict[str, list[float]] = {name: [] for name in CHOICES}
    host: dict[str, list[float]] = {name: [] for name in CHOICES}
    names = list(CHOICES)
    for number in range(options.rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            before = steps()
            taken, own = probed(CHOICES[name])
            after = steps()
            bare += [before, after]
            seconds[name].append(taken)
            ratios[name].append(2 * taken / (before + after))
            host[name].append(own / taken)
    results: dict[str, Any] = {
        "threads": options.threads,
        "device": options.device,
        "batch": BATCH,
        "steps": options.steps,
        "bare_seconds_per_step": statistics.median(bare) / options.steps,
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "host": {name: statistics.median(values) for name, values in host.items()},
        "limits": LIMITS,
        "all": {"bare": bare, "seconds": seconds, "ratios": ratios},
    }
    print(f"bare step: {1000 * results['bare_seconds_per_step']:.1f} ms")
    for name, ratio in results["ratios"].items():
        limit = f", limit {LIMITS[name]:.2f}" if name in LIMITS else ""
        print(f"  {name:<22} {ratio:6.3f} (of it counted by the probe: {results['host'][name]:.1%}){limit}")
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
