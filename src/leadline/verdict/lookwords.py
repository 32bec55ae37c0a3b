"""What is said of contrasts that are looked at while seeds are added: the interval's name, what is next, the notes."""

import math
from collections.abc import Iterable, Sequence

from leadline.verdict.findings import ContrastFinding, Looks

SOURCE = "Jennison & Turnbull 1989, with the error shared out over the looks as in Lan & DeMets 1983"
"""Of the intervals."""


def basis(contrast: ContrastFinding) -> str:
    """Return what an interval is and rests on, such as `valid at every look, 7 of at most 20 seeds, 2 looks`."""
    looks = contrast.looks
    assert looks is not None
    pairs = len(contrast.seeds)
    spent = f"{looks.seeds} of at most {looks.most} seeds"
    counted = spent if pairs == looks.seeds else f"{pairs} pairs at {spent}"
    return f"valid at every look, {counted}, {_looks(looks.taken)}"


def interval_name(contrasts: Sequence[ContrastFinding]) -> str:
    """Return what the intervals of a study's contrasts are, for captions and the heads of tables."""
    if not any(contrast.looks for contrast in contrasts):
        return "95% interval (paired t)"
    return f"{level(contrasts[0])} interval that holds at every look"


def level(contrast: ContrastFinding) -> str:
    """Return the confidence of a contrast's interval, such as `95%`: of all contrasts together, if looked at often."""
    return "95%" if contrast.looks is None else f"{100 * contrast.looks.confidence:g}%"


def without_an_interval(contrast: ContrastFinding) -> str:
    """Return why there is no interval yet."""
    looks = contrast.looks
    assert looks is not None
    if len(contrast.seeds) == 1:
        return f"one pair gives no interval; {next_step(looks)}"
    return f"differences that are all equal give no interval; {next_step(looks)}"


def next_step(looks: Looks) -> str:
    """Return what becomes of a contrast that is undecided."""
    if looks.seeds < looks.most:
        return f"seeds are added until it is decided, or there are {looks.most}"
    return f"all {looks.most} seeds are used"


def notes(contrasts: Sequence[ContrastFinding]) -> Iterable[str]:
    """Yield what a reader must know of intervals that hold at every look, each one sentence."""
    shown = [(contrast, contrast.looks) for contrast in contrasts if contrast.looks]
    if not shown:
        return
    looks = shown[0][1]
    confidence = f"{100 * looks.confidence:g}%"
    together = (
        f" and for all {looks.contrasts} contrasts together, each at {100 * looks.of_each:.5g}% (Bonferroni)"
        if looks.contrasts > 1
        else ""
    )
    yield (
        f"Seeds were added until each contrast was decided, {looks.most} at most, so the intervals are those that hold"
        f" at every look at once with {confidence} confidence{together}: repeated confidence intervals ({SOURCE})."
    )
    yield (
        f"The error was shared out over {looks.planned} seeds before the first look, so it does not matter how often or"
        f" why one looked; there were {_looks(max(one.taken for _, one in shown))}."
    )
    yield (
        "They assume that seeds are independent and that the differences over seeds are normal; skewed differences make"
        " them too sure, and no few seeds can show whether they are skewed."
    )
    yield (
        "There are no p-values, which hold at a single look alone; the interval is what all looks have in common, so"
        " the mean difference may lie outside it."
    )
    if looks.planned != looks.most:
        yield (
            f"The study was planned for {looks.planned} seeds and may take {looks.most} now; its intervals hold all the"
            " same."
        )
    if any(contrast.decision == "undecided" and one.seeds >= one.most for contrast, one in shown):
        yield f"Undecided after {looks.most} seeds says that more would be needed, not that the arms are equal."
    if any(not math.isfinite(one.high - one.low) and len(contrast.seeds) > 1 for contrast, one in shown):
        yield "Differences that are all equal, of values that move in no known step, say nothing of their spread."


def _looks(count: int) -> str:
    return f"{count} look{'' if count == 1 else 's'}"
