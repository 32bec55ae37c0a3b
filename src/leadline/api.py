"""The way in: a study that plans, runs and reports itself, its results, and training alone."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from leadline.errors import LeadlineError, StoreError, unknown
from leadline.parts.base import Spec
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd
    import torch

    from leadline.planning.plan import Plan
    from leadline.record import Record
    from leadline.running.driving import Outcome, Screen
    from leadline.running.executors import Executor
    from leadline.store import Store
    from leadline.verdict import Findings


class Study:
    """Arms that differ in one thing, trained on the same data in the same order, and the contrasts to decide.

    Args:
        name: the study's name in the ledger.
        arms: name -> a network: a specification, the name of a family, custom code (a function or class that
            returns a module), or a mapping with `network` and what else differs, as in a study file.
        keys: the further keys of a study file, such as `data`, `training`, `vary`, `seeds`, `contrasts`, `decide`,
            `tune` and `match`. Values may be plain data or specifications, and custom functions or classes
            where a file refers to code.

    Raises:
        SpecError: a key or value is not possible.

    Example:
        >>> import leadline as ll
        >>> study = ll.Study(
        ...     "mine",
        ...     arms={"plain": ll.networks.comparative_plain(blocks=2), "residual": "comparative-resnet"},
        ...     data={"name": "digits", "train": 100, "test": 50},
        ...     training={"epochs": 1},
        ...     seeds=2,
        ... )
        >>> study
        Study('mine': 2 arms, 4 trials)
    """

    def __init__(self, name: str, *, arms: Mapping[str, object], **keys: object) -> None:
        given = {arm: one if isinstance(one, Mapping) else {"network": one} for arm, one in arms.items()}
        self._expanded = load_study({"name": name, "arms": given, **keys})

    @classmethod
    def load(cls, study: str | Path | Mapping[str, object], changes: Mapping[str, object] | None = None) -> Self:
        """Return a ready study, one from a YAML file, or one from a mapping of the same keys.

        Args:
            study: a ready study's name, a path, or a mapping.
            changes: dotted key -> value, laid over the study, such as `{"training.epochs": 3}`.

        Raises:
            SpecError: there is no such study, or a key or value is not possible.

        Example:
            >>> import leadline as ll
            >>> ll.Study.load("demo", {"seeds": 1, "vary.blocks": [2]})
            Study('demo': 2 arms, 2 trials)
        """
        made = cls.__new__(cls)
        made._expanded = load_study(study, changes or {})
        return made

    @property
    def name(self) -> str:
        """The study's name in the ledger."""
        return self._expanded.name

    @property
    def spec(self) -> Spec:
        """What was asked for: a frozen specification, which no run changes."""
        return self._expanded.spec

    @property
    def expanded(self) -> ExpandedStudy:
        """The study spelled out: every arm at every level of the factors, and every contrast."""
        return self._expanded

    def __repr__(self) -> str:
        arms, trials = len(self._expanded.arms), sum(1 for _ in self._expanded.trials())
        return f"Study({self.name!r}: {arms} arms, {trials} trials)"

    def plan(
        self,
        runs: str | Path = "runs",
        *,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
    ) -> "PlannedStudy":
        """Return what the study will take; a few training steps of each network are timed on random images.

        Args:
            runs: the folder where the store will be, whose free disk space is looked at.
            data_dir: the folder of the data sets; None: the default one.
            workers: worker processes; None: one per core, or one on a GPU.
            device: `cpu`, `cuda`, `cuda:N` or `auto`.

        Raises:
            LeadlineError: the device or data are not there, or a network cannot take the data's images.
        """
        from leadline.console import progress_bar
        from leadline.planning.plan import plan
        from leadline.study.match import match

        folder = None if data_dir is None else Path(data_dir)
        with progress_bar("timing networks") as progress:
            return PlannedStudy(
                plan(match(self._expanded, folder), Path(runs), folder, device, workers, progress=progress)
            )

    def run(
        self,
        runs: str | Path = "runs",
        *,
        store: str | None = None,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
        devices: int | None = None,
        checkpoint_every: str = "10m",
        artifacts: str | None = None,
        progress: bool = True,
        executor: "Executor | None" = None,
    ) -> "Results":
        """Match, tune and train what is left of the study, round by round where it decides, and return its results.

        A study that was stopped goes on where it was: run it again.

        Args:
            runs: the folder of the checkpoints and of the default store; created if missing.
            store: URL of the store, SQLite or PostgreSQL; None: `leadline.db` in the runs folder.
            data_dir: the folder of the data sets; None: the default one.
            workers: worker processes; None: one per core, or one on a GPU; 0: train inside this process.
            device: `cpu`, `cuda`, `cuda:N` or `auto`.
            devices: devices that train each trial together; None: as many as the study says.
            checkpoint_every: time or steps between checkpoints within an epoch, such as `10m` or `500steps`.
            artifacts: a folder or URL where checkpoints are kept as well.
            progress: whether to show a progress bar, in a terminal or a notebook.
            executor: runs the trials elsewhere, such as on a Ray cluster; None: this machine does.

        Returns:
            The results so far; `results.outcome` says how the run ended, also if trials failed or it was interrupted.

        Raises:
            LeadlineError: something makes the whole study impossible: its data, its store, its device, or a network
                that cannot take the data's images.
        """
        from leadline.console import Terminal
        from leadline.running.checkpoints import Interval
        from leadline.running.driving import UNSEEN
        from leadline.study.pipeline import run_study

        screen: Screen = Terminal() if progress else UNSEEN
        outcome = run_study(
            self._expanded,
            Path(runs),
            store,
            None if data_dir is None else Path(data_dir),
            workers,
            device,
            screen,
            executor,
            Interval.parse(checkpoint_every),
            devices,
            artifacts,
        )
        if outcome.failed and progress:
            screen.say(outcome.last_line())
        return Results(self.name, Path(runs), store, None if data_dir is None else Path(data_dir), outcome)


@dataclass(frozen=True, repr=False)
class PlannedStudy:
    """What a study will take; it prints and displays itself."""

    plan: "Plan"

    def __str__(self) -> str:
        from leadline.planning.words import to_text

        return to_text(self.plan)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        from leadline.planning.words import to_json

        return to_json(self.plan)


class Results:
    """What a study's trials left in a store: frames, the verdict, figures, the report, trained networks.

    Everything is read from the store when it is asked for, so results of a study that is running show how far it is.
    """

    def __init__(
        self,
        name: str,
        runs: Path,
        store: str | None = None,
        data_dir: Path | None = None,
        outcome: "Outcome | None" = None,
    ) -> None:
        """Refer to the results of a study; see `open`."""
        self.name = name
        self.outcome = outcome
        self._runs, self._url, self._data_dir = runs, store, data_dir

    @classmethod
    def open(
        cls,
        name: str,
        runs: str | Path = "runs",
        *,
        store: str | None = None,
        data_dir: str | Path | None = None,
    ) -> Self:
        """Return the results of a study that was run before, here or elsewhere.

        Args:
            name: the study's name in the store.
            runs: the folder of the checkpoints and of the default store.
            store: URL of the store; None: `leadline.db` in the runs folder.
            data_dir: the folder of the data sets, which `network` and some figures need; None: the default one.

        Raises:
            StoreError: there is no such store, or no such study in it.
        """
        found = cls(name, Path(runs), store, None if data_dir is None else Path(data_dir))
        with found._store() as opened:
            opened.study(name)
        return found

    def _store(self) -> "Store":
        from leadline.store import Store

        return Store.open_existing(self._runs, self._url)

    def __repr__(self) -> str:
        with self._store() as store:
            counts = {state: count for state, count in store.counts(self.name).items() if count}
        return f"Results({self.name!r}: {', '.join(f'{count} {state}' for state, count in counts.items())})"

    @property
    def trials(self) -> "pd.DataFrame":
        """A row for each trial, in the study's order.

        Columns: trial (hash), arm, base (the arm without its levels), factors (a dict), seed, state (waiting, running,
        finished, diverged or failed), error (text or None), diverged_step (optimizer step or NA), started and ended
        (UTC or NaT), seconds (training time or NaN), environment (a dict or None), note (text or None).
        """
        with self._store() as store:
            return store.trials_frame(self.name)

    @property
    def records(self) -> "pd.DataFrame":
        """A row for each measured value, by trial, epoch and step.

        Columns: trial (hash), arm, base, seed, step (optimizer steps done), epoch (epochs done), split (such as train,
        validation or final-test), name (such as loss in nats, accuracy as a fraction, error in per cent), value.
        """
        with self._store() as store:
            return store.records_frame(self.name)

    @property
    def predictions(self) -> "pd.DataFrame":
        """A row for each finished trial and test image.

        Columns: trial (hash), arm, seed, image (its place in the test data, from 0), label (true class), predicted
        (predicted class), probability (of the predicted class, or NaN where probabilities were not kept).
        """
        import numpy as np
        import pandas as pd

        with self._store() as store:
            outputs, trials = store.outputs(self.name), store.trials_frame(self.name)
        parts = []
        for trial, arm, seed in zip(trials["trial"], trials["arm"], trials["seed"], strict=True):
            if (one := outputs.get(trial)) is None:
                continue
            confidence = np.full(len(one.labels), np.nan) if one.probabilities is None else one.probabilities.max(1)
            columns = {"trial": trial, "arm": arm, "seed": seed, "image": np.arange(len(one.labels))}
            columns |= {"label": one.labels, "predicted": one.predicted, "probability": confidence.astype(float)}
            parts.append(pd.DataFrame(columns))
        names = ["trial", "arm", "seed", "image", "label", "predicted", "probability"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def verdict(self) -> "Verdict":
        """Return which arms are better, by how much and how sure that is, so far."""
        from leadline.reports.writing import read_findings

        with self._store() as store:
            return Verdict(read_findings(store, self.name))

    @property
    def figures(self) -> "Mapping[str, alt.ConcatChart]":
        """Every figure of the report by name, as an Altair chart, which displays itself in a notebook."""
        from leadline.reports.page import draw_figures
        from leadline.reports.writing import read_study

        with self._store() as store:
            one = read_study(store, self.name, self._data_dir)
        drawn = draw_figures(one.findings, one.trials, one.records, one.diagnostics, one.sections)
        return {figure.name: figure.chart() for figure in drawn if figure.panels}

    def report(self, folder: str | Path) -> str:
        """Write the study's report into a folder and return the path, or URL, of its HTML file.

        The folder gets one HTML file that opens without a network, figures as SVG and PDF, and tables as CSV, Markdown
        and LaTeX.

        Args:
            folder: a folder, created if missing, or the URL of one.

        Raises:
            LeadlineError: a file cannot be written.
        """
        from leadline.artifacts import destination
        from leadline.reports.writing import write_report

        with self._store() as store, destination(str(folder)) as place:
            path = write_report(store, self.name, place, self._data_dir)
            return f"{str(folder).rstrip('/')}/{path.relative_to(place)}"

    def network(self, arm: str, seed: int = 0) -> "torch.nn.Module":
        """Return the trained network of an arm at a seed, in evaluation mode.

        Args:
            arm: the arm's name, with its levels where factors are varied, such as `residual[blocks=10]`.
            seed: one of the study's.

        Raises:
            StoreError: there is no such arm or seed, or its trial has not finished.
        """
        from leadline.export import from_trial

        with self._store() as store:
            trials = store.trials_frame(self.name)
            of_arm = trials[trials["arm"].eq(arm)]
            if of_arm.empty:
                raise StoreError(f"study {self.name}: {unknown('arm', arm, set(trials['arm']))}")
            found = of_arm.loc[of_arm["seed"].eq(seed), "trial"]
            if found.empty:
                seeds = ", ".join(map(str, sorted(of_arm["seed"])))
                raise StoreError(f"study {self.name}: arm {arm} has no seed {seed}; its seeds: {seeds}")
            return from_trial(store, str(found.iloc[0]), self._data_dir).model


class Verdict:
    """Which arms are better, by how much and how sure that is; it prints in words and displays itself in a notebook."""

    def __init__(self, findings: "Findings") -> None:
        """Wrap what `leadline.verdict.analyze` found."""
        self.findings = findings

    @property
    def contrasts(self) -> "pd.DataFrame":
        """A row for each contrast; the columns are those of `contrasts.csv` in a report, named as in `to_json`."""
        from leadline.tables import to_frame
        from leadline.verdict import contrasts_table

        return to_frame(contrasts_table(self.findings))

    @property
    def arms(self) -> "pd.DataFrame":
        """A row for each arm; the columns are those of `arms.csv` in a report, named as in `to_json`."""
        from leadline.tables import to_frame
        from leadline.verdict import arms_table

        return to_frame(arms_table(self.findings))

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain data, as `leadline verdict --json` prints it."""
        from leadline.verdict import to_json

        return to_json(self.findings)

    def __str__(self) -> str:
        from leadline.verdict import to_text

        return to_text(self.findings)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from leadline.tables import to_html
        from leadline.verdict import arms_table, contrasts_table, headline, notes

        lines = "".join(f"<p>{html.escape(line)}</p>" for line in headline(self.findings))
        tables = "".join(to_html(one(self.findings)) for one in (arms_table, contrasts_table))
        cautions = "".join(f"<li>{html.escape(note)}</li>" for note in notes(self.findings))
        return f"{lines}{tables}<ul>{cautions}</ul>"


def train(
    network: object,
    data: object,
    recipe: object = None,
    seed: int = 0,
    *,
    device: str = "cpu",
    data_dir: str | Path | None = None,
) -> "Iterator[Record]":
    """Train one network and yield what is measured; a study trains each of its trials by the same loop.

    Args:
        network: a specification, the name of a family, a reference to code, or a module, which is trained in place.
        data: a data set's name, its specification, a function that returns `Arrays`, or a data set that is loaded.
        recipe: a `TrainingSpec` or a mapping of its keys; None: its defaults.
        seed: of the initial weights (of a specification), the order of the images, augmentation and noise.
        device: `cpu`, `cuda`, `cuda:N` or `auto`.
        data_dir: the folder of the data sets; None: the default one.

    Yields:
        Records: while an epoch runs of the loss, after it of training and validation, at the end of all splits.

    Raises:
        LeadlineError: the data, network or recipe are not possible.
        Diverged: the training loss was not finite.

    Example:
        >>> import leadline as ll
        >>> network = ll.networks.comparative_resnet(blocks=1)
        >>> records = list(ll.train(network, {"name": "digits", "train": 64, "test": 50}, {"epochs": 1}, seed=0))
        >>> records[-1].split, records[0].split
        ('final-test', 'train')
    """
    from torch import nn

    from leadline.data.batches import Data, load
    from leadline.nets import build
    from leadline.spec import DataSpec, TrainingSpec, TrialSpec, parse
    from leadline.study.expand import resolve_network
    from leadline.training import choose_device, prepare
    from leadline.training import train as run_loop

    spec = recipe if isinstance(recipe, TrainingSpec) else parse(TrainingSpec, recipe or {})
    place = choose_device(device)
    if isinstance(data, Data):
        loaded = data
    else:
        asked = data if isinstance(data, DataSpec) else parse(TrialSpec, {"network": _ANY, "data": data}).data
        loaded = load(asked, None if data_dir is None else Path(data_dir))
    loaded = loaded.to(place)
    if not isinstance(network, nn.Module):
        if not isinstance(network, Spec):
            network = resolve_network(network if isinstance(network, str | Mapping) else _refer(network))
        network = build(network, loaded.shape, loaded.classes, seed)  # type: ignore[arg-type]
    yield from run_loop(prepare(network, spec, place), loaded, spec, seed)


_ANY = {"module": "torch.nn:Identity"}  # for a specification of data is parsed as a part of a trial's


def _refer(network: object) -> Mapping[str, Any]:
    from leadline.parts.reference import refer

    if not callable(network):
        raise LeadlineError(f"network {network!r}: expected a specification, a family's name, a function or a module")
    return refer(network)


__all__: Sequence[str] = ["PlannedStudy", "Results", "Study", "Verdict", "train"]
