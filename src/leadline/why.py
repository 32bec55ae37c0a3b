"""Why: what probes saw inside a study's networks, as a frame and as sentences: what went with what, and no cause."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from leadline.errors import DataError
from leadline.probes.measured import Measurement
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, KINDS, WEIGHT_GRADIENT, FlowTable, block_of
from leadline.probes.words import EXPLODED, MOSTLY_DEAD, UNSTABLE_UPDATE, VANISHED, Finding, describe, number
from leadline.stats import spearman

DEGRADED = 1.0
"""Percentage points of final training error that a deeper arm has more than a shallower one of the same kind."""

FEWEST_TRIALS = 5
"""Below this many pairs a rank correlation can hardly be told from none."""

COLUMNS = ("trial", "arm", "base", "seed", "epoch", "kind", "layer", "position", "block", "value")
THRESHOLDS = (
    f"Thresholds: vanishing below {number(VANISHED)} and exploding above {number(EXPLODED)} times the gradient norm of"
    f" the last block; dead from {MOSTLY_DEAD:.0%} of a layer's units; unstable where one step changes a weight by"
    f" {UNSTABLE_UPDATE:.0%} of its norm or a gradient is not finite; degraded where the final training error is"
    f" {DEGRADED:.0f} percentage point or more above that of a shallower arm. Gradients and updates are"
    " judged by their medians over an epoch's steps, units by the whole epoch."
)

_FIGURES = {  # of the sentences' kinds, by the name that figures have in a report
    "vanishing": "gradient-flow",
    "exploding": "gradient-flow",
    "healthy": "gradient-flow",
    "degraded": "gradient-flow",
    "healthy but degraded": "gradient-flow",
    "dead": "dead-units",
    "unstable": "updates",
}


@dataclass(frozen=True)
class Said:
    """A sentence about one arm, and the figure that shows what it rests on."""

    arm: str
    kind: str
    text: str
    figure: str


@dataclass(frozen=True)
class Seen:
    """What one of the deeper probes saw in a study's networks."""

    name: str
    about: str  # what it shows, and where it comes from
    frame: pd.DataFrame  # arm, base, seed, epoch (0: before the first step), then the probe's own columns
    how: str  # of which images, and with which statistics
    failures: tuple[str, ...] = ()  # where it could not measure, and why, a line for each reason


@dataclass(frozen=True)
class Why:
    """What was measured inside the networks of a study; empty where nothing was."""

    frame: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    sentences: tuple[Said, ...] = ()
    early: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["arm", "base", "seed", "ratio", "error"]))
    together: str = ""  # early flow and final error
    cost: str = ""
    deeper: tuple[Seen, ...] = ()


NOTHING_MEASURED = Why()


Stored = Mapping[str, Sequence[tuple[int, bytes]]]
"""Trial -> epoch and what a probe measured in it as bytes, in the order of epochs."""


def explain(
    trials: pd.DataFrame,
    records: pd.DataFrame,
    measured: Stored,
    deeper: Mapping[str, Stored] = {},
    about: Mapping[str, str] = {},
) -> Why:
    """Return what a study's measurements show, those of diverged trials included.

    `Why.frame` has a row per trial, epoch and series of flow: columns trial, arm, base, seed, epoch, kind (see
    `leadline.probes.table`), layer, position (from 1 at the input, within its kind), block (likewise, or missing) and
    value: the median over the epoch's measured steps, of dead units the fraction at its end.

    Args:
        trials, records: as the store returns them.
        measured: flow tables.
        deeper: by probe, `leadline.probes.measured.Measurement`s; epoch 0 is before the first step.
        about: a paragraph for each of these probes.

    Raises:
        DataError: a measurement is damaged.
    """
    known = set(trials["trial"])
    tables = _read(measured, known, "flow", FlowTable.from_bytes)
    looks = {name: _read(stored, known, name, Measurement.from_bytes) for name, stored in deeper.items()}
    looks = {name: found for name, found in looks.items() if found}
    if not looks and not any(len(table.steps) for epochs in tables.values() for _, table in epochs):
        return NOTHING_MEASURED
    frame = _frame(trials, tables)
    early, together = (NOTHING_MEASURED.early, "") if frame.empty else _early_flow(trials, records, frame)
    return Why(
        frame,
        tuple(_sentences(trials, records, tables)),
        early,
        together,
        " ".join(_cost(records, tables, looks)),
        tuple(_seen(name, about.get(name, ""), trials, found) for name, found in looks.items()),
    )


Read = TypeVar("Read")
Tables = Mapping[str, Sequence[tuple[int, FlowTable]]]
Looks = Mapping[str, Sequence[tuple[int, Measurement]]]


def _read(
    stored: Stored, known: set[str], name: str, read: Callable[[bytes], Read]
) -> dict[str, list[tuple[int, Read]]]:
    found: dict[str, list[tuple[int, Read]]] = {}
    for trial, epochs in stored.items():
        for epoch, content in epochs if trial in known else ():
            try:
                found.setdefault(trial, []).append((epoch, read(content)))
            except DataError as error:
                raise DataError(f"trial {trial[:12]}, probe {name}, epoch {epoch}: {error}") from None
    return found


def _frame(trials: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    rows = []
    for trial, arm, base, seed in trials[["trial", "arm", "base", "seed"]].to_numpy().tolist():
        for epoch, table in tables.get(trial, ()):
            own = (trial, arm, base, seed, epoch)
            for kind in KINDS:
                names, values = table.series(kind)
                for position, (name, column) in enumerate(zip(names, values.T, strict=True), 1):
                    seen = column[~np.isnan(column)].astype(np.float64)
                    if len(seen):
                        value = seen[-1] if kind == DEAD else np.median(seen)
                        rows.append((*own, kind, name, position, block_of(name, table.blocks), float(value)))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"block": "Int64", "value": "float64"})


def of_gradients(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by which flow is judged: gradients of block outputs, or the nearest to it that was measured.

    Positions count these rows alone.
    """
    kinds = set(frame["kind"])
    rows = frame[frame["kind"].eq(ACTIVATION_GRADIENT if ACTIVATION_GRADIENT in kinds else WEIGHT_GRADIENT)]
    blocks = rows["block"].notna()
    rows = rows[blocks | ~rows["trial"].isin(rows.loc[blocks, "trial"])]
    places = rows.groupby(["trial", "arm", "epoch"])["position"].rank(method="dense")
    return rows.assign(position=places.astype("int64"))


# --- sentences


def _sentences(trials: pd.DataFrame, records: pd.DataFrame, tables: Tables) -> Iterable[Said]:
    degraded = dict(_degraded(trials, records, tables))
    for arm, own in trials.groupby("arm", sort=False):
        found: dict[str, list[tuple[int, int, Finding]]] = {}
        epochs = of_gradients = 0
        for trial, seed in zip(own["trial"], own["seed"], strict=True):
            for epoch, table in tables.get(trial, ()):
                epochs += 1
                of_gradients += not {ACTIVATION_GRADIENT, WEIGHT_GRADIENT}.isdisjoint(table.kinds)
                for finding in describe(table):
                    found.setdefault(finding.kind, []).append((seed, epoch, finding))
        for kind, cases in found.items():
            smallest = kind in ("vanishing", "healthy")
            seed, epoch, worst = (min if smallest else max)(cases, key=lambda case: case[2].value)
            often = len({case[:2] for case in cases})
            extreme = "Lowest" if kind == "healthy" else "Furthest"
            text = f"{kind} in {often} of {_epochs(epochs)}. {extreme}, seed {seed}, epoch {epoch}: {worst.sentence}."
            yield Said(str(arm), kind, text, _FIGURES[kind])
        if arm in degraded:
            off = {case[:2] for kind in ("vanishing", "exploding") for case in found.get(kind, ())}
            # where gradients were not measured, or units are dead or steps unstable, nothing is known to be healthy
            kind = "healthy but degraded" if set(found) == {"healthy"} else "degraded"
            norms = (
                f"; gradients vanishing or exploding in {len(off)} of {_epochs(of_gradients)}" if of_gradients else ""
            )
            yield Said(str(arm), kind, f"{kind}: {degraded[str(arm)]}{norms}.", _FIGURES[kind])


def _degraded(trials: pd.DataFrame, records: pd.DataFrame, tables: Tables) -> Iterable[tuple[str, str]]:
    """Yield the arms whose training error is above a shallower one's that differs in one factor, and by how much."""
    rows = records[records["split"].eq("final-train") & records["name"].eq("error") & np.isfinite(records["value"])]
    errors: dict[str, list[float]] = {str(arm): list(own["value"]) for arm, own in rows.groupby("arm", sort=False)}
    depth: dict[str, int] = {
        str(arm): max(_depth(table) for _, table in tables[trial])
        for arm, trial in trials[["arm", "trial"]].to_numpy().tolist()
        if trial in tables
    }
    known = trials.drop_duplicates("arm")
    arms = [
        (str(arm), str(base), factors)
        for arm, base, factors in zip(known["arm"], known["base"], known["factors"], strict=True)
        if arm in errors and arm in depth
    ]
    for arm, base, factors in arms:
        shallower = [
            other
            for other, other_base, other_factors in arms
            if other_base == base
            and depth[other] < depth[arm]
            and sum(factors.get(key) != other_factors.get(key) for key in {*factors, *other_factors}) == 1
        ]
        mean = {name: float(np.mean(errors[name])) for name in (arm, *shallower)}
        best = min(shallower, key=mean.__getitem__, default=arm)
        if mean[arm] - mean[best] >= DEGRADED:
            yield (
                arm,
                f"final training error {mean[arm]:.2f}% (mean of {_trials(len(errors[arm]))}) against {mean[best]:.2f}%"
                f" of {best} ({_trials(len(errors[best]))})",
            )


def _depth(table: FlowTable) -> int:
    """Return a network's blocks, or in one without blocks its weights, or modules where no weight was measured.

    Blocks first, for a projection on a shortcut is a weight and a normalisation a module, and neither makes depth.
    """
    weights = len(table.series(WEIGHT_GRADIENT)[0])
    return len(table.blocks) or weights or max(Counter(table.kinds).values(), default=0)


# --- early flow and final error


def _early_flow(trials: pd.DataFrame, records: pd.DataFrame, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    rows = of_gradients(frame)
    rows = rows[rows["epoch"].eq(1) & np.isfinite(rows["value"])].sort_values("position")
    ends = rows.groupby(["trial", "arm", "base", "seed"], sort=False)["value"].agg(["first", "last", "count"])
    ends = ends[ends["count"].gt(1) & ends["last"].gt(0)].reset_index()
    # a norm of 0 is one below what float32 holds
    least = float(np.finfo(np.float32).smallest_subnormal)
    ends["ratio"] = np.log10(np.maximum(ends["first"], least) / ends["last"])
    errors = records[records["split"].eq("final-test") & records["name"].eq("error") & np.isfinite(records["value"])]
    pairs = ends.merge(errors[["trial", "arm", "value"]].rename(columns={"value": "error"}), on=["trial", "arm"])
    early = pairs[["trial", "arm", "base", "seed", "ratio", "error"]]
    pairs = early.drop_duplicates("trial")
    what = "log10 of the first over the last layer's gradient norm in epoch 1, and final test error"
    lost = int(trials.drop_duplicates("trial")["state"].eq("diverged").sum())
    aside = f" The {_trials(lost)} that diverged ha{'s' if lost == 1 else 've'} no final error." if lost else ""
    if len(pairs) < FEWEST_TRIALS:
        few = f"Early flow against final error needs {FEWEST_TRIALS} trials with both; there are {len(pairs)}."
        return early, few + aside
    found = spearman(pairs["ratio"], pairs["error"])
    if found.rho is None:
        return early, f"Across {_trials(len(pairs))}, one of the two never varies: {what}." + aside
    interval = f"95% bootstrap interval {found.ci95[0]:.2f} to {found.ci95[1]:.2f}" if found.ci95 else "no interval"
    return early, (
        f"Across {_trials(len(pairs))}: {what} have Spearman's rank correlation {found.rho:.2f} ({interval})."
        f" Trials of different arms differ in more than their flow, so this tells what went together.{aside}"
    )


# --- deeper probes


def _seen(name: str, about: str, trials: pd.DataFrame, looks: Looks) -> Seen:
    frames, failed = [], dict[str, Counter[str]]()
    images, batch_statistics = set(), set()
    for trial, arm, base, seed in trials[["trial", "arm", "base", "seed"]].to_numpy().tolist():
        for epoch, look in looks.get(trial, ()):
            if look.reason:
                failed.setdefault(look.reason, Counter())[arm] += 1
                continue
            images.add(look.images)
            if look.batch_statistics:
                batch_statistics.add(epoch)
            columns = [column for column in look.frame.columns if column not in PLACE]
            frames.append(look.frame[columns].assign(arm=arm, base=base, seed=seed, epoch=epoch)[[*PLACE, *columns]])
    how = f"Of {_listed(sorted(images))} validation images, the same for every arm." if images else ""
    if 0 in batch_statistics:
        how += " Before the first step, epoch 0, batch normalisation used the batch's own statistics."
    lines = tuple(f"Not measured in {_arms(arms)}: {reason}" for reason, arms in failed.items())
    return Seen(name, about, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(), how, lines)


PLACE = ["arm", "base", "seed", "epoch"]
SHOWN_ARMS = 4


def _arms(arms: Counter[str]) -> str:
    more = f" and {len(arms) - SHOWN_ARMS} more arms" if len(arms) > SHOWN_ARMS else ""
    return f"{', '.join(list(arms)[:SHOWN_ARMS])}{more} (tried {_times(arms.total())})"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


# --- cost


def _cost(records: pd.DataFrame, tables: Tables, looks: Mapping[str, Looks]) -> Iterator[str]:
    times = records[records["split"].eq("time") & records["name"].eq("seconds")].drop_duplicates(["trial", "epoch"])
    known = times.set_index(["trial", "epoch"])["value"]
    own = [
        (table.seconds, known[trial, epoch])
        for trial, epochs in tables.items()
        for epoch, table in epochs
        if (trial, epoch) in known.index
    ]
    if own:
        probes, training = (sum(column) for column in zip(*own, strict=True))
        yield (
            f"Measuring took {probes / training:.1%} of this study's training time ({probes:.1f} of {training:.0f} s),"
            " by the probes' own clock on the host. What their hooks cost PyTorch beside that, it does not see:"
            " python -m benchmarks.probes compares steps with and without them."
        )
    elif tables:
        yield "What measuring took is not known: no epoch was finished; python -m benchmarks.probes measures it."
    if looks:
        spent = {
            name: sum(look.seconds for epochs in found.values() for _, look in epochs) for name, found in looks.items()
        }
        looked_into = {trial for found in looks.values() for trial in found}
        training = float(times.loc[times["trial"].isin(looked_into), "value"].sum())
        ratio = sum(spent.values()) / training if training else 0.0
        share = f" ({ratio:.1%} of it)" if 0 < ratio < 1 else f" ({ratio:.1f} times as long)" if ratio else ""
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items())
        yield f"The deeper probes took {sum(spent.values()):.1f} s beside the training time{share}: {each}."


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''} measured"


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''}"
