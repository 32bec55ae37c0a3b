"""What the intervals of few trials cover, by simulated studies; a rate that is not what is stated ends it with 1.

    python -m benchmarks.intervals [--studies 1000] [--output intervals.json]

Three parts: the prediction interval for one more data set, the interval for a restricted mean time, and how often
early flow and final error are called correlated where they have nothing to do with each other, but arms differ in
both. Beside each stands what is usual: Higgins, Thompson & Spiegelhalter's prediction interval (2009), the normal and
Student's t for the mean, a bootstrap over trials for the correlation. Last, as a reading without a limit, what the
paired t covers of a difference of two restricted means.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from leadline.analysis.diagnostics import FEWEST_CORRELATED
from leadline.analysis.stats import spearman, t_interval
from leadline.analysis.stats.factorial import between_variance, prediction_interval, shrink_to_mean
from leadline.analysis.stats.survival import restricted_mean

Floats = NDArray[np.float64]

STATED = 0.95
STATED_OF_UNLIKE = 0.93
"""Of the prediction interval where spreads are far apart, each being drawn to their mean (`stats.factorial.PRIOR`)."""
STANDARD_ERRORS = 4
"""By how many standard errors of the simulation a rate may miss what is stated."""
CHUNK = 20  # studies whose prediction intervals are computed at once
RESAMPLES = 400  # of the bootstraps that stand beside


@dataclass(frozen=True)
class Rate:
    """How often something held in simulated studies, and what is stated of it."""

    of: str
    case: str
    rate: float
    studies: int
    least: float | None  # that is stated; None: nothing is, the rate is there to compare with
    most: float = 1.0
    width: float | None = None  # median, in a unit of the case

    @property
    def error(self) -> float:
        """The standard error of the rate, if what is stated is true, or else of the rate itself."""
        limit = self.rate if self.least is None else self.least if self.least > 0 else self.most
        return math.sqrt(limit * (1 - limit) / self.studies)

    @property
    def kept(self) -> bool:
        """Whether the rate is what is stated, as far as these studies can tell."""
        slack = STANDARD_ERRORS * self.error
        return self.least is None or self.least - slack <= self.rate <= self.most + slack


# --- prediction intervals over data sets


def predictions(
    studies: int,
    data_sets: tuple[int, ...] = (3, 4, 5, 7, 10),
    seeds: tuple[int, ...] = (3, 10),
    between: tuple[float, ...] = (0.0, 0.3, 0.6, 1.0, 3.0),
) -> Iterator[Rate]:
    """Yield how often one more data set's effect lies within the interval; effects of one seed have deviation 1."""
    for k in data_sets:
        for n in seeds:
            for tau in between:
                for spreads, sd in (("equal", np.ones(k)), ("far apart", np.geomspace(0.1, 2, k))):
                    draw = np.random.default_rng([k, n, int(10 * tau)])
                    y = tau * draw.standard_normal((studies, k)) + draw.standard_normal((studies, k)) * sd / n**0.5
                    v = shrink_to_mean(sd**2 * draw.chisquare(n - 1, (studies, k)) / (n - 1), np.full(k, n)) / n
                    new = tau * draw.standard_normal(studies)
                    case = f"{k} data sets, {n} seeds, between {tau}, spreads {spreads}"
                    parts = [
                        prediction_interval(y[at : at + CHUNK], v[at : at + CHUNK], STATED)
                        for at in range(0, studies, CHUNK)
                    ]
                    low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
                    least = STATED if spreads == "equal" else STATED_OF_UNLIKE
                    yield _covered("prediction", case, low, high, new, least)
                    weights = 1 / (v + between_variance(y, v)[:, None])
                    mean = (weights * y).sum(axis=1) / weights.sum(axis=1)
                    variance = between_variance(y, v) + 1 / weights.sum(axis=1)
                    half = stats.t.ppf((1 + STATED) / 2, k - 2) * np.sqrt(variance)
                    yield _covered("prediction, Higgins", case, mean - half, mean + half, new, None)


# --- restricted means

TIMES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "exponential": lambda draw, shape: draw.exponential(1, shape),
    "lognormal, sigma 0.5": lambda draw, shape: draw.lognormal(0, 0.5, shape),
    "lognormal, sigma 1": lambda draw, shape: draw.lognormal(0, 1, shape),
}


def restricted_means(
    studies: int, trials: tuple[int, ...] = (2, 3, 5, 10, 20), reaching: tuple[float, ...] = (0.3, 0.7, 0.95)
) -> Iterator[Rate]:
    """Yield how often the mean time up to a horizon, which a share of trials reach, lies within its interval.

    Censored: trials are given up at a time that is even from 0.3 to 3 horizons. A sample whose curve is not known up
    to the horizon, and which `restricted_mean` refuses, has none.
    """
    for name, times in TIMES.items():
        many = times(np.random.default_rng(0), (1_000_000,))
        for share in reaching:
            horizon = float(np.quantile(many, share))
            truth = np.array(np.minimum(many, horizon).mean())
            for n in trials:
                draw = np.random.default_rng(n)
                t = times(draw, (studies, n))
                stop = draw.uniform(0.3 * horizon, 3 * horizon, (studies, n))
                case = f"{n} trials, {name}, {share:.0%} reach"
                for given_up, end in (("", np.full_like(stop, horizon)), (", censored", stop)):
                    watched, done = np.minimum(t, end), t <= end
                    last = watched.max(axis=1, keepdims=True)
                    known = (last[:, 0] >= horizon) | (done | (watched < last)).all(axis=1)
                    found = [
                        restricted_mean(*one, horizon, STATED) for one in zip(watched[known], done[known], strict=True)
                    ]
                    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
                    yield _covered("restricted mean", case + given_up, low, high, truth, STATED, horizon)
                x = np.minimum(t, horizon)
                mean, half = x.mean(axis=1), stats.norm.ppf((1 + STATED) / 2) * x.std(axis=1) / n**0.5
                yield _covered("restricted mean, normal", case, mean - half, mean + half, truth, None, horizon)
                yield _covered("restricted mean, t", case, *t_interval(x, STATED), truth, None, horizon)


def differences(
    studies: int, pairs: tuple[int, ...] = (2, 3, 5, 10, 20), slower: tuple[float, ...] = (1.0, 1.5, 3.0)
) -> Iterator[Rate]:
    """Yield how often the paired t holds the difference of two restricted means, where one arm is slower."""
    for factor in slower:
        for reach in (0.3, 0.7, 0.95):
            draw = np.random.default_rng(7)
            horizon = float(np.quantile(np.exp(0.64 * draw.standard_normal(1_000_000)), reach))
            for n in (1_000_000, *pairs):
                shape = (studies, n) if n < 1_000_000 else (1, n)
                shared = 0.4 * draw.standard_normal(shape)  # what two arms of a seed have in common
                a, b = (
                    np.minimum(own * np.exp(shared + 0.5 * draw.standard_normal(shape)), horizon)
                    for own in (1.0, factor)
                )
                d = a - b
                if n == 1_000_000:
                    truth = np.array(d.mean())
                    continue
                case = f"{n} pairs, {factor} times slower, {reach:.0%} of the faster reach"
                yield _covered("difference, paired t", case, *t_interval(d, STATED), truth, None, horizon)


def _covered(
    of: str, case: str, low: Floats, high: Floats, truth: Floats, least: float | None, unit: float = 1.0
) -> Rate:
    inside = (low <= truth) & (truth <= high)
    return Rate(of, case, float(inside.mean()), len(inside), least, width=float(np.median(high - low)) / unit)


# --- correlation of early flow and final error


def correlations(
    studies: int, arms: tuple[int, ...] = (5, 6, 8, 10), seeds: tuple[int, ...] = (3, 10), compared: int = 300
) -> Iterator[Rate]:
    """Yield how often a correlation is found where arms differ in flow and in error, but not in both together.

    The bootstraps, which take long, are of the first `compared` studies.
    """
    for a in (2, 3, 4, *arms):
        for n in seeds:
            draw = np.random.default_rng([a, n])
            flow, error = (
                3 * draw.standard_t(3, (studies, a, 1)) + draw.standard_normal((studies, a, n)) for _ in range(2)
            )
            case = f"{a} arms, {n} seeds"
            if a >= FEWEST_CORRELATED:
                p = [spearman(*one).p or 0.0 for one in zip(flow.mean(axis=2), error.mean(axis=2), strict=True)]
                yield Rate("correlation, arms", case, float(np.mean(np.array(p) <= 1 - STATED)), studies, 0, 1 - STATED)
            for of, rows in (("trials", a * n), ("arms", a)):
                ends = []
                for x, y in zip(*(values[:compared].reshape(-1, a * n) for values in (flow, error)), strict=True):
                    chosen = draw.integers(0, rows, (RESAMPLES, rows))
                    if of == "arms":
                        chosen = (n * chosen[..., None] + np.arange(n)).reshape(RESAMPLES, -1)
                    ranks = [stats.rankdata(values[chosen], axis=1) for values in (x, y)]
                    one, two = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
                    scale = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
                    rho = np.divide((one * two).sum(axis=1), scale, out=np.zeros_like(scale), where=scale > 0)
                    ends.append(np.quantile(rho, ((1 - STATED) / 2, (1 + STATED) / 2)))
                low, high = np.array(ends).T
                found = float(((low > 0) | (high < 0)).mean())
                yield Rate(f"correlation, bootstrap of {of}", case, found, len(ends), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("intervals.json"))
    options = parser.parse_args()
    found: list[Rate] = []
    for part in (correlations, restricted_means, differences, predictions):
        for rate in part(options.studies):
            found.append(rate)
            wide = "" if rate.width is None else f"  width {rate.width:6.2f}"
            broken = "" if rate.kept else "  BROKEN"
            print(f"{rate.of:32} {rate.case:58} {rate.rate:6.1%} ± {rate.error:.1%}{wide}{broken}", flush=True)
    options.output.write_text(json.dumps([asdict(rate) for rate in found], indent=2))
    broken = sum(not rate.kept for rate in found)
    print(f"{broken} of {sum(rate.least is not None for rate in found)} stated rates broken; written: {options.output}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
