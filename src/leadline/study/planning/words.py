"""A plan as plain text for the terminal, and as plain JSON values for other programs."""

from dataclasses import asdict
from typing import Any

from leadline.analysis.verdict.wording.sentences import MOST_SEEDS, roughly
from leadline.parts.metrics import metric
from leadline.study.planning.plan import Plan
from leadline.study.planning.seeds import POWER, SeedsNeeded
from leadline.text import byte_size, plural
from leadline.text.layout import Block
from leadline.text.layout import to_text as lay_out
from leadline.text.tables import Column, Table

IDLE = 0.9
"""Share of its cores below which a worker counts as slowed down by other programs."""


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON values, with its totals; times in seconds, sizes in bytes."""
    totals = {
        "trials": plan.trials,
        "flops": plan.flops,
        "worker_seconds": plan.worker_seconds,
        "estimated": plan.estimated,
        "share": plan.share,
        "disk": plan.disk,
    }
    return {**asdict(plan), "arms": [asdict(arm) for arm in plan.arms], **totals}


def to_text(plan: Plan) -> str:
    """Return a plan as plain text, whose lines are as long as they are; see `to_blocks`."""
    return lay_out(*to_blocks(plan))


def to_blocks(plan: Plan) -> list[Block]:
    """Return a plan for a reader: a row per arm and a total, the cost on this machine, and how it was estimated."""
    caption = f"{plan.study}: estimated cost; steps, FLOPs, time, memory and disk are per trial"
    arms = Table("plan", caption, _COLUMNS, tuple(asdict(arm) for arm in plan.arms))
    lines = [f"Total: {plural(plan.trials, 'trial')}, {plan.flops:.2g} FLOPs, {byte_size(plan.disk)} of disk"]
    lines[-1] += (
        f" ({byte_size(plan.disk_free)} free)."
        if plan.disk <= plan.disk_free
        else f", but {byte_size(plan.disk_free)} are free."
    )
    with_workers = (
        f"with {plural(plan.workers, 'worker')} of {plural(plan.threads, 'thread')} ({plural(plan.cores, 'core')})"
    )
    if plan.seconds is None or plan.worker_seconds is None:
        lines.append(f"Time on this machine, on {plan.device}, {with_workers}: not known.")
    else:
        about = "about " if plan.estimated else ""
        lines.append(
            f"Time on this machine, on {plan.device}: {about}{duration(plan.seconds)} {with_workers};"
            f" {about}{duration(plan.worker_seconds)} sequentially."
        )
        if plan.share < IDLE:
            lines[-1] += (
                f" Other programs were running, so a worker had {plan.share:.0%} of its cores; on an idle machine the"
                f" time is about {duration(plan.seconds * plan.share)}."
            )
    fits = f"{plural(plan.fits, 'worker')} at once" if plan.fits else "no worker"
    where = f" of each of {plan.cards} GPUs" if plan.cards > 1 else " of the GPU" if plan.cards else ""
    lines.append(f"Memory: {byte_size(plan.memory)}{where} free, enough for {fits}.")
    if plan.fits < plan.workers:
        lines[-1] += f" That is less than {plural(plan.workers, 'worker')}: lower --workers or training.batch_size."
    blocks: list[Block] = [arms, "\n".join(lines)]
    if plan.seeds:
        blocks.append("\n".join([f"Seeds to decide, at {POWER:.0%} power:", *map(_seeds_line, plan.seeds)]))
        if any(_is_many(needed) for needed in plan.seeds):
            blocks.append(
                f"Few studies can afford more than {MOST_SEEDS} seeds; a larger margin, or a larger test set, which"
                " lessens the spread between seeds, needs fewer."
            )
    return [*blocks, "\n".join(f"- {note}" for note in plan.notes)]


def _seeds_line(needed: SeedsNeeded) -> str:
    unit = " points" if metric(needed.metric).in_points else ""
    parts = []
    if needed.margin is not None:
        parts.append(f"{_seeds(needed.for_margin)} to detect a difference equal to the margin, {needed.margin:g}{unit}")
        parts.append(f"{_seeds(needed.for_equivalence)} to show equivalence where there is no difference")
    if needed.difference is not None:
        pilot = f"the pilot's difference of {needed.difference:+.3g}{unit}"
        parts.append(f"{_seeds(needed.for_difference)} to decide {pilot}")
    if needed.expected is not None and needed.decided is not None:
        parts.append(
            f"with `decide`, {needed.expected:.1f} on average, with a decision in {needed.decided:.0%} of"
            f" simulated studies"
        )
    name = f"{needed.contrast}, {needed.metric}: " if needed.contrast else ""
    pairs = f", {plural(needed.pairs, 'pair')} in the pilot" if needed.pairs is not None else ""
    return f"  {name}{'; '.join(parts)} (standard deviation {needed.sd:.3g}{unit}{pairs})"


def _seeds(number: int | None) -> str:
    return f"{'about ' * (number is not None)}{roughly(number)} seeds"


def _is_many(needed: SeedsNeeded) -> bool:
    """Return whether a contrast takes more seeds than most studies can have."""
    numbers = [needed.for_margin, needed.for_equivalence] if needed.margin is not None else []
    numbers += [needed.for_difference] if needed.difference is not None else []
    return any(number is None or number > MOST_SEEDS for number in numbers)


def duration(seconds: float) -> str:
    """Format a time with two or three digits in a suitable unit."""
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


_COLUMNS = (
    Column("Arm", ("arm",), str, numeric=False),
    Column("Trials", ("trials",), "{:,}".format),
    Column("Parameters", ("parameters",), "{:,}".format),
    Column("Steps", ("steps",), "{:,}".format),
    Column("FLOPs", ("flops",), "{:.2g}".format),
    Column("Time", ("seconds",), lambda seconds: "not known" if seconds is None else duration(seconds)),
    Column("Memory", ("memory",), byte_size),
    Column("Disk", ("disk",), byte_size),
)
