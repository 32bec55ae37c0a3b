"""Arms of stored studies by name, such as `demo/residual`, at each level of what their study varies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from leadline.analysis.verdict import Design, DesignArm, design_of
from leadline.errors import SpecError, StoreError, unknown
from leadline.parts.metrics import Outputs
from leadline.parts.reference import references
from leadline.seeds import SeedName
from leadline.specs import TrialSpec
from leadline.study.expand import Arm, ExpandedStudy
from leadline.text import join, plural

ENDED = ("finished", "diverged")
"""States of trials that a verdict counts."""


@dataclass(frozen=True)
class StoredStudy:
    """A study of a store: what it asks for, and what its trials gave."""

    study: ExpandedStudy
    trials: pd.DataFrame  # a row per trial
    records: pd.DataFrame  # a row per measured value
    outputs: Mapping[str, Outputs]  # trial -> what its network gave for the test images

    @cached_property
    def design(self) -> Design:
        """What its own verdict compares."""
        return design_of(self.study)


@dataclass(frozen=True)
class Side:
    """An arm at one level of everything that its study varies."""

    stored: StoredStudy
    arm: Arm

    @property
    def study(self) -> ExpandedStudy:
        """The study that it is an arm of."""
        return self.stored.study

    @property
    def name(self) -> str:
        """The study and the arm, such as `demo/residual[blocks=5]`."""
        return f"{self.study.name}/{self.arm.name}"

    @property
    def base(self) -> str:
        """The name without the levels."""
        return f"{self.study.name}/{self.arm.base}"

    @property
    def trial(self) -> TrialSpec:
        """What its trials are, but for the seed."""
        return self.arm.trial

    @cached_property
    def designed(self) -> DesignArm:
        """The arm as a verdict takes it."""
        return next(arm for arm in self.stored.design.arms if arm.name == self.arm.name)

    @cached_property
    def code(self) -> Mapping[str, str]:
        """Reference to custom code -> what identifies its source."""
        used = references(self.trial.model_dump(mode="json", exclude={"code"}))
        return {name: text for name, text in self.trial.code.items() if name in used}

    @property
    def weights(self) -> str | None:
        """What identifies the content of the file of weights that its trials start from; None: there is no file."""
        file = self.trial.training.weights
        return None if file is None else self.trial.code.get(file, file)

    @property
    def files(self) -> Mapping[str, str]:
        """Data file -> what identifies its content."""
        others = {*self.code, self.trial.training.weights}
        return {path: text for path, text in self.trial.code.items() if path not in others}

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Its trials, a row for each."""
        rows = self.stored.trials
        return rows[rows["arm"].eq(self.arm.name)]

    @property
    def seeds(self) -> list[SeedName]:
        """The seeds of its trials."""
        return self.trials["seed"].tolist()

    @property
    def ended(self) -> set[SeedName]:
        """The seeds of its trials that have ended."""
        return set(self.trials.loc[self.trials["state"].isin(ENDED), "seed"])

    def environments(self, key: str) -> tuple[str, ...]:
        """Return each value that a fact about where its trials ran has, such as the version of torch."""
        facts = (one for one in self.trials["environment"] if isinstance(one, Mapping))
        return tuple(sorted({str(one[key]) for one in facts if one.get(key) is not None}))


def split_name(name: str) -> tuple[str, str]:
    """Return the study and the arm of a name.

    Raises:
        SpecError: it is no such name.

    Example:
        >>> split_name("demo/residual[blocks=5]")
        ('demo', 'residual[blocks=5]')
    """
    study, _, arm = name.partition("/")
    if not study or not arm:
        raise SpecError(f"{name!r}: expected STUDY/ARM, such as demo/residual; a table of results is given alone")
    return study, arm


def find_sides(names: Sequence[str], studies: Mapping[str, StoredStudy]) -> dict[str, tuple[Side, ...]]:
    """Return each name with its arms: one, or those at every level where it is a name without levels.

    Args:
        names: such as `demo/residual`, or `demo/residual[blocks=5]`.
        studies: every study that is named.

    Raises:
        SpecError: a name is no such name, or is given twice.
        StoreError: a study has no such arm, or none of its trials has ended.
    """
    found: dict[str, tuple[Side, ...]] = {}
    for name in names:
        if name in found:
            raise SpecError(f"{name} is given twice; name two different arms")
        study, own = split_name(name)
        stored = studies[study]
        arms = [arm for arm in stored.study.arms if own in (arm.name, arm.base)]
        if not arms:
            known = {each for arm in stored.study.arms for each in (arm.name, arm.base)}
            raise StoreError(f"study {study}: {unknown('arm', own, known)}")
        found[name] = tuple(Side(stored, arm) for arm in arms)
        states = pd.concat([side.trials["state"] for side in found[name]])
        if not states.isin(ENDED).any():
            shown = join([f"{count} {state}" for state, count in states.value_counts().items()]) or "it has none"
            raise StoreError(f"{name}: none of its trials has ended ({shown}); `leadline run {study}` trains them")
    return found


def match_levels(a: str, b: str, sides: Mapping[str, Sequence[Side]]) -> Iterator[tuple[Side, Side]]:
    """Yield the arms of two names that are compared: the only two, or those at equal levels.

    Raises:
        SpecError: no level of one is a level of the other.
    """
    if len(sides[a]) == len(sides[b]) == 1:
        yield sides[a][0], sides[b][0]
        return
    pairs = [(one, two) for one in sides[a] for two in sides[b] if one.arm.factors == two.arm.factors]
    if not pairs:
        several = max((a, b), key=lambda name: len(sides[name]))
        shown = join([side.name for side in sides[several]], 4)
        raise SpecError(
            f"{a} and {b} have no level of what their studies vary in common; {several} is"
            f" {plural(len(sides[several]), 'arm')}: name one of {shown}"
        )
    yield from pairs


def left_out(a: str, b: str, sides: Mapping[str, Sequence[Side]], pairs: Sequence[tuple[Side, Side]]) -> str:
    """Return which levels of two names have no partner, in a sentence; empty: all have one."""
    taken = {side.name for pair in pairs for side in pair}
    alone = [side.name for name in (a, b) for side in sides[name] if side.name not in taken]
    return f"Left out, since the other has no such level: {join(alone)}." if alone else ""
