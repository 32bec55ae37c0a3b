"""Is training on a GPU right, and how fast is it? A table and JSON in under eight minutes, on whatever card there is.

    python -m benchmarks.gpu_check [--device cuda] [--output gpu-check] [--phases correctness throughput] [--quick]

Each phase runs in a process of its own with a time limit, and writes its rows as they come; a phase that hangs or
crashes costs the others nothing. No data set is needed. The exit status is 1 if a row that must hold does not.

environment   versions, flags and the card
correctness   CPU against GPU, synchronisation, repetition and resume to the bit, probes, kernels per step
runs          the demo study with one and four workers, killed and continued; several trials in one process, to the
              bits of trials alone; an error of the device in one arm
teams         two processes on one card through gloo, and NCCL with one process
throughput    images/s of Leadline, a bare loop, a DataLoader and a captured step, in each precision
replicas      several trainings at once: in threads of one process, as captured steps on streams, in processes
"""

import argparse
import dataclasses
import faulthandler
import hashlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks.throughput import (
    BATCH,
    CASES,
    Case,
    images_and_labels,
    leadline_dataset,
    prepare_case,
    run_bare,
    run_dataloader,
    run_leadline,
)
from leadline.data.batches import load
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.networks import comparative_resnet, mlp
from leadline.networks.modules import build
from leadline.probes.running import run_probe
from leadline.probes.snapshots import PROBES
from leadline.running.gang import own_stream
from leadline.specs import SGD, Adam, DataSpec, FlowSpec, NetworkSpec, ProbeSpec, RMSprop, TrainingSpec
from leadline.specs.training import Precision
from leadline.store import Store
from leadline.training import TrainState, choose_device, loop, prepare, train
from leadline.training.numerics import autocast, numerics
from leadline.training.step import EAGER_STEPS, CapturedStep, Step

SECONDS = {"environment": 30, "correctness": 110, "runs": 90, "teams": 40, "throughput": 100, "replicas": 110}
"""Time limit of each phase: eight minutes together."""

RESNET, CNN = CASES["cifar-resnet 20 3x32x32"], CASES["comparative-cnn 1x28x28"]
DIGITS = Case(
    "digits resnet 1x8x8",
    comparative_resnet(5),
    DataSpec(name="digits"),
    (1, 8, 8),
    TrainingSpec(epochs=1, batch_size=BATCH, optimizer=Adam()),
)
SMALL = dataclasses.replace(DIGITS, name="digits resnet of one block", network=comparative_resnet(1))
"""What --quick trains."""

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
REPLICA_EPOCHS = 4
"""Epochs in which several trainings at once are timed, after two that are not."""

CLOSE = 1e-4
"""Largest difference of a loss between two devices that compute in IEEE float32."""


@dataclasses.dataclass
class Row:
    """One thing that was measured, and whether it is as it must be; `passed` is None for what is only told."""

    check: str
    value: str
    wanted: str = ""
    passed: bool | None = None


class Report:
    """Rows, written to a file whenever one is added, by whichever thread."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self._one_at_a_time = path, list[Row](), threading.Lock()

    def add(self, check: str, value: object, wanted: str = "", passed: bool | None = None) -> None:
        with self._one_at_a_time:
            self.rows.append(Row(check, str(value), wanted, None if passed is None else bool(passed)))
            whole = self.path.with_suffix(".part")
            whole.write_text(json.dumps([dataclasses.asdict(row) for row in self.rows], indent=2))
            whole.replace(self.path)

    @contextmanager
    def measuring(self, check: str) -> Iterator[None]:
        """Turn an error in the body into a row that failed."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            first, *_ = [*str(error).strip().splitlines(), ""]
            self.add(check, f"{type(error).__name__}: {first}", "no error", False)


# --- what is trained ---------------------------------------------------------------------------------------------


def in_precision(case: Case, precision: Precision) -> Case:
    return dataclasses.replace(case, training=case.training.with_(precision=precision))


def fast(case: Case, device: torch.device) -> Case:
    """A case in bfloat16 where that is fast: on a card."""
    return in_precision(case, "bfloat16") if device.type == "cuda" else case


def slowly(case: Case) -> Case:
    """A case whose steps are so small that they do not amplify differences of rounding.

    At the usual rate of 0.1, ResNet-20's losses differ by 1e-3 after five steps on one CPU, by the memory format alone.
    """
    optimizer = case.training.optimizer.model_copy(update={"learning_rate": 0.001})
    return dataclasses.replace(case, training=case.training.with_(optimizer=optimizer))


def losses_of(case: Case, device: torch.device, steps: int, group: ProcessGroup = SINGLE_PROCESS) -> list[float]:
    """The loss at each of the first steps."""
    data = leadline_dataset(case, steps).to(device)
    state = prepare_case(case, device)
    records = train(state, data, case.training, pause=lambda step: True, group=group)
    return [record.value for record in records if record.split == "batch"][:steps]


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors, names included."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def trained_digest(case: Case, device: torch.device, steps: int) -> str:
    state = prepare_case(case, device)
    for _ in train(state, leadline_dataset(case, steps).to(device), case.training):
        pass
    return digest(state.tensors())


def resumable_cases(base: Case) -> dict[str, Case]:
    """What must continue to the same bits: optimizers, noise, recomputed activations, precision."""

    def like(case: Case, network: NetworkSpec | None = None, **training: Any) -> Case:
        return dataclasses.replace(case, network=network or case.network, training=case.training.with_(**training))

    return {
        "SGD": like(base, optimizer=SGD()),
        "Adam": like(base, optimizer=Adam()),
        "RMSprop": like(base, optimizer=RMSprop()),
        "dropout": like(base, mlp(hidden=2, width=64, dropout=0.5)),
        "TF32": like(base, precision="tf32"),
        "bfloat16": like(base, precision="bfloat16"),
        "float16": like(base, precision="float16"),
        "recomputed blocks": like(base, base.network.with_(checkpoint_blocks=True)),
    }


def resumes_to_the_bit(case: Case, device: torch.device, steps: int) -> bool:
    """Train to the end, and again with a stop and a new state in the middle of the epoch."""
    data = leadline_dataset(case, steps).to(device)

    whole, first, second = (prepare_case(case, device) for _ in range(3))
    for _ in train(whole, data, case.training):
        pass
    for record in train(first, data, case.training, pause=lambda step: step == steps // 2):
        if record.split == "batch":
            break
    second.load(first.tensors(), first.step, first.epoch)
    for _ in train(second, data, case.training):
        pass
    return digest(whole.tensors()) == digest(second.tensors())


# --- phases ------------------------------------------------------------------------------------------------------


def environment(report: Report, device: torch.device, quick: bool) -> None:
    for package in ("leadline", "torch", "numpy", "pydantic", "sqlalchemy"):
        report.add(package, version(package))
    report.add("Python", platform.python_version())
    report.add("CPU cores", len(os.sched_getaffinity(0)))
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        report.add("card", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} SMs")
        report.add("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    with numerics(device):
        tf32 = f"{torch.backends.cuda.matmul.allow_tf32}, {torch.backends.cudnn.allow_tf32}"
        report.add("TF32 in matrix products, convolutions", tf32, "False, False", tf32 == "False, False")
        chosen = f"{torch.backends.cudnn.deterministic}, {torch.backends.cudnn.benchmark}"
        report.add("cuDNN deterministic, benchmark", chosen, "True, False", chosen == "True, False")
    report.add("CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", "not set"))


def correctness(report: Report, device: torch.device, quick: bool) -> None:
    torch.set_num_threads(1)  # small tensors: more threads on the CPU's side only wait for one another
    cpu, few = torch.device("cpu"), 3
    for case in (SMALL,) if quick else (DIGITS, CNN, RESNET):
        with report.measuring(f"{case.name}: losses on the CPU and on {device.type}"):
            slow = slowly(case)
            on_cpu = np.array(losses_of(slow, cpu, few))
            gap = np.abs(np.array(losses_of(slow, device, few)) - on_cpu).max()
            report.add(f"{case.name}: largest gap of {few} losses, IEEE", f"{gap:.1e}", f"below {CLOSE}", gap < CLOSE)
            if device.type == "cuda":
                tf32 = np.abs(np.array(losses_of(in_precision(slow, "tf32"), device, few)) - on_cpu).max()
                report.add(f"{case.name}: the same with TF32", f"{tf32:.1e}", "over 3 times as large", tf32 > 3 * gap)
    case, steps = (SMALL, 4) if quick else (RESNET, 20)
    if device.type == "cuda":
        for first, kind in ((1, Step), (EAGER_STEPS + 2, CapturedStep)):
            check = f"no synchronisation in steps {first + 1} to 49, {kind.__name__}"
            with report.measuring(check), taking(kind):
                check_synchronisation(RESNET, device, first)
                report.add(check, "none", "none", True)
        for name, one in {"ResNet": RESNET, "CNN": CNN, **resumable_cases(RESNET)}.items():
            if getattr(one.network, "checkpoint_blocks", False):
                continue  # never captured
            with report.measuring(f"captured against eager: {name}"), warnings.catch_warnings():
                warnings.filterwarnings("error", "training goes on without a CUDA graph")
                with taking(Step):
                    eager = trained_digest(one, device, 12)
                with taking(CapturedStep):
                    equal = trained_digest(one, device, 12) == eager
                report.add(f"captured against eager: {name}", "equal" if equal else "different", "equal bits", equal)
    with report.measuring("one training in two processes"):
        digests = {child("digest", case.name, str(device), str(steps)) for _ in range(2)}
        report.add("one training in two processes", f"{len(digests)} different", "equal bits", len(digests) == 1)
    for name, one in resumable_cases(SMALL if quick else RESNET).items():
        if one.training.precision != "float32" and device.type == "cpu":
            continue  # CPUs have no TF32, and take minutes in half precision
        with report.measuring(f"resumed within an epoch: {name}"):
            equal = resumes_to_the_bit(one, device, 2 if quick else 6)
            report.add(f"resumed within an epoch: {name}", "equal" if equal else "different", "equal bits", equal)
    for name in PROBES.members():
        with report.measuring(f"probe {name}"):
            gap = probe_gap(name, device, blocks=1 if quick else 3)
            report.add(f"probe {name}: largest relative gap", f"{gap:.1e}", "below 0.01", gap < 0.01)
    with report.measuring("probe flow"):
        gap = flow_gap(device)
        report.add("probe flow: largest relative gap", f"{gap:.1e}", "below 0.01", gap < 0.01)
    if device.type == "cuda":
        for case in (RESNET, CNN, DIGITS):
            with report.measuring(f"{case.name}: kernels per step"):
                kernels, busy = profile_step(case, device)
                report.add(f"{case.name}: kernels per step, busy", f"{kernels:.0f}, {busy:.0%}")


@contextmanager
def taking(kind: type[Step]) -> Iterator[None]:
    """Let training take steps of one kind in the body."""
    chosen = loop.prepare_step
    loop.prepare_step = kind  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.prepare_step = chosen


def check_synchronisation(case: Case, device: torch.device, first: int) -> None:
    """Train 50 steps in which PyTorch raises an error at a synchronisation after so many steps."""

    def pause(step: int) -> bool:
        torch.cuda.set_sync_debug_mode("error" if first <= step < 49 else "default")
        return False

    data = leadline_dataset(case, 50).to(device)
    state = prepare_case(case, device)
    try:
        next(iter(train(state, data, case.training, pause=pause)))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def probe_gap(name: str, device: torch.device, blocks: int) -> float:
    """Largest difference of a probe's numbers between the CPU and a device, relative to their largest."""
    data = load(DataSpec(name="digits", train=64, validation=64, test=50))
    frames = []
    for place in (torch.device("cpu"), device):
        images, labels = data.to(place).sample("validation", 64, False)
        model = build(comparative_resnet(blocks), data.shape, data.classes).to(place)
        taken = run_probe(PROBES.members()[name](images=64), model, images, labels, seed=0, untrained=False)
        if taken.reason:
            raise RuntimeError(taken.reason)
        frames.append(taken.frame.select_dtypes("number").to_numpy(float))
    return relative_gap(*frames)


def flow_gap(device: torch.device) -> float:
    recipe = TrainingSpec(epochs=1, batch_size=32, optimizer=SGD(learning_rate=0.01))
    data = load(DataSpec(name="digits", train=64, validation=64, test=50))
    frames = []
    for place in (torch.device("cpu"), device):
        state = prepare(build(comparative_resnet(3), data.shape, data.classes), recipe, place)
        for _ in train(state, data.to(place), recipe, probes=ProbeSpec(flow=FlowSpec())):
            pass
        assert state.flow is not None
        frames.append(state.flow.frame().select_dtypes("number").to_numpy(float))
    return relative_gap(*frames)


def relative_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference in a column, relative to the column's largest value.

    Infinite if only one of two has a number there, or if they are different infinities.
    """
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    scale = np.nanmax(np.abs(a), axis=0, initial=0, where=np.isfinite(a))
    with np.errstate(invalid="ignore"):
        gaps = np.where(a == b, 0, np.abs(a - b) / np.where(scale > 0, scale, 1))
    return float(np.nanmax(gaps, initial=0))


def profile_step(case: Case, device: torch.device) -> tuple[float, float]:
    """Kernels of a step, and the fraction of its time in which one runs."""
    steps = 20
    once = run_leadline(case, steps, device)
    once()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds = once()
    kernels = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len(kernels) / steps, sum(event.device_time for event in kernels) / 1e6 / seconds


BROKEN = """import torch

class Broken(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.linear = torch.nn.Linear(64, num_classes)

    def forward(self, images):
        if torch.is_grad_enabled() and len(images) == 50:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return self.linear(images.flatten(1))
"""
GANG = """name: gang
data: {name: digits}
training: {epochs: 2, batch_size: 50}
arms:
  dropout: {network: {family: mlp, hidden: 3, dropout: 0.3}}
  shared: {network: {family: mlp, hidden: 4, shared: true}, training: {precision: bfloat16}}
  residual: {network: {family: comparative-resnet, blocks: 2}}
  own: {network: {module: "own:Own"}}
seeds: 2
"""
OWN = """import torch

class Own(torch.nn.Sequential):
    def __init__(self, num_classes):
        linear = torch.nn.Linear(64, num_classes)
        super().__init__(torch.nn.Flatten(), torch.nn.Dropout(0.3), linear)
"""
STUDY = """name: broken
data: {name: digits, train: 200, test: 100}
training: {epochs: 1, batch_size: 50}
arms:
  sound: {network: {family: mlp, hidden: 1}}
  broken: {network: {module: "broken:Broken"}}
seeds: 1
"""


def runs(report: Report, device: torch.device, quick: bool) -> None:
    """Run studies, all at once, because most of the time goes into the start of processes."""
    few = ["--set", "training.epochs=1", "--set", "seeds=1", "--set", "vary.blocks=[1]"] if quick else []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        numbers = (2,) if quick else (1, 4)
        started = [pool.submit(run_demo, report, folder, device, workers, few) for workers in numbers]
        started += [pool.submit(check, report, folder, device) for check in (run_gang, run_broken)]
    for one in started:
        one.result()


def study_command(study: str, device: torch.device, runs: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "leadline", "run", study, "--device", str(device), "--runs", runs, *options]


def run_demo(report: Report, folder: str, device: torch.device, workers: int, options: list[str]) -> None:
    """Run the demo study; with several workers, kill it once and run it again."""
    check = f"demo, {workers} worker{'s' * (workers > 1)}"
    with report.measuring(check):
        line = study_command("demo", device, f"{folder}/{workers}", "--workers", str(workers), *options)
        if workers > 1:
            check += ", killed and continued"
            kill_after_the_first_trial(line)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        report.add(check, last_line(done), "finished", done.returncode == 0)


def run_gang(report: Report, folder: str, device: torch.device) -> None:
    """Compare what trials record that run alone and four at once in a process."""
    check = "four trials at once in one process"
    with report.measuring(check):
        Path(folder, "own.py").write_text(OWN)
        Path(folder, "gang.yaml").write_text(GANG)
        alone, together = (records_of_gang(folder, device, number) for number in (1, 4))
        equal = "equal to alone" if together == alone else "different"
        report.add(check, equal, "equal bits", bool(alone) and together == alone)


def run_broken(report: Report, folder: str, device: torch.device) -> None:
    """Run a study of which one arm gets an error of the device at every attempt."""
    check = "a device error in one arm"
    with report.measuring(check):
        Path(folder, "broken.py").write_text(BROKEN)
        Path(folder, "broken.yaml").write_text(STUDY)
        line = study_command("broken.yaml", device, "runs", "--workers", "2")
        subprocess.run(line, cwd=folder, capture_output=True, check=False)
        listed = [sys.executable, "-m", "leadline", "trials", "broken", "--json"]
        found = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True)
        states = {(row["arm"], row["state"]) for row in json.loads(found.stdout)}
        wanted = {("sound", "finished"), ("broken", "failed")}
        report.add(check, sorted(states), "the other finishes", states == wanted)


def records_of_gang(folder: str, device: torch.device, number: int) -> list[tuple[object, ...]]:
    """Everything but times that trials record of which a worker trains so many at once."""
    options = ["--workers", "1", "--trials-per-worker", str(number)]
    line = study_command("gang.yaml", device, f"gang-{number}", *options)
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(last_line(done))
    with Store.open(Path(folder, f"gang-{number}")) as store:
        found = store.records_frame("gang")
    found = found[found["split"] != "time"][["trial", "step", "split", "name", "value"]]
    return sorted(found.itertuples(index=False, name=None))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process said last, of an error if there was one."""
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return said[-1] if said else f"ended with status {done.returncode}"


def kill_after_the_first_trial(line: list[str]) -> None:
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for text in process.stdout:
        if "finished" in text:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
    raise RuntimeError(f"it ended with status {process.wait()} before it could be killed")


def teams(report: Report, device: torch.device, quick: bool) -> None:
    case, steps = (SMALL, 2) if quick else (RESNET, 6)
    with report.measuring("two processes on one device through gloo"):
        alone = np.array(losses_of(slowly(case), device, steps))
        with tempfile.TemporaryDirectory() as folder:
            line = ["member", case.name, str(device), str(steps), f"{folder}/meet"]
            with subprocess.Popen(command(*line, "1"), stdout=subprocess.DEVNULL) as second:
                try:
                    together = np.array(json.loads(child(*line, "0")))
                except BaseException:
                    second.kill()  # which waits for the other
                    raise
        gap = np.abs(alone - together).max()
        report.add("two processes on one device: largest gap of losses", f"{gap:.1e}", f"below {CLOSE}", gap < CLOSE)
    if device.type == "cuda":
        with report.measuring("NCCL with one process"), tempfile.TemporaryDirectory() as folder:
            dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=0, world_size=1)
            ones = torch.ones(1000, device=device)
            dist.all_reduce(ones)
            report.add("NCCL with one process", f"sum {float(ones.sum()):.0f}", "1000", float(ones.sum()) == 1000)
            dist.destroy_process_group()


def throughput(report: Report, device: torch.device, quick: bool) -> None:
    cuda = device.type == "cuda"
    rounds, steps = (1, 2) if quick else (3, 100)
    for case in (SMALL,) if quick else (RESNET, CNN, DIGITS):
        for precision in PRECISIONS if cuda else PRECISIONS[:1]:
            one = in_precision(case, precision)
            with report.measuring(f"{case.name}, {precision}"), numerics(device, precision):
                peers = {"leadline": run_leadline(one, steps, device), "bare loop": run_bare(one, steps, device)}
                if cuda:
                    peers["captured bare step"] = run_captured(one, steps, device)
                    with taking(Step):
                        peers["leadline, eager"] = run_leadline(one, steps, device)
                        peers["leadline, eager"]()  # its first epoch chooses the kind of step
                if case is RESNET and precision != "tf32":
                    for workers in (0, 8):
                        peers[f"DataLoader of {workers}"] = run_dataloader(one, steps, device, workers)
                speeds = interleave(peers, steps * BATCH, rounds)
                text = ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
                report.add(f"{case.name}, {precision}, images/s", text)


def interleave(peers: dict[str, Callable[[], float]], images: int, rounds: int) -> dict[str, float]:
    """Median images per second of each, measured in turns."""
    for once in peers.values():
        once()
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, once in peers.items():
            seconds[name].append(once())
    return {name: images / statistics.median(each) for name, each in seconds.items()}


@dataclasses.dataclass
class Captured:
    """A training step as a CUDA graph, the tensors that its images and labels are copied to, and what it trains."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    labels: Tensor
    state: TrainState


def capture(case: Case, device: torch.device) -> Captured:
    state = prepare_case(case, device)
    images = torch.zeros(BATCH, *case.shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(BATCH, dtype=torch.int64, device=device)
    for group in state.optimizer.param_groups:
        group["capturable"] = True

    def step() -> None:
        state.optimizer.zero_grad()
        with autocast(device, case.training.precision):
            loss = F.cross_entropy(state.model(images), labels)
        loss.backward()
        state.optimizer.step()

    state.model.train()
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return Captured(graph, images, labels, state)


def run_captured(case: Case, steps: int, device: torch.device) -> Callable[[], float]:
    pixels, classes = images_and_labels(case, steps)
    x = torch.from_numpy(pixels).to(device).float().div(255).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(classes).to(device)
    step = capture(case, device)

    def once() -> float:
        started = time.perf_counter()
        for start in range(0, len(x), BATCH):
            step.images.copy_(x[start : start + BATCH])
            step.labels.copy_(y[start : start + BATCH])
            step.graph.replay()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return once


def replicas(report: Report, device: torch.device, quick: bool) -> None:
    torch.set_num_threads(1)
    case, steps = (SMALL, 2) if quick else (fast(RESNET, device), 100)
    numbers = (1, 2) if quick else (1, 2, 4, 8)
    alone: set[str] = set()
    for kind, run in {"threads of one process": run_threads, "processes": run_processes}.items():
        for number in numbers:
            with report.measuring(f"{number} in {kind}"):
                seconds, digests = run(case, device, number, steps)
                check, speed = f"{number} in {kind}: images/s", number * REPLICA_EPOCHS * steps * BATCH / seconds
                if not alone:
                    alone = digests
                    report.add(check, f"{speed:,.0f}")
                    continue
                equal = digests == alone
                bits = "equal to alone" if equal else "different"
                report.add(check, f"{speed:,.0f}, {bits}", "equal", equal)
    for number in numbers if device.type == "cuda" else ():
        with report.measuring(f"{number} captured steps on streams"), numerics(device, case.training.precision):
            speed, gigabytes = run_graphs(case, device, number, steps)
            report.add(f"{number} captured steps on streams: images/s, memory", f"{speed:,.0f}, {gigabytes:.1f} GiB")


def run_threads(case: Case, device: torch.device, number: int, steps: int) -> tuple[float, set[str]]:
    """Seconds of several trainings at once in threads of this process, and the digests of what came out."""
    ready = threading.Barrier(number + 1)

    def wait() -> None:
        ready.wait()

    def train_one() -> str:
        try:
            with own_stream(device):
                return replicate(case, device, steps, wait)
        except BaseException:
            ready.abort()
            raise

    with numerics(device), ThreadPoolExecutor(number) as pool:
        started = [pool.submit(train_one) for _ in range(number)]
        with suppress(threading.BrokenBarrierError):  # the thread's own error follows
            ready.wait()
        begun = time.perf_counter()
        digests = {one.result() for one in started}
        return time.perf_counter() - begun, digests


def run_processes(case: Case, device: torch.device, number: int, steps: int) -> tuple[float, set[str]]:
    """Seconds of several trainings at once in processes of their own, and the digests of what came out."""
    line = command("replica", case.name, str(device), str(steps))
    with ExitStack() as stack:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)

        def read(process: "subprocess.Popen[str]") -> str:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if not said:
                raise RuntimeError(f"a process ended with status {process.wait()}")
            return said

        for process in processes:
            read(process)  # it is warm
        begun = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        digests = {read(process) for process in processes}
        return time.perf_counter() - begun, digests


def replicate(case: Case, device: torch.device, steps: int, wait: Callable[[], None]) -> str:
    """Train for two epochs, wait, train for more; return the digest of what came out."""
    state, recipe = prepare_case(case, device), case.training.with_(epochs=2 + REPLICA_EPOCHS)
    records = train(state, leadline_dataset(case, steps).to(device), recipe)
    while state.epoch < 2:
        next(records)
    wait()
    for _ in records:
        pass
    return digest(state.tensors())


def run_graphs(case: Case, device: torch.device, number: int, steps: int) -> tuple[float, float]:
    """Images per second of captured steps that run at once, each on a stream, and the memory that they take."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    captured = [capture(case, device) for _ in range(number)]
    streams = [torch.cuda.Stream(device) for _ in captured]

    def once() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            for step, stream in zip(captured, streams, strict=True):
                with torch.cuda.stream(stream):
                    step.graph.replay()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started

    once()
    seconds = statistics.median(once() for _ in range(3))
    return number * steps * BATCH / seconds, torch.cuda.max_memory_reserved(device) / 2**30


PHASES: dict[str, Callable[[Report, torch.device, bool], None]] = {
    phase.__name__: phase for phase in (environment, correctness, runs, teams, throughput, replicas)
}

# --- processes ---------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu_check", "--child", *arguments]


def child(*arguments: str) -> str:
    """The last line that a child process prints."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    said = last_line(done)
    if done.returncode:
        raise RuntimeError(said)
    return said


def run_child(task: str, name: str, where: str, number: str, *more: str) -> None:
    """What a process of a phase does: train and print what came out."""
    case = next(case for case in (RESNET, CNN, DIGITS, SMALL) if case.name == name)
    device, steps = choose_device(where), int(number)
    torch.set_num_threads(1)
    if task == "digest":
        print(trained_digest(case, device, steps))
    elif task == "member":
        meet, rank = more
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=int(rank), world_size=2)
        print(json.dumps(losses_of(slowly(case), device, steps, ProcessGroup(int(rank), 2))))
        dist.destroy_process_group()
    else:

        def wait() -> None:
            print("warm", flush=True)
            input()

        print(replicate(fast(case, device), device, steps, wait))


def run_phase(name: str, options: argparse.Namespace) -> list[Row]:
    """Run a phase in a process of its own; what it could not do in its time is a row that failed."""
    path = options.output / f"{name}.json"
    path.unlink(missing_ok=True)
    line = [sys.executable, "-m", "benchmarks.gpu_check", "--phase", name, "--device", options.device]
    line += ["--output", str(options.output), *(["--quick"] if options.quick else [])]
    process, reason = subprocess.Popen(line, start_new_session=True), ""
    try:
        if process.wait(SECONDS[name] * options.patience):
            reason = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"took longer than {SECONDS[name] * options.patience:g} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.wait()
    rows = [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []
    return [*rows, Row(name, reason, "to end", False)] if reason else rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu-check"), help="folder for a JSON file of each phase")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--quick", action="store_true", help="few steps of the smallest network, to test this script")
    parser.add_argument("--patience", type=float, default=1.0, help="what time limits are multiplied by")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "PyTorch sees no CUDA device on this machine; --device cpu --quick tests the script itself", file=sys.stderr
        )
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    if options.phase:
        faulthandler.enable()
        faulthandler.dump_traceback_later(0.98 * SECONDS[options.phase] * options.patience)  # where it hangs
        PHASES[options.phase](
            Report(options.output / f"{options.phase}.json"), choose_device(options.device), options.quick
        )
        return 0
    failed = 0
    for name in options.phases:
        started = time.perf_counter()
        rows = run_phase(name, options)
        failed += sum(row.passed is False for row in rows)
        print(f"\n{name} ({time.perf_counter() - started:.0f} s)")
        for row in rows:
            mark = {True: "holds", False: "FAILS", None: ""}[row.passed]
            print(f"  {row.check}: {row.value}" + (f"  [{row.wanted}: {mark}]" if row.wanted else ""), flush=True)
    print(f"\n{failed} of the checks failed" if failed else "\nall checks hold")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
