"""The `Study` class and its plan."""

import html
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from leadline.api.results import Results
from leadline.errors import LeadlineError, SpecError
from leadline.parts.base import Spec
from leadline.parts.code import identify
from leadline.parts.reference import is_local, references
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study

if TYPE_CHECKING:
    from leadline.api.variance import Variance
    from leadline.running.driving import Screen
    from leadline.running.executors import Executor
    from leadline.study.planning.plan import Plan


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
        SpecError: a key or value is invalid.

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
        if not isinstance(arms, Mapping):
            raise SpecError(f"arms: expected a mapping of name to network, got a {type(arms).__name__}")
        given = {arm: one if isinstance(one, Mapping) else {"network": one} for arm, one in arms.items()}
        self._set_expanded(load_study({"name": name, "arms": given, **keys}))

    def _set_expanded(self, expanded: ExpandedStudy) -> None:
        self._expanded = expanded
        used = set().union(*(references(arm.trial.model_dump(mode="json")) for arm in expanded.arms))
        self._local = {name: identify(name) for name in used if is_local(name)}

    def _check_local(self) -> None:
        """Check that code defined in a notebook has not changed, because the study would use the new code.

        Raises:
            SpecError: a function or class has changed since the study was created.
        """
        for name, identity in self._local.items():
            if identify(name) != identity:
                raise SpecError(f"{name}: it, or what it uses, has changed since this study was made; make it again")

    @classmethod
    def load(cls, study: str | Path | Mapping[str, object], changes: Mapping[str, object] | None = None) -> Self:
        """Return a ready study, one from a YAML file, or one from a mapping of the same keys.

        Args:
            study: a ready study's name, a path, or a mapping.
            changes: dotted key -> value; these override the study, such as `{"training.epochs": 3}`.

        Raises:
            SpecError: there is no such study, or a key or value is invalid.

        Example:
            >>> import leadline as ll
            >>> ll.Study.load("demo", {"seeds": 1, "vary.blocks": [2]})
            Study('demo': 2 arms, 2 trials)
        """
        made = cls.__new__(cls)
        made._set_expanded(load_study(study, changes or {}))
        return made

    @property
    def name(self) -> str:
        """The study's name in the ledger."""
        return self._expanded.name

    @property
    def spec(self) -> Spec:
        """The study's specification, which is frozen and never changed by a run."""
        return self._expanded.spec

    @property
    def expanded(self) -> ExpandedStudy:
        """The expanded study: every arm at every level of the factors, and every contrast."""
        return self._expanded

    def __repr__(self) -> str:
        arms, trials = len(self._expanded.arms), sum(1 for _ in self._expanded.trials())
        return f"Study({self.name!r}: {arms} arms, {trials} trials)"

    def plan(
        self,
        runs: str | Path = "runs",
        *,
        store: str | None = None,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
        pilot: str | None = None,
        deviations: Sequence[float] = (),
        time: bool = False,
    ) -> "PlannedStudy":
        """Estimate the cost of the study from what its networks call and from how fast this machine is.

        The machine is calibrated the first time, which takes some seconds. Networks that were timed before, with as
        many at once, are not estimated.

        Args:
            runs: the folder where the store will be, whose free disk space is measured.
            store: URL of the store that holds the pilot; None: `leadline.db` in the runs folder.
            data_dir: the folder of the data sets; None: the default one.
            workers: worker processes; None: one per core; on CUDA no more than there is memory for.
            device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
            pilot: name of a completed study whose paired differences are used to estimate the number of seeds.
            deviations: standard deviations of paired differences, in points, for which to estimate the number of seeds.
            time: whether to time a few training steps of each network on random images, which takes up to minutes.

        Raises:
            LeadlineError: the device or data are not available, a network does not accept the data's images, or the
                store has no such pilot.
        """
        from leadline.networks.modules.shapes import remember_shapes
        from leadline.running.console import Terminal
        from leadline.study.check import check_networks
        from leadline.study.match import match
        from leadline.study.planning.plan import plan
        from leadline.study.planning.seeds import seeds_by_deviation, seeds_by_pilot
        from leadline.text.terminal import progress_bar

        self._check_local()
        folder = None if data_dir is None else Path(data_dir)
        with remember_shapes():
            check_networks(self._expanded, folder)
            matched = match(self._expanded, folder)
        seeds = seeds_by_deviation(matched, deviations)
        if pilot is not None:
            seeds += seeds_by_pilot(matched, Results.open(pilot, runs, store=store).verdict().findings)
        with progress_bar("timing networks") if time else nullcontext(lambda done, all_: None) as progress:
            return PlannedStudy(
                plan(
                    matched,
                    Path(runs),
                    folder,
                    device,
                    workers,
                    seeds=seeds,
                    time=time,
                    say=Terminal().say,
                    progress=progress,
                )
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
        replace: bool = False,
        trials_per_worker: int = 1,
        log: str | None = None,
        log_folder: str | Path | None = None,
    ) -> "Results":
        """Match, tune and train the unfinished part of the study, in rounds if it has `decide`, and return its results.

        Run a study again to continue it after it was stopped.

        Args:
            runs: the folder of the checkpoints and of the default store; created if missing.
            store: URL of the store, SQLite or PostgreSQL; None: `leadline.db` in the runs folder.
            data_dir: the folder of the data sets; None: the default one.
            workers: worker processes; None: one per core; on CUDA no more than there is memory for; 0: train inside
                this process.
            device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
            devices: devices that train each trial together; None: as many as the study says.
            checkpoint_every: time or steps between checkpoints within an epoch, such as `10m` or `500steps`, or `epoch`
                for none. Epochs end with one too; if this is a time, very short epochs share one.
            artifacts: a folder or URL to which checkpoints are also copied.
            progress: whether to show a progress bar, in a terminal or a notebook.
            executor: runs the trials elsewhere, such as on a Ray cluster; None: run them on this machine.
            replace: whether an earlier study of this name, whose results do not belong to this one, is renamed, so
                that it keeps them.
            trials_per_worker: trials that each worker process trains at once, each in a thread: for networks that leave
                most of a card idle.
            log: `tensorboard`, `wandb` or `mlflow`: write the runs there while they train, by a process of its own;
                None: write them nowhere.
            log_folder: where it keeps them; None: a folder of its name in the runs folder.

        Returns:
            The results so far; `results.outcome` says how the run ended, even if trials failed or it was interrupted.

        Raises:
            LeadlineError: the study as a whole cannot run because of its data, its store, its device, a network
                that does not accept the data's images, or results under its name that are not its own.
        """
        from leadline.running.checkpoints import Interval
        from leadline.running.console import Terminal
        from leadline.running.driving import SILENT
        from leadline.running.logging import Log
        from leadline.study.pipeline import run_study

        self._check_local()
        screen: Screen = Terminal() if progress else SILENT
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
            replace,
            trials_per_worker,
            None if log is None else Log(log, None if log_folder is None else Path(log_folder)),
        )
        return Results(self.name, Path(runs), store, None if data_dir is None else Path(data_dir), outcome)

    def variance(
        self,
        arm: str | None = None,
        levels: int = 5,
        runs: str | Path = "runs",
        *,
        store: str | None = None,
        data_dir: str | Path | None = None,
        workers: int | None = None,
        device: str = "auto",
        progress: bool = True,
    ) -> "Variance":
        """Run a study of where the spread between this study's seeds comes from, and return what it shows.

        It has the name of this study with `.variance` and levels^2 trials of each arm, at seeds by source that are
        arranged in an orthogonal array, and is continued where it stopped.

        Args:
            arm: the only arm, without its levels; None: all arms, and the differences between them.
            levels: seeds of each source of randomness, an odd prime: 3, 5, 7, 11 or 13.
            runs, store, data_dir, workers, device, progress: as for `run`.

        Raises:
            SpecError: there is no such arm or design, or the study tunes its arms.
            LeadlineError: as `run`; or no arm has finished all its trials.

        Example:
            >>> import tempfile
            >>> import leadline as ll
            >>> small = {"name": "digits", "train": 60, "test": 40}
            >>> study = ll.Study("tiny", arms={"mlp": "mlp"}, data=small, training={"epochs": 1, "batch_size": 10})
            >>> with tempfile.TemporaryDirectory() as runs:
            ...     found = study.variance(levels=3, runs=runs, workers=0, progress=False)
            >>> list(found.frame["name"])
            ['initial weights', 'order', 'choice of images', 'test images', 'what is left']
        """
        from leadline.analysis.variance import analyze_variance
        from leadline.api.variance import Variance
        from leadline.running.repeating import repeats
        from leadline.study.variance import variance_study

        study = Study.__new__(Study)
        folder = None if data_dir is None else Path(data_dir)
        study._set_expanded(variance_study(self._expanded, arm, levels, folder))
        options = {"store": store, "data_dir": data_dir, "device": device}
        results = study.run(runs, workers=workers, progress=progress, **options)  # type: ignore[arg-type]
        with results._store() as opened:
            trials = opened.trials_frame(study.name)
            found = analyze_variance(opened.study(study.name).expand(), trials, opened.outputs(study.name))
            if found is None:
                raise LeadlineError(
                    f"study {study.name}: no arm has finished all its trials with a spread; `leadline trials"
                    f" {study.name}` lists them, and the same command continues it"
                )
            first = trials.loc[trials["state"].eq("finished"), "trial"].iloc[0]
            folder = None if data_dir is None else Path(data_dir)
            return Variance(found, results, repeats(opened, study.name, first, folder, device))


@dataclass(frozen=True, repr=False)
class PlannedStudy:
    """The cost of a study; it can be printed and displays itself in a notebook."""

    plan: "Plan"

    def __str__(self) -> str:
        from leadline.study.planning.words import to_text

        return to_text(self.plan)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        from leadline.study.planning.words import to_json

        return to_json(self.plan)
