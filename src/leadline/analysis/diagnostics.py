"""Diagnostics: what probes measured inside a study's networks, as frames and as statements of what is correlated."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from leadline.analysis.stats import spearman
from leadline.errors import DataError
from leadline.probes.measured import Measurement
from leadline.probes.snapshots import SnapshotProbe
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, KINDS, WEIGHT_GRADIENT, FlowTable, block_of
from leadline.probes.words import EXPLODED, MOSTLY_DEAD, UNSTABLE_UPDATE, VANISHED, Finding, describe, judges_flow
from leadline.seeds import call_seed
from leadline.specs import DataSpec
from leadline.text import join, magnitude, number, p_value, plural

DEGRADED = 1.0
"""Percentage points by which the final training error of a degraded arm exceeds that of a shallower one."""

FEWEST_CORRELATED = 5
"""Arms, or trials of a single arm, below which no correlation is given: of four, none can reach a p below 0.083."""

COLUMNS = ("trial", "arm", "base", "seed", "epoch", "kind", "layer", "position", "block", "value")
THRESHOLDS = (
    f"Thresholds: vanishing below {magnitude(VANISHED)} and exploding above {magnitude(EXPLODED)} times the gradient"
    f" norm of the last block; dead from {MOSTLY_DEAD:.0%} of a layer's units; unstable where one step changes a weight"
    f" by {UNSTABLE_UPDATE:.0%} of its norm or a gradient is not finite; degraded where the final training error is"
    f" {DEGRADED:.0f} percentage point or more above that of a shallower arm. Gradients and updates are judged by"
    f" their medians over the steps of an epoch, dead units over the whole epoch."
)

_FIGURES = {  # kind of statement -> name of the report's figure that shows it
    "vanishing": "gradient-flow",
    "exploding": "gradient-flow",
    "healthy": "gradient-flow",
    "degraded": "gradient-flow",
    "healthy but degraded": "gradient-flow",
    "dead": "dead-units",
    "unstable": "updates",
}


@dataclass(frozen=True)
class Statement:
    """A sentence about one arm, and the figure that shows what it is based on."""

    arm: str
    kind: str
    text: str
    figure: str


@dataclass(frozen=True)
class ProbeResult:
    """What one of the probes that run on snapshots measured in a study's networks."""

    name: str
    probe: SnapshotProbe
    frame: pd.DataFrame  # arm, base, seed, epoch (0: before the first step), then the probe's own columns
    how: str  # of which images, and with which statistics
    failures: tuple[str, ...] = ()  # where it could not measure, and why, a line for each reason


@dataclass(frozen=True)
class Diagnostics:
    """What was measured inside the networks of a study; empty where nothing was."""

    frame: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    statements: tuple[Statement, ...] = ()
    early: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["arm", "base", "seed", "ratio", "error"]))
    correlation: str = ""  # of early flow and final error, over arms
    cost: str = ""
    probes: tuple[ProbeResult, ...] = ()


NOTHING_MEASURED = Diagnostics()


TRAINING_TIME = ("time", "seconds")
"""Split and name of the records that tell how long training took."""

Stored = Mapping[str, Sequence[tuple[int, bytes]]]
"""Trial -> epoch and what a probe measured in it as bytes, in the order of epochs."""


def diagnose(
    trials: pd.DataFrame,
    records: pd.DataFrame,
    measured: Stored,
    probes: Mapping[str, tuple[SnapshotProbe, Stored]] = {},
    data: Mapping[str, DataSpec] = {},
) -> Diagnostics:
    """Return what a study's measurements show, those of diverged trials included.

    `Diagnostics.frame` has a row per trial, epoch and series of flow: columns trial, arm, base, seed, epoch, kind (see
    `leadline.probes.table`), layer, position (from 1 at the input, within its kind), block (likewise, or missing) and
    value: the median over the epoch's measured steps, of dead units the fraction at its end.

    Args:
        trials, records: as the store returns them.
        measured: flow tables.
        probes: by name, a probe and its `leadline.probes.measured.Measurement`s; epoch 0 is before the first step.
        data: by arm, its data, which tell whether arms have the same validation images.

    Raises:
        DataError: a measurement is damaged.
    """
    known = set(trials["trial"])
    tables = _read(measured, known, "flow", FlowTable.from_bytes)
    snapshots = {name: _read(stored, known, name, Measurement.from_bytes) for name, (_, stored) in probes.items()}
    snapshots = {name: found for name, found in snapshots.items() if found}
    if not snapshots and not any(len(table.steps) for epochs in tables.values() for _, table in epochs):
        return NOTHING_MEASURED
    frame = _frame(trials, tables)
    ends = _stopped_ends(records)
    early, correlation = (NOTHING_MEASURED.early, "") if frame.empty else _early_flow(trials, records, frame)
    return Diagnostics(
        frame,
        tuple(_statements(trials, records, tables)),
        early,
        correlation,
        " ".join(_cost(records, tables, snapshots)),
        tuple(_result(name, probes[name][0], trials, ends, found, data) for name, found in snapshots.items()),
    )


Read = TypeVar("Read")
Tables = Mapping[str, Sequence[tuple[int, FlowTable]]]
Snapshots = Mapping[str, Sequence[tuple[int, Measurement]]]


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


# --- statements


def _statements(trials: pd.DataFrame, records: pd.DataFrame, tables: Tables) -> Iterator[Statement]:
    degraded = dict(_degraded(trials, records, tables))
    for arm, own in trials.groupby("arm", sort=False):
        found: dict[str, list[tuple[int, int, Finding]]] = {}
        epochs = judged = 0
        for trial, seed in zip(own["trial"], own["seed"], strict=True):
            for epoch, table in tables.get(trial, ()):
                epochs += 1
                judged += judges_flow(table)
                for finding in describe(table):
                    found.setdefault(finding.kind, []).append((seed, epoch, finding))
        for kind, cases in found.items():
            smallest = kind in ("vanishing", "healthy")
            seed, epoch, worst = (min if smallest else max)(cases, key=lambda case: case[2].value)
            often = len({case[:2] for case in cases})
            extreme = "Lowest" if kind == "healthy" else "Most extreme"
            whole = _epochs(judged if kind in ("vanishing", "exploding", "healthy") else epochs, epochs)
            text = f"{kind} in {often} of {whole}. {extreme} at {call_seed(seed)}, epoch {epoch}: {worst.sentence}."
            yield Statement(str(arm), kind, text, _FIGURES[kind])
        if arm in degraded:
            off = {case[:2] for kind in ("vanishing", "exploding") for case in found.get(kind, ())}
            # where gradients could not be judged, or units are dead or steps unstable, nothing is known to be healthy
            kind = "healthy but degraded" if set(found) == {"healthy"} else "degraded"
            norms = ""
            if judged:
                norms = f"; gradients vanishing or exploding in {len(off)} of {_epochs(judged, epochs)}"
            yield Statement(str(arm), kind, f"{kind}: {degraded[str(arm)]}{norms}.", _FIGURES[kind])


def _epochs(judged: int, measured: int) -> str:
    """Return a number of measured epochs in words, which are fewer than all where gradients could not be judged."""
    return plural(judged, "measured epoch") + (" that could be judged" if judged < measured else "")


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
                f"final training error {number(mean[arm])}% (mean of {plural(len(errors[arm]), 'trial')}) against"
                f" {number(mean[best])}% of {best} ({plural(len(errors[best]), 'trial')})",
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
    aside = f" {plural(lost, 'diverged trial has', 'diverged trials have')} no final error." if lost else ""
    # trials of one arm have much in common beside their flow, so arms are what was seen independently
    arms = pairs.groupby("arm", sort=False)[["ratio", "error"]].mean()
    seen, unit = (arms, "arm") if len(arms) > 1 else (pairs, "trial")
    if len(seen) < FEWEST_CORRELATED:
        return early, (
            f"The correlation of early flow and final error needs {FEWEST_CORRELATED} {unit}s with both, but only"
            f" {len(seen)} {'has' if len(seen) == 1 else 'have'} them.{aside}"
        )
    found = spearman(seen["ratio"], seen["error"])
    among = f"the means of {len(arms)} arms ({len(pairs)} trials)" if len(arms) > 1 else f"{len(pairs)} trials"
    if found.rho is None:
        return early, f"Across {among}, one of the two does not vary: {what}.{aside}"
    caution = (
        "Arms differ in more than their flow, so this is correlation, not causation."
        if len(arms) > 1
        else "It is correlation, not causation."
    )
    return early, (
        f"Across {among}: {what} have Spearman's rank correlation {number(found.rho)} (permutation of {unit}s:"
        f" p = {p_value(found.p)}, smallest possible {p_value(found.p_smallest)}). {caution}{aside}"
    )


# --- probes of snapshots


def _stopped_ends(records: pd.DataFrame) -> dict[str, int]:
    """Return trial -> number of its epochs, where early stopping may have chosen the network of an earlier one."""
    ends = records[records["split"].eq("final-epochs") & records["name"].eq("trained")]
    return dict(zip(ends["trial"], ends["value"].astype("int64"), strict=True))


def _result(
    name: str,
    probe: SnapshotProbe,
    trials: pd.DataFrame,
    ends: Mapping[str, int],
    snapshots: Snapshots,
    data: Mapping[str, DataSpec],
) -> ProbeResult:
    frames, failed = [], dict[str, Counter[str]]()
    images, seen, batch_statistics, stopping = set(), set[str](), dict[str, bool](), dict[str, None]()
    for trial, arm, base, seed in trials[["trial", "arm", "base", "seed"]].to_numpy().tolist():
        for epoch, one in snapshots.get(trial, ()):
            if one.reason:
                failed.setdefault(one.reason, Counter())[arm] += 1
                continue
            images.add(one.images)
            seen.add(arm)
            if epoch == 0:
                batch_statistics[arm] = batch_statistics.get(arm, False) or one.batch_statistics
            if epoch == ends.get(trial):
                stopping[arm] = None
            columns = [column for column in one.frame.columns if column not in PLACE]
            frames.append(one.frame[columns].assign(arm=arm, base=base, seed=seed, epoch=epoch)[[*PLACE, *columns]])
    shared = _shared([data[arm] for arm in seen]) if len(images) == 1 and seen <= data.keys() else ""
    how = f"Measured on {' or '.join(map(str, sorted(images)))} validation images{shared}." if images else ""
    if images and probe.measures_loss:
        how += " The loss is the cross-entropy of their classes, whatever loss is minimised."
    if any(batch_statistics.values()):
        own = [arm for arm, used in batch_statistics.items() if used]
        where = "" if len(own) == len(batch_statistics) else f" of {join(own, SHOWN_ARMS)}"
        how += f" Before the first step (epoch 0), batch normalisation{where} used the statistics of the batch."
    if stopping:
        how += (
            f" Early stopping: what is shown of {join(list(stopping), SHOWN_ARMS)} after a trial's last epoch is the"
            " network of its best epoch."
        )
    lines = tuple(f"Not measured in {_arms(arms)}: {reason}" for reason, arms in failed.items())
    return ProbeResult(name, probe, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(), how, lines)


def _shared(data: Collection[DataSpec]) -> str:
    """Return whether arms with these data have the same validation images, as the end of a sentence; empty: unknown."""
    of_training = {"train": None, "augment": None, "label_noise": None}
    redrawn = {one.resample == "split" for one in data}
    if len(redrawn) > 1 or len({one.model_copy(update={**of_training, "resample": None}) for one in data}) > 1:
        return ""
    return f", the same for every arm{' at a seed' if True in redrawn else ''}"


PLACE = ["arm", "base", "seed", "epoch"]
SHOWN_ARMS = 4


def _arms(arms: Counter[str]) -> str:
    return f"{join(list(arms), SHOWN_ARMS)} ({plural(arms.total(), 'attempt')})"


# --- cost


def _cost(records: pd.DataFrame, tables: Tables, snapshots: Mapping[str, Snapshots]) -> Iterator[str]:
    split, name = TRAINING_TIME
    times = records[records["split"].eq(split) & records["name"].eq(name)].drop_duplicates(["trial", "epoch"])
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
            " timed by the probes themselves on the host. This does not include the overhead of their hooks inside"
            " PyTorch; python -m benchmarks.probes compares steps with and without them."
        )
    elif tables:
        yield (
            "The cost of measuring is unknown, because no epoch was finished; python -m benchmarks.probes measures it."
        )
    if snapshots:
        spent = {
            name: sum(one.seconds for epochs in found.values() for _, one in epochs)
            for name, found in snapshots.items()
        }
        probed = {trial for found in snapshots.values() for trial in found}
        training = float(times.loc[times["trial"].isin(probed), "value"].sum())
        ratio = sum(spent.values()) / training if training else 0.0
        share = f" ({ratio:.1%} of it)" if 0 < ratio < 1 else f" ({ratio:.1f} times as long)" if ratio else ""
        each = join([f"{name} {seconds:.1f} s" for name, seconds in spent.items()], len(spent))
        yield f"The snapshot probes took {sum(spent.values()):.1f} s on top of the training time{share}: {each}."
