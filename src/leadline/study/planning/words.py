"""A plan as plain text for the terminal, and as plain JSON values for other programs."""

from dataclasses import asdict
from typing import Any

from leadline.analysis.stats import LARGEST_PLAN
from leadline.parts.metrics import metric
from leadline.study.planning.plan import Plan
from leadline.study.planning.seeds import POWER, SeedsNeeded
from leadline.text import plural
from leadline.text.tables import Column, Table
from leadline.text.tables import to_text as table_text

IDLE = 0.9
"""The share of its cores below which a worker has been kept waiting by other programs."""


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON values, with its totals; times in seconds, sizes in bytes."""
    totals = {
        "trials": plan.trials,
        "flops": plan.flops,
        "worker_seconds": plan.worker_seconds,
        "share": plan.share,
        "disk": plan.disk,
    }
    return {**asdict(plan), "arms": [asdict(arm) for arm in plan.arms], **totals}


def to_text(plan: Plan) -> str:
    """Return a plan as plain text: a row for each arm and for all, then what it takes here, and how that was found."""
    lines = [
        f"{plan.study}: what it will take; steps, FLOPs, time, memory and disk are those of one trial",
        "",
        table_text(Table("plan", plan.study, _COLUMNS, tuple(asdict(arm) for arm in plan.arms))),
    ]
    lines += ["", f"In all: {plural(plan.trials, 'trial')}, {plan.flops:.2g} FLOPs, {size(plan.disk)} of disk"]
    lines[-1] += (
        f" ({size(plan.disk_free)} free)." if plan.disk <= plan.disk_free else f", but {size(plan.disk_free)} are free."
    )
    lines.append(
        f"Time here, on {plan.device}: {duration(plan.seconds)} with {plural(plan.workers, 'worker')} of"
        f" {plural(plan.threads, 'thread')} ({plural(plan.cores, 'core')});"
        f" {duration(plan.worker_seconds)} one after another."
    )
    if plan.share < IDLE:
        lines[-1] += (
            f" Other programs ran meanwhile, and a worker had {plan.share:.0%} of its cores: alone on this machine it"
            f" is about {duration(plan.seconds * plan.share)}."
        )
    fits = f"{plural(plan.fits, 'worker')} at once" if plan.fits else "not one worker"
    where = "" if plan.device == "cpu" else " of the GPU"
    lines.append(f"Memory: {size(plan.memory)}{where} are free, room for {fits}.")
    if plan.fits < plan.workers:
        lines[-1] += f" That is less than {plural(plan.workers, 'worker')}: lower --workers or training.batch_size."
    if plan.seeds:
        lines += ["", f"Seeds to decide, at {POWER:.0%} power:", *map(_seeds_line, plan.seeds)]
    return "\n".join([*lines, "", *(f"- {note}" for note in plan.notes)])


def _seeds_line(needed: SeedsNeeded) -> str:
    unit = " points" if metric(needed.metric).in_points else ""
    parts = []
    if needed.margin is not None:
        parts.append(f"{_seeds(needed.for_margin)} for a difference of the margin, {needed.margin:g}{unit}")
    if needed.difference is not None:
        said = "none for a difference of 0" if needed.difference == 0 else _seeds(needed.for_difference)
        about = "" if needed.difference == 0 else f" for one of the pilot's {needed.difference:+.3g}{unit}"
        parts.append(f"{said}{about}")
    if needed.expected is not None and needed.decided is not None:
        parts.append(f"deciding as it goes, {needed.expected:.1f} on average, and decided in {needed.decided:.0%}")
    name = f"{needed.contrast}, {needed.metric}: " if needed.contrast else ""
    pairs = f", {plural(needed.pairs, 'pair')} of the pilot" if needed.pairs is not None else ""
    return f"  {name}{'; '.join(parts)} (standard deviation {needed.sd:.3g}{unit}{pairs})"


def _seeds(number: int | None) -> str:
    return f"more than {LARGEST_PLAN:,} seeds" if number is None else plural(number, "seed")


def duration(seconds: float) -> str:
    """Write a time to two or three digits in the unit that suits it."""
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def size(number: float) -> str:
    """Write bytes in the unit that suits them."""
    for unit, length in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= length:
            return f"{number / length:.3g} {unit}"
    return f"{number:.0f} bytes"


_COLUMNS = (
    Column("Arm", ("arm",), str, numeric=False),
    Column("Trials", ("trials",), "{:,}".format),
    Column("Parameters", ("parameters",), "{:,}".format),
    Column("Steps", ("steps",), "{:,}".format),
    Column("FLOPs", ("flops",), "{:.2g}".format),
    Column("Time", ("seconds",), duration),
    Column("Memory", ("memory",), size),
    Column("Disk", ("disk",), size),
)
