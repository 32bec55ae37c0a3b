"""How often words are wrong of arms whose runs form no pairs: comparisons are simulated and decided as `compare` does.

    python -m benchmarks.unpaired [--studies 2000]

Prints, for laws of the values, spreads and numbers of runs that differ between arms, and numbers of contrasts, the
share of comparisons in which any word is false. Every contrast is of an arm with the first. Exits with 1 where a share
is above 5% by more than two standard errors (a cell that is gets a second, four times larger sample of its own, which
counts).
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.verdicts import Cell, Law, hash_of, images, is_false
from leadline.analysis.stats import Decision, Effect, Unpaired, unpaired_difference_p
from leadline.analysis.verdict import Contrast
from leadline.analysis.verdict.decisions import decide_contrasts
from leadline.analysis.verdict.pairs import Ended, Pairs
from leadline.parts.metrics import metric

Floats = NDArray[np.floating]

CONTRASTS = 1, 3, 10
RUNS = 2, 3, 5, 10, 20


@dataclass(frozen=True)
class Case:
    """A law of the values without any difference, and how the first arm differs from the others all the same."""

    law: Law
    name: str = ""
    spread: float = 1.0  # of the first arm, in those of the others
    runs: int = 1  # of the first arm, for each of the others

    def draw(self, rng: np.random.Generator, contrasts: int, runs: int) -> list[Floats]:
        """Return the values of each arm, the first one first; NaN: the run diverged."""
        values = self.law.draw(rng, (1, contrasts + 1, runs * self.runs))[0]
        return [self.spread * values[0], *values[1:, :runs]]

    def __str__(self) -> str:
        return self.name or self.law.name


def losing(share: float) -> Law:
    """Normal values, but that a share of the runs diverges, whatever the arm."""
    return Law(
        f"1 run in {1 / share:g} diverges",
        lambda rng, shape: np.where(rng.random(shape) < share, np.nan, rng.normal(size=shape)),
        fails=True,
    )


def outlying(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return normal values, but that one run in ten ends far above the others, as one that stays at chance."""
    return rng.normal(size=shape) + np.where(rng.random(shape) < 0.1, 100.0, 0.0)


NORMAL = Law("normal", lambda rng, shape: rng.normal(size=shape))
CASES = (
    Case(NORMAL),
    Case(NORMAL, "the first spreads three times as far", spread=3),
    Case(NORMAL, "the first has three times the runs", runs=3),
    Case(NORMAL, "the first has both", spread=3, runs=3),
    Case(NORMAL, "three times the runs, a third of the spread", spread=1 / 3, runs=3),
    *map(Case, (images(200), images(10_000))),
    Case(Law("exponential", lambda rng, shape: rng.exponential(size=shape))),
    Case(Law("t with 3 degrees", lambda rng, shape: rng.standard_t(3, shape))),
    Case(Law("1 run in 10 far off", outlying)),
    *map(Case, (losing(0.1), losing(0.5))),
)


def words(arms: Sequence[Floats], law: Law) -> list[Decision]:
    """Return the word of every arm but the first against the first, from their values; NaN: the run diverged."""
    first = arms[0]
    pairs = [_samples(arm, first, f"a{place}", law) for place, arm in enumerate(arms[1:])]
    return [one.decision for one in decide_contrasts(pairs, [_estimate(own) for own in pairs], "holm")]


def _samples(a: Floats, b: Floats, name: str, law: Law) -> Pairs:
    """Return what a contrast of separate samples compares, as the verdict gathers it."""
    kept = [tuple(side[~np.isnan(side)].tolist()) for side in (a, b)]
    ended = [Ended(len(side), len(side) - len(own)) for side, own in zip((a, b), kept, strict=True)]
    contrast = Contrast(name, "base", metric("test_error"), unpaired=True)
    return Pairs(contrast, law.margin, (), kept[0], kept[1], law.step, apart=(ended[0], ended[1]))


def _estimate(pairs: Pairs) -> Effect | None:
    """Return what the decision needs of `unpaired`, without its permutations."""
    if not pairs.a or not pairs.b:
        return None
    n, m = len(pairs.a), len(pairs.b)
    p = unpaired_difference_p(pairs.a, pairs.b, pairs.resolution) if min(n, m) > 1 else None
    return Unpaired(n, m, float(np.mean(pairs.a) - np.mean(pairs.b)), None, None, p, None, None, None)


def false_words(case: Case, contrasts: int, runs: int, studies: int, shift: float, seed: int) -> int:
    """Return in how many comparisons some word is false.

    Args:
        shift: of every other arm, in margins, as in `benchmarks.verdicts`.
    """
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(studies):
        first, *others = case.draw(rng, contrasts, runs)
        differs = [bool(shift) and place % 2 == 0 for place in range(contrasts)]
        moved = [arm + shift * case.law.margin * apart for arm, apart in zip(others, differs, strict=True)]
        given = words([first, *moved], case.law)
        wrong += any(is_false(word, apart) for word, apart in zip(given, differs, strict=True))
    return wrong


def measure(case: Case, contrasts: int, runs: int, studies: int, shift: float) -> Cell:
    """Return the share of comparisons in which some word is false."""
    seed = hash_of(str(case), contrasts, runs, shift)
    # failures are decided by permutations of all runs
    number = max(100, studies // contrasts // (10 if case.law.fails else 1))
    found = Cell(false_words(case, contrasts, runs, number, shift, seed), number, case.law.bounded)
    if found.broken:
        found = Cell(false_words(case, contrasts, runs, 4 * number, shift, seed + 1), 4 * number, case.law.bounded)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="comparisons of one contrast in each cell")
    studies, broken = parser.parse_args().studies, False
    for shift, title in ((0.0, "no differences"), (1.0, "every other arm differs by the margin")):
        print(f"\nFalse words, % of {studies} comparisons or fewer, {title}\n{'':45}n = {'  '.join(map(str, RUNS))}")
        for case in CASES:
            if shift and case.law.fails:
                continue  # arms of which only one failed are never called equivalent
            for contrasts in CONTRASTS:
                runs_each = RUNS[:-1] if case.law.fails else RUNS
                cells = [measure(case, contrasts, runs, studies, shift) for runs in runs_each]
                broken |= any(cell.broken for cell in cells)
                print(f"{case!s:44} {contrasts:2} {'  '.join(map(str, cells))}", flush=True)
    print("\nA bound is broken: see the cells with !" if broken else "\nEvery bound holds.")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
