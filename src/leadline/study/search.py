"""Tuning before comparing: every arm tries as many settings of the same spaces, and goes on with its best.

What a search tries are trials of the ledger, under a study of their own, NAME.tuning. A setting depends on the
sampler's seed, its number and what the settings before it gave, on nothing else: so a search that was killed goes on
where it was, and a search whose trials are all there is repeated from the ledger without training anything.
Validation data alone choose; trials of a search run at seeds that the study itself never uses.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leadline.analysis.verdict.tuned import Tuning, explain_tuning
from leadline.errors import LeadlineError, SpecError, not_installed
from leadline.seeds import TUNE, stream
from leadline.specs.study import SEARCH
from leadline.specs.tuning import IntegerSpace, LinearSpace, LogSpace, Space, TuneSpec, Values
from leadline.store.reading import Reader
from leadline.study.expand import Arm, ExpandedStudy, search_trial
from leadline.study.resolved import Searched

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FIRST_AT_RANDOM = 10
"""Settings that tpe draws at random before it has anything to learn from."""


@dataclass(frozen=True)
class _Setting:
    """One setting of an arm, and its trials: one at each seed."""

    values: Values
    trials: tuple[str, ...]


class Search:
    """Hyperparameter search of a study: run what `next` returns until it returns None; then call `tuned`."""

    def __init__(self, study: ExpandedStudy) -> None:
        """Start the search that the `tune` of a study asks for.

        Raises:
            LeadlineError: the study has no `tune`, or Optuna is not installed.
        """
        if study.spec.tune is None:
            raise LeadlineError(f"{study.name}: nothing is tuned; add `tune` to the study")
        _optuna()
        self.study = study
        self.tune: TuneSpec = study.spec.tune
        self.seeds = self.tune.seed_values(study.spec.seeds_taken)
        self._settings: dict[str, list[_Setting]] = {arm.name: [] for arm in study.arms}
        self._scores: dict[str, list[float]] = {}

    def next(self, store: Reader) -> ExpandedStudy | None:
        """Return the study to run next, with all settings so far and the new ones, or None if the search is complete.

        The arms are searched in parallel: each has as many open settings as its sampler can suggest at once.

        Raises:
            StoreError: the store cannot be read.
            SpecError: values that are valid one by one are invalid together.
        """
        results = _results(store, self.study.name + SEARCH)
        open_arms = [arm for arm in self.study.arms if not self._advance(arm, results)]
        return self._pending_study() if open_arms else None

    def tuned(self) -> ExpandedStudy:
        """Return the study with the best values of each arm; of equal ones, those tried first.

        Raises:
            LeadlineError: every setting of an arm diverged.
        """
        chosen = {}
        for name, settings in self._settings.items():
            scores = self._scores[name]
            best = min(range(len(scores)), key=scores.__getitem__)
            if math.isinf(scores[best]):
                raise LeadlineError(
                    f"{self.study.name}: all {len(scores)} settings of arm {name} diverged, so none can be chosen;"
                    f" change the search spaces of tune, or remove the arm"
                )
            chosen[name] = settings[best].values
        return self.study.resolve(chosen=chosen)

    def _advance(self, arm: Arm, results: Mapping[str, float]) -> bool:
        """Suggest settings until one has no result yet; return whether the budget is used up."""
        settings = self._settings[arm.name]
        while True:
            scores = [_score(setting, results) for setting in settings]
            known = [score for score in scores if score is not None]
            self._scores[arm.name] = known
            if len(known) < len(settings) or len(settings) == self.tune.budget:
                return len(known) == self.tune.budget
            tried = [setting.values for setting in settings]
            for number in range(len(settings), len(settings) + self._next_count(len(settings))):
                settings.append(self._setting(arm, suggest(self.tune, number, tried, known)))

    def _next_count(self, done: int) -> int:
        left = self.tune.budget - done
        if self.tune.sampler == "random":
            return left
        return min(left, FIRST_AT_RANDOM - done) if done < FIRST_AT_RANDOM else 1

    def _setting(self, arm: Arm, values: Values) -> _Setting:
        try:
            trial = search_trial(self.study.spec, arm, values)
        except SpecError as error:
            said = ", ".join(f"{key} {value}" for key, value in values.items())
            raise SpecError(f"tune: {said} for arm {arm.name}: {error}; change a space") from None
        at = (trial.with_seed(seed) for seed in self.seeds)
        return _Setting(values, tuple(one.content_hash for one in at))

    def _pending_study(self) -> ExpandedStudy:
        tried = {name: [setting.values for setting in settings] for name, settings in self._settings.items()}
        return self.study.resolve(search=Searched(seeds=list(self.seeds), tried=tried))


def _score(setting: _Setting, results: Mapping[str, float]) -> float | None:
    """Return the mean over the seeds: infinite if one diverged, None if one has no result yet."""
    found = [results[trial] for trial in setting.trials if trial in results]
    return sum(found) / len(found) if len(found) == len(setting.trials) else None


def _results(store: Reader, name: str) -> dict[str, float]:
    """Return trial -> final validation error in per cent, infinite where it diverged, of the trials that have ended."""
    if name not in {study.name for study in store.studies()}:
        return {}
    if not store.study(name).resolved.get("search"):
        raise SpecError(f"study {name} in the store is not a search, but has the name of one; rename the tuned study")
    trials, records = store.trials_frame(name), store.records_frame(name, splits=["final-validation"])
    errors = records[records["name"].eq("error")]
    found = dict(zip(errors["trial"], errors["value"].astype(float), strict=True))
    results = {}
    for trial, state in zip(trials["trial"], trials["state"], strict=True):
        if state == "diverged":
            results[trial] = math.inf
        elif state == "finished":
            if not math.isfinite(found.get(trial, math.nan)):
                raise LeadlineError(
                    f"{name}: trial {trial[:12]} has finished without a validation error, so its"
                    f" setting cannot be ranked"
                )
            results[trial] = found[trial]
    return results


def tuning_of(store: Reader, study: ExpandedStudy) -> Tuning | None:
    """Return what the search of a stored study shows; None where nothing was tuned.

    Raises:
        StoreError: the store cannot be read.
    """
    if study.resolved.chosen is None:
        return None
    name = study.name + SEARCH
    source = name if name in {one.name for one in store.studies()} else study.name
    return explain_tuning(study, store.trials_frame(source), store.records_frame(source, ["final-validation"]))


# --- the sampler


def suggest(tune: TuneSpec, number: int, tried: Sequence[Values], scores: Sequence[float]) -> Values:
    """Return setting `number`, from 0, of a search: a function of its arguments alone.

    Settings at random come from streams of their own, by number, so all arms try the same ones. The others come from a
    tree-structured Parzen estimator (Bergstra et al. 2011) of what was tried.

    Args:
        tune: the spaces, the sampler and its seed.
        number: of the setting.
        tried: the settings before it.
        scores: what each gave, lower is better; infinite is worst.

    Raises:
        LeadlineError: optuna is not installed.
    """
    optuna = _optuna()
    seed = stream(tune.seed, TUNE, number) % 2**32
    spaces = {key: _distribution(tune.space[key]) for key in sorted(tune.space)}
    if tune.sampler == "random" or number < FIRST_AT_RANDOM:
        sampler, known = optuna.samplers.RandomSampler(seed=seed), []
    else:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0)
        known = [
            optuna.trial.create_trial(params=values, distributions=spaces, value=score)
            for values, score in zip(tried, scores, strict=True)
        ]
    with _quieten(optuna):
        study = optuna.create_study(sampler=sampler)
        study.add_trials(known)
        drawn = study.ask(spaces).params
    return {key: drawn[key] for key in tune.space}


def _distribution(space: Space) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(space, LogSpace):
        return FloatDistribution(*space.log, log=True)
    if isinstance(space, LinearSpace):
        return FloatDistribution(*space.linear)
    return IntDistribution(*space.integer) if isinstance(space, IntegerSpace) else CategoricalDistribution(space.choice)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise LeadlineError(not_installed("tuning", "optuna", "tune")) from None
    return optuna


@contextmanager
def _quieten(optuna: Any) -> Iterator[None]:
    """Silence Optuna's log messages in the body, and restore the user's setting afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
