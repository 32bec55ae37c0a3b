"""The results of a study in a store: frames, the verdict, figures, the report, trained networks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from leadline.api.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from leadline.reports.charts.chart import FigureChart
    from leadline.reports.trackers.writing import Exported
    from leadline.running.driving import Outcome
    from leadline.seeds import SeedName
    from leadline.store import Store


class Results:
    """The results of a study in a store: frames, the verdict, figures, the report, trained networks.

    Everything is read from the store on access, so the results of a running study show its current progress.
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
        """Return the results of a study that has been run, on this or another machine.

        Args:
            name: the study's name in the store.
            runs: the folder of the checkpoints and of the default store.
            store: URL of the store; None: `leadline.db` in the runs folder.
            data_dir: the folder with the data sets, which `network` and some figures need; None: the default folder.

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
        """One row per trial, in the order of the study.

        Columns: trial (hash), arm, base (the arm without its levels), factors (a dict), seed, state (waiting, running,
        finished, diverged or failed), error (text or None), diverged_step (optimizer step or NA), created,
        started and ended (UTC or NaT), seconds (training time or NaN), environment (a dict or None), note (text or
        None).
        """
        with self._store() as store:
            return store.trials_frame(self.name)

    @property
    def records(self) -> "pd.DataFrame":
        """One row per measured value, by trial, epoch and step.

        Columns: trial (hash), arm, base, seed, step (optimizer steps done), epoch (epochs done), split (such as train,
        validation or final-test), name (such as loss in nats, accuracy as a fraction, error in per cent), value.
        """
        with self._store() as store:
            return store.records_frame(self.name)

    @property
    def predictions(self) -> "pd.DataFrame":
        """One row per finished trial and test image.

        Columns: trial (hash), arm, seed, image (index in the test data), label (true class), predicted (predicted
        class), probability (of the predicted class, or NaN if probabilities were not stored), label_name and
        predicted_name (names of the classes, or their numbers as text if the trial stored no names).
        """
        import numpy as np
        import pandas as pd

        from leadline.data.network_input import INPUT

        with self._store() as store:
            outputs, trials = store.outputs(self.name), store.trials_frame(self.name)
            inputs = store.measurements(self.name, INPUT)
        parts = []
        for trial, arm, seed in zip(trials["trial"], trials["arm"], trials["seed"], strict=True):
            if (one := outputs.get(trial)) is None:
                continue
            confidence = np.full(len(one.labels), np.nan) if one.probabilities is None else one.probabilities.max(1)
            columns = {"trial": trial, "arm": arm, "seed": seed, "image": np.arange(len(one.labels))}
            columns |= {"label": one.labels, "predicted": one.predicted, "probability": confidence.astype(float)}
            columns |= {f"{of}_name": _name_classes(columns[of], inputs.get(trial)) for of in ("label", "predicted")}
            parts.append(pd.DataFrame(columns))
        names = ["trial", "arm", "seed", "image", "label", "predicted", "probability"]
        names += ["label_name", "predicted_name"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def verdict(self) -> "Verdict":
        """Return the current verdict: which arms are better, by how much, and with what confidence."""
        from leadline.reports.stored import read_findings

        with self._store() as store:
            return Verdict(read_findings(store, self.name))

    @property
    def figures(self) -> "Mapping[str, FigureChart]":
        """Return every figure of the report by name, as an Altair chart that displays itself in a notebook.

        A notebook shows an SVG image, which needs no network; `altair.renderers.enable` makes it interactive.
        """
        from leadline.reports.page import draw_figures
        from leadline.reports.writing import read_study

        with self._store() as store:
            one = read_study(store, self.name, self._data_dir)
        drawn = draw_figures(one.findings, one.trials, one.records, one.diagnostics, one.sections, one.curves)
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
        from leadline.reports.writing import write_report
        from leadline.store.artifacts import destination

        with self._store() as store, destination(str(folder)) as place:
            path = write_report(store, self.name, place, self._data_dir)
            return f"{str(folder).rstrip('/')}/{path.relative_to(place)}"

    def export_runs(self, to: str, folder: str | Path) -> "Exported":
        """Write the runs to an experiment tracker: values by epoch, specifications, and the verdict.

        Runs that are there and have not changed are left alone, others are written anew, and those of trials that the
        study no longer has are removed.

        Args:
            to: `tensorboard`; `wandb`, as offline runs; or `mlflow`, as a SQLite file.
            folder: where the tracker keeps runs, also of other studies; created if missing.

        Returns:
            The numbers of runs `written`, `unchanged` and `waiting` (those without values), and the command `next`
            that shows them.

        Raises:
            SpecError: there is no such tracker.
            LeadlineError: it is not installed, or the folder cannot be written.
        """
        from leadline.reports.trackers.writing import export_runs
        from leadline.store.following import Follower

        with Follower.open_existing(self._runs, self._url) as store:
            return export_runs(store, self.name, to, Path(folder))

    def network(self, arm: str, seed: "SeedName" = 0, averaged: bool = False) -> "torch.nn.Module":
        """Return the trained network of an arm at a seed, in evaluation mode.

        Args:
            arm: the arm's name, with its levels if factors are varied, such as `residual[blocks=10]`.
            seed: a seed of the study, or seeds by source as `trials` has them, such as `seed.init=1,seed.order=0`.
            averaged: return the network with the average of the weights that `training.averaging` keeps.

        Raises:
            StoreError: there is no such arm or seed, or its trial has not finished or has no average.
            DataError: batch statistics of the average are computed anew, and the data cannot be read or have changed.
        """
        from leadline.api.export import from_trial

        with self._store() as store:
            return from_trial(store, f"{self.name}/{arm}/{seed}", self._data_dir, averaged).model


def _name_classes(numbers: "np.ndarray[Any, Any]", stored: Sequence[tuple[int, bytes]] | None) -> list[str]:
    """Return the names of classes, [n], from what the trial stored about its input."""
    from leadline.data.network_input import NetworkInput

    names = None if not stored else NetworkInput.from_bytes(stored[-1][1]).class_names
    return [str(one) if names is None else names[one] for one in numbers.tolist()]
