"""How often a study's words are wrong: whole studies are simulated and put through the rules of the real verdict.

    python -m benchmarks.verdicts [--studies 4000]

Prints, for laws of the error, numbers of contrasts and of seeds, the share of studies in which any word is false, with
its standard error, for the rule that `leadline.analysis.verdict` follows and for the one that looks at each contrast by
itself; then what other rules would give, and what is found of true differences. Exits with 1 where the rule's share is
above 5% by more than two standard errors (a cell that is gets a second, four times larger sample of its own, which
counts). AR(1) over seeds, and arms that fail at three seeds in ten, are shown and not held to that: seeds are
independent by construction, and two seeds cannot tell an arm that always fails from one that often does.
"""

import argparse
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from leadline.analysis.stats import (
    LEVEL,
    Decision,
    Outcome,
    Paired,
    benjamini_hochberg_both,
    choose_word,
    decide,
    difference_p,
    equivalence_p,
    holm_both,
    t_interval,
)
from leadline.analysis.stats.sequential import confidence_of_each, running_interval
from leadline.analysis.verdict import Contrast
from leadline.analysis.verdict.decisions import decide_contrasts
from leadline.analysis.verdict.pairs import Pairs
from leadline.parts.metrics import metric
from leadline.specs.contrast import Correction
from leadline.study.rounds import Course

Floats = NDArray[np.floating]

CONTRASTS = 1, 3, 6, 10, 30
SEEDS = 2, 3, 5, 10, 20
CHANCE = 90.0


@dataclass(frozen=True)
class Law:
    """How the errors of arms without any difference vary; `step` and `margin` are in the unit of the errors."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Floats]  # [studies, arms, seeds] -> errors, NaN: diverged
    step: float = 0.0
    margin: float = 1.0
    bounded: bool = True  # whether the share of false words is held to 5%
    fails: bool = False  # whether trials may diverge, or stay at chance


def images(count: int) -> Law:
    """Errors of 1% on so many test images."""
    step = 100 / count
    return Law(f"1% of {count} images", lambda rng, shape: rng.binomial(count, 0.01, shape) * step, step, 0.5)


def failing(share: float) -> Callable[[np.random.Generator, tuple[int, ...]], Floats]:
    """Errors near 2%, but that some trials stay at chance."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        errors = 2 + 0.2 * rng.normal(size=shape)
        return np.where(rng.random(shape) < share, CHANCE + 0.5 * rng.normal(size=shape), errors)

    return draw


def diverging(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Errors that rise with how hard a seed is for all arms; a trial for which it is hardest diverges."""
    hard = rng.normal(size=(shape[0], 1, shape[2])) + rng.normal(size=shape)
    return np.where(hard > 1.5, np.nan, 3 + 0.3 * hard + 0.1 * rng.normal(size=shape))


def autoregressive(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Errors of which neighbouring seeds correlate by 0.5."""
    errors = rng.normal(size=shape)
    for seed in range(1, shape[2]):
        errors[..., seed] = 0.5 * errors[..., seed - 1] + np.sqrt(0.75) * errors[..., seed]
    return errors


LAWS = (
    Law("normal", lambda rng, shape: rng.normal(size=shape)),
    *map(images, (50, 200, 360, 10_000)),
    Law("exponential", lambda rng, shape: rng.exponential(size=shape)),
    Law("t with 3 degrees", lambda rng, shape: rng.standard_t(3, shape)),
    Law("1 seed in 10 at chance", failing(0.1), margin=0.5, fails=True),
    Law("hardest seeds diverge", diverging, margin=0.5, fails=True),
    Law("3 seeds in 10 at chance", failing(0.3), margin=0.5, bounded=False, fails=True),
    Law("AR(1), 0.5", autoregressive, bounded=False),
)


def words(errors: Floats, law: Law, correction: Correction = "holm") -> list[list[Decision]]:
    """Return the words of each study, of every arm but the first against the first.

    Studies without a failed trial go through the same functions as the verdict, all at once; the others through
    `decide_contrasts` itself.

    Args:
        errors: shape [studies, arms, seeds], in per cent; NaN: the trial diverged.
    """
    differences = errors[:, 1:] - errors[:, :1]
    failed = np.isnan(errors) | (errors > CHANCE - 5)
    whole = ~failed.any(axis=(1, 2))
    found: list[list[Decision]] = [[]] * len(errors)
    both = holm_both if correction == "holm" else benjamini_hochberg_both
    p, same = both(difference_p(differences[whole], law.step), equivalence_p(differences[whole], law.margin, law.step))
    signs = np.sign(differences[whole].mean(axis=-1)).astype(int)
    for place, *study in zip(np.flatnonzero(whole), signs, p, same, strict=True):
        found[place] = [choose_word(*one) for one in zip(*study, strict=True)]
    for place in np.flatnonzero(~whole):
        found[place] = _decided(errors[place], failed[place], law, correction)
    return found


def _decided(errors: Floats, failed: NDArray[np.bool_], law: Law, correction: Correction) -> list[Decision]:
    pairs = [pairs_of(errors[0], errors[arm], failed[0], failed[arm], f"a{arm}", law) for arm in range(1, len(errors))]
    return [one.decision for one in decide_contrasts(pairs, [estimate(own) for own in pairs], correction)]


def pairs_of(
    b: Floats, a: Floats, failed_b: NDArray[np.bool_], failed_a: NDArray[np.bool_], name: str, law: Law
) -> Pairs:
    """Return what a contrast of two arms compares, as the verdict gathers it from the ledger."""
    outcomes = []
    for seed, (x, y, lost_a, lost_b) in enumerate(zip(a, b, failed_a, failed_b, strict=True)):
        known = not (lost_a and lost_b) and not np.isnan(x - y)
        outcomes.append((seed, Outcome(float(x - y) if known else None, bool(lost_a), bool(lost_b))))
    seeds = tuple(seed for seed, one in outcomes if one.difference is not None)
    values_a, values_b = (tuple(float(side[seed]) for seed in seeds) for side in (a, b))
    contrast = Contrast(name, "base", metric("test_error"))
    return Pairs(contrast, law.margin, seeds, values_a, values_b, law.step, outcomes=tuple(outcomes))


def estimate(pairs: Pairs) -> Paired | None:
    """Return what the decision needs of `paired`, without its bootstrap."""
    d = np.array(pairs.differences)
    if len(d) == 0:
        return None
    p = float(difference_p(d, pairs.resolution)) if len(d) > 1 else None
    return Paired(len(d), float(d.mean()), None, None, p, None, None, None, None)


# --- rules for words that the benchmark compares


def by_itself(errors: Floats, law: Law) -> NDArray[np.bool_]:
    """Whether each contrast is called different by its own 95% interval, whatever else there is; failures left out."""
    differences = errors[:, 1:] - errors[:, :1]
    gaps = np.isnan(differences).any(axis=-1)
    low, high = t_interval(np.where(gaps[..., None], 0.0, differences), resolution=law.step)
    different = np.array((low > 0) | (high < 0), dtype=bool)
    for study, contrast in zip(*np.nonzero(gaps), strict=True):
        kept = differences[study, contrast][~np.isnan(differences[study, contrast])]
        different[study, contrast] = False
        if len(kept) > 1:
            ends = t_interval(kept, resolution=law.step)
            different[study, contrast] = bool(ends[0] > 0 or ends[1] < 0)
    return different


def moderated_p(differences: Floats) -> Floats:
    """Return p-values whose variances are drawn to those of the study's other contrasts (Smyth 2004, as in limma)."""
    n = differences.shape[-1]
    variances, own = differences.var(axis=-1, ddof=1), n - 1
    logs = np.log(variances) - special.digamma(own / 2) + np.log(own / 2)
    mean = logs.mean(axis=-1, keepdims=True)
    excess = logs.var(axis=-1, ddof=1, keepdims=True) - special.polygamma(1, own / 2)
    # the prior's degrees of freedom: where trigamma is what the spread of variances leaves unexplained
    freedom = np.geomspace(0.1, 1e4, 500)
    place = np.searchsorted(-special.polygamma(1, freedom / 2), -excess)
    prior = freedom[np.minimum(place, len(freedom) - 1)]
    center = np.exp(mean + special.digamma(prior / 2) - np.log(prior / 2))
    moderated = (own * variances + prior * center) / (own + prior)
    t = np.abs(differences.mean(axis=-1)) / np.sqrt(moderated / n)
    return np.asarray(2 * stats.t.sf(t, own + prior))


def largest_t_p(differences: Floats, flips: int = 200) -> Floats:
    """Return p-values adjusted by the largest |t| of all contrasts under sign flips (Westfall & Young 1993)."""
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(flips, differences.shape[-1]))

    def t(d: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.abs(d.mean(axis=-1)) / d.std(axis=-1, ddof=1)
        return np.asarray(np.nan_to_num(found, nan=0.0))

    observed = t(differences)
    reached = np.ones_like(observed)
    for sign in signs:
        reached += t(differences * sign).max(axis=-1, keepdims=True) >= observed * (1 - 1e-9)
    return np.asarray(reached / (flips + 1))


# --- tables


@dataclass(frozen=True)
class Cell:
    """A share of studies, and whether it is held to the level."""

    wrong: int
    studies: int
    bounded: bool

    @property
    def share(self) -> float:
        """Studies in which some word is false, of all."""
        return self.wrong / self.studies

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return float(np.sqrt(self.share * (1 - self.share) / self.studies))

    @property
    def broken(self) -> bool:
        """Whether the share is above the level by more than two standard errors."""
        return self.bounded and self.share > LEVEL + 2 * self.error

    def __str__(self) -> str:
        return f"{100 * self.share:5.1f}{'!' if self.broken else ' '}"


def false_words(law: Law, contrasts: int, seeds: int, studies: int, shift: float, seed: int) -> tuple[int, int]:
    """Return in how many studies some word is false, by the verdict and by each contrast alone.

    Args:
        shift: of the even arms, in margins: 0: no arm differs from the first; 1: those differ by the margin, so that
            "equivalent" is false for them.
    """
    rng = np.random.default_rng(seed)
    errors = law.draw(rng, (studies, contrasts + 1, seeds))
    differs = np.arange(1, contrasts + 1) % 2 == 1
    errors[:, 1:][:, differs] += shift * law.margin
    given = words(errors, law)
    wrong = [
        sum(is_false(word, bool(shift) and bool(apart)) for word, apart in zip(study, differs, strict=True))
        for study in given
    ]
    alone = by_itself(errors, law) if not shift else np.zeros((studies, contrasts), dtype=bool)
    return sum(map(bool, wrong)), int(alone.any(axis=1).sum())


def is_false(word: Decision, differs: bool) -> bool:
    """Return whether a word is false of an arm that differs from the first, being worse by the margin, or does not."""
    return word in ("equivalent", "better") if differs else word in ("better", "worse")


def table_of_errors(studies: int) -> bool:
    """Print shares of studies with a false word; return whether a bound is broken."""
    broken = False
    for shift, title in ((0.0, "no differences"), (1.0, "every other arm differs by the margin")):
        print(f"\nFalse words, % of {studies} studies (standard error up to {50 / np.sqrt(studies):.1f}), {title}")
        print("verdict, n = " + "  ".join(f"{n:<5}" for n in SEEDS) + "    each alone")
        for law in LAWS:
            if shift and law.fails:
                continue  # one failed trial in ten makes more of a difference than the margin
            for contrasts in CONTRASTS:
                cells, alone = [], []
                for seeds in SEEDS:
                    seed = hash_of(law.name, contrasts, seeds, shift)
                    # studies in which trials fail are decided one by one, by sign flips of all their seeds
                    number = max(200, studies * 20 // (contrasts * seeds)) if law.fails else studies
                    number = min(number, studies)
                    wrong, single = false_words(law, contrasts, seeds, number, shift, seed)
                    cell = Cell(wrong, number, law.bounded)
                    if cell.broken:
                        wrong, _ = false_words(law, contrasts, seeds, 4 * number, shift, seed + 1)
                        cell = Cell(wrong, 4 * number, law.bounded)
                    broken |= cell.broken
                    cells.append(str(cell))
                    alone.append(f"{100 * single / number:5.1f}")
                before = "" if shift else "   " + " ".join(alone)
                print(f"{law.name:24} {contrasts:2} contrasts {'  '.join(cells)}{before}")
    return broken


def hash_of(*values: object) -> int:
    """Return a seed that is the same in every run."""
    return zlib.crc32(repr(values).encode())


def table_of_discoveries(studies: int) -> bool:
    """Print the share of false ones among the words by Benjamini and Hochberg's correction."""
    print("\nShare of false words among all words, Benjamini-Hochberg, half of the arms 3 deviations worse, %")
    law, broken = Law("normal", lambda rng, shape: rng.normal(size=shape)), False
    for contrasts in (6, 10, 30):
        row = []
        for seeds in SEEDS:
            errors = law.draw(np.random.default_rng(hash_of(contrasts, seeds)), (studies, contrasts + 1, seeds))
            errors[:, 1 : 1 + contrasts // 2] += 3
            shares = []
            for study in words(errors, law, "benjamini-hochberg"):
                false = [
                    is_false(word, place < contrasts // 2) for place, word in enumerate(study) if word != "undecided"
                ]
                shares.append(float(np.mean(false)) if false else 0.0)
            share, error = np.mean(shares), np.std(shares) / np.sqrt(studies)
            broken |= bool(share > LEVEL + 2 * error)
            row.append(f"{100 * share:5.1f}")
        print(f"{contrasts:2} contrasts, n = {SEEDS}: {'  '.join(row)}")
    return broken


def table_of_rules(studies: int) -> None:
    """Print what other rules for differences would give: false words, and the differences they find."""
    print(
        "\nRules for differences, % of studies with a false one | % of true ones found (half of the arms differ, by d)"
    )
    rules: dict[str, Callable[[Floats], Floats]] = {
        "each alone": difference_p,
        "Bonferroni": lambda d: np.minimum(1.0, d.shape[-2] * difference_p(d)),
        "Holm over both tests": lambda d: holm_both(difference_p(d), equivalence_p(d, 1.0))[0],
        "Holm, differences alone": lambda d: holm_both(difference_p(d), np.full(d.shape[:-1], np.nan))[0],
        "largest t, sign flips": largest_t_p,
        "moderated variances, Holm": lambda d: holm_both(moderated_p(d), np.full(d.shape[:-1], np.nan))[0],
    }
    for contrasts, seeds, d in ((3, 3, 8.0), (3, 5, 3.0), (10, 3, 16.0), (10, 5, 4.0), (10, 10, 2.0)):
        for spreads in ("equal spreads", "one contrast in three with a third of the others' spread, one with thrice"):
            rng = np.random.default_rng(hash_of(contrasts, seeds, spreads))
            scale = (
                np.ones(contrasts) if spreads.startswith("equal") else np.array([1, 1 / 3, 3])[np.arange(contrasts) % 3]
            )
            noise = rng.normal(size=(studies, contrasts, seeds)) * scale[:, None]
            differs = (np.arange(contrasts) % 2 == 0)[:, None]
            print(f"{contrasts} contrasts, {seeds} seeds, d = {d:g}, {spreads}")
            for name, rule in rules.items():
                none, some = rule(noise), rule(noise + d * differs * scale[:, None])
                false = (none <= LEVEL).any(axis=1).mean()
                found = (some <= LEVEL)[:, differs[:, 0]].mean()
                print(f"    {name:26} {100 * false:5.1f} | {100 * found:5.1f}")


def table_of_power(studies: int) -> None:
    """Print what one contrast is called, by the rule before (the 95% interval alone) and by the tests now."""
    print("\nOne contrast, % of studies that get each word: 95% interval before | tests now")
    for seeds in (3, 5, 10):
        for mean, sd, margin in ((1.0, 1.0, 0.5), (2.0, 1.0, 0.5), (0.0, 0.3, 0.5), (0.2, 0.2, 0.5), (0.1, 0.4, 0.5)):
            d = np.random.default_rng(hash_of(seeds, mean, sd)).normal(mean, sd, (studies, seeds))
            low, high = t_interval(d)
            before = [decide((float(x), float(y)), margin) for x, y in zip(low, high, strict=True)]
            p, q = difference_p(d), equivalence_p(d, margin)
            now = [choose_word(int(s), x, y) for s, x, y in zip(np.sign(d.mean(-1)), p, q, strict=True)]
            shares = [
                " ".join(f"{100 * np.mean([one == word for one in given]):5.1f}" for word in ("worse", "equivalent"))
                for given in (before, now)
            ]
            print(f"n = {seeds:2}, {mean:+.1f} ± {sd:.1f}, margin {margin}: different, equivalent {' | '.join(shares)}")


def table_of_looks(studies: int) -> bool:
    """Print false words where seeds are added after verdicts, and where failures decide while seeds are added."""
    rng = np.random.default_rng(7)
    d = rng.normal(size=(studies, 20))
    looks = (3, 5, 10, 20)
    once = np.any([difference_p(d[:, :n]) <= LEVEL for n in looks], axis=0)
    low, high = running_interval(d, 1 - LEVEL, 0.0, 20)
    later = np.any([(low[:, n - 1] > 0) | (high[:, n - 1] < 0) for n in looks[1:]], axis=0)
    first = difference_p(d[:, :3]) <= LEVEL
    print(
        "\nSeeds added after a verdict on 3, to 5, 10, 20; % of studies without a difference that are called different"
    )
    print(f"tests that look once, at every look:  {100 * once.mean():5.1f}")
    print(f"verdict, at 5, 10 or 20:              {100 * later.mean():5.1f}")
    print(f"verdict, at 3 or later:               {100 * (first | later).mean():5.1f}")
    broken = Cell(int(later.sum()), studies, True).broken
    print("\nStudies with `decide` in which trials fail at random, as often in both arms; % with a false word")
    for share in (0.1, 0.5, 0.9, 1.0):
        cells = []
        for chance in (None, 50.0):
            count = studies // 10
            wrong = sum(_decides_falsely(share, chance, hash_of(share, study)) for study in range(count))
            cells.append(Cell(wrong, count, True))
        broken |= any(cell.broken for cell in cells)
        print(f"failing at {share:4.0%} of seeds: without a value {cells[0]}, at chance {cells[1]}")
    return broken


def _decides_falsely(share: float, chance: float | None, seed: int) -> bool:
    """Return whether a study of two equal arms, each failing at a share of seeds, is ever decided, at 1 to 20 seeds.

    Args:
        share: of the seeds; 1: nearly all.
        chance: the error of a trial that fails, in points above the others; None: it has none.
        seed: of the random numbers.
    """
    draw = np.random.default_rng(seed)
    failed = draw.random((2, 20)) < (share if share < 1 else 0.97)
    noise = draw.normal(size=20)
    either = failed.any(axis=0)
    if chance is None:
        differences = [None if out else float(one) for one, out in zip(noise, either, strict=True)]
    else:
        far = chance * (failed[0].astype(float) - failed[1])
        differences = [float(one) for one in np.where(either, 0.3, 1.0) * noise + far]
    pairs = zip(differences, failed.T, strict=True)
    course = Course("a", "b", 0.5, 0.0, tuple(Outcome(one, bool(a), bool(b)) for one, (a, b) in pairs))
    confidence = confidence_of_each(1 - LEVEL, 1)
    for seeds in range(1, 21):
        ends = course.interval(course.first(seeds), confidence, 20)
        if course.word(seeds, ends, confidence, 20) in ("better", "worse"):
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies in each cell")
    studies = parser.parse_args().studies
    broken = table_of_errors(studies)
    broken |= table_of_discoveries(studies)
    broken |= table_of_looks(studies)
    table_of_rules(studies)
    table_of_power(studies)
    print("\nA bound is broken: see the cells with !" if broken else "\nEvery bound holds.")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
