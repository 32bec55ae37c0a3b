"""What looking after every seed costs and saves: error rates, widths and numbers of seeds, by simulated studies.

    python -m benchmarks.sequential [--studies 20000] [--output sequential.json]

Beside Leadline's intervals stand the t confidence sequence (Lai 1976; Wang & Ramdas 2024) with a normal prior of
variance 1 on the effect size, which holds for any number of seeds, and the paired-t interval for a single look: once
at the end, as it is meant, and looked at after every seed, as it is not. Differences have deviation 1. A fixed design
has as many seeds as give a single look the same chance of a decision, or 99% where the study decides more often; it
must know the effect beforehand.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from leadline.analysis.stats import t_interval
from leadline.analysis.stats.sequential import critical_values, decide, next_round, running_interval

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

CONFIDENCE = 0.95
PLANS = (20, 50, 100)
LARGEST_FIXED = 150


def counts(error: float) -> Draw:
    """Differences between equal arms in wrong images of 360."""
    return lambda draw, shape: np.subtract(*draw.binomial(360, error, (2, *shape))).astype(np.float64)


# name -> step, differences between arms that do not differ
NOISE: dict[str, tuple[float, Draw]] = {
    "normal": (0.0, lambda draw, shape: draw.standard_normal(shape)),
    "images, 5% wrong": (1.0, counts(0.05)),
    "images, 0.5% wrong": (1.0, counts(0.005)),
    "images, 0.05% wrong": (1.0, counts(0.0005)),
    "heavy tails: t, 3 df": (0.0, lambda draw, shape: draw.standard_t(3, shape)),
    "heavy tails: t, 2 df": (0.0, lambda draw, shape: draw.standard_t(2, shape)),
    "1 in 10 five times as wide": (
        0.0,
        lambda draw, shape: draw.standard_normal(shape) * np.where(draw.random(shape) < 0.1, 5, 1),
    ),
    "skewed: exponential": (0.0, lambda draw, shape: draw.exponential(1, shape) - 1),
}
# effect, margin
CASES = [(effect, 0.0) for effect in (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)] + [(0.0, m) for m in (0.5, 0.7, 1.0, 2.0)]


def sequence_values(seeds: int, variance: float = 1.0) -> Floats:
    """Critical |t| of the t confidence sequence: where the likelihood ratio of the t's reaches 1/alpha."""
    n = np.arange(2, seeds + 1)
    bound = (np.sqrt(1 + n * variance) / (1 - CONFIDENCE)) ** (2 / n)
    room = 1 - bound / (1 + n * variance)
    square = np.divide((n - 1) * (bound - 1), room, out=np.full(len(n), np.inf), where=room > 0)
    return np.concatenate([[np.inf], np.sqrt(square)])


def sequence_interval(differences: Floats) -> tuple[Floats, Floats]:
    n = np.arange(1, differences.shape[1] + 1)
    mean = differences.cumsum(axis=1) / n
    squares = (differences**2).cumsum(axis=1) - n * mean**2
    error = np.sqrt(np.maximum(squares, 1e-12) / np.maximum(n - 1, 1) / n)
    half = error * sequence_values(len(n))
    return np.maximum.accumulate(mean - half, axis=1), np.minimum.accumulate(mean + half, axis=1)


def single_looks(differences: Floats, step: float, upto: int) -> tuple[Floats, Floats]:
    """The paired-t interval at 2, 3, ... seeds, each by itself; none at one."""
    ends = [t_interval(differences[:, :n], CONFIDENCE, step) for n in range(2, upto + 1)]
    nothing = np.full(len(differences), np.inf)
    return np.stack([-nothing, *(low for low, _ in ends)], 1), np.stack([nothing, *(high for _, high in ends)], 1)


def decided(low: Floats, high: Floats, margin: float) -> NDArray[np.bool_]:
    return (low > 0) | (high < 0) | ((-margin < low) & (high < margin))


def stopped(found: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of studies that decide, and mean seeds of all."""
    ever = found.any(axis=1)
    return float(ever.mean()), float(np.where(ever, found.argmax(axis=1) + 1, found.shape[1]).mean())


def errors(studies: int, planned: int) -> dict[str, dict[str, float]]:
    rates = {}
    for name, (step, noise) in NOISE.items():
        d = noise(np.random.default_rng(planned), (studies, planned))
        single = decided(*single_looks(d, step, planned), 0.0)
        rates[name] = {
            "leadline": stopped(decided(*running_interval(d, CONFIDENCE, step, planned), 0.0))[0],
            "sequence": stopped(decided(*sequence_interval(d), 0.0))[0],
            "single at the end": float(single[:, -1].mean()),
            "single at every look": float(single.any(axis=1).mean()),
        }
    return rates


def in_rounds(differences: Floats, margin: float, planned: int) -> tuple[float, float, float]:
    """Share decided, mean seeds and mean rounds of studies that look only between rounds."""
    seeds, rounds, ends = [], [], []
    for d in differences:
        n = looks = 0
        while added := next_round(d[:n], margin, CONFIDENCE, 0.0, planned):
            n, looks = n + added, looks + 1
        seeds.append(n)
        rounds.append(looks)
        ends.append(decide(d[:n], margin, CONFIDENCE, 0.0, planned) != "undecided")
    return float(np.mean(ends)), float(np.mean(seeds)), float(np.mean(rounds))


def saving(studies: int, planned: int) -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = []
    for effect, margin in CASES:
        d = np.random.default_rng(1).normal(effect, 1, (studies, LARGEST_FIXED))
        chance, seeds = stopped(decided(*running_interval(d[:, :planned], CONFIDENCE, 0.0, planned), margin))
        other, more = stopped(decided(*sequence_interval(d[:, :planned]), margin))
        power = decided(*single_looks(d, 0.0, LARGEST_FIXED), margin).mean(axis=0)
        enough = np.flatnonzero(power >= min(chance, 0.99))
        fixed = int(enough[0]) + 1 if enough.size and chance > 0.05 else None
        rounds = in_rounds(d[:1000, :planned], margin, planned)
        rows.append(
            {
                "effect": effect,
                "margin": margin,
                "decided": chance,
                "seeds": seeds,
                "fixed": fixed,
                "saved": None if fixed is None else 1 - seeds / fixed,
                "in rounds, decided": rounds[0],
                "in rounds, seeds": rounds[1],
                "in rounds, rounds": rounds[2],
                "sequence, decided": other,
                "sequence, seeds": more,
            }
        )
    return rows


def print_saving(rows: list[dict[str, float | None]]) -> None:
    print(f"{'effect':>8} {'margin':>6} {'decided':>8} {'seeds':>6} {'fixed':>6} {'saved':>6}", end="")
    print("   in rounds: decided, seeds, rounds   sequence: decided, seeds")
    for row in rows:
        fixed, saved = row["fixed"], row["saved"]
        ends = f"{'-' if fixed is None else fixed:>6} {'-' if saved is None else f'{saved:.0%}':>6}"
        print(f"{row['effect']:8.1f} {row['margin']:6.1f} {row['decided']:8.1%} {row['seeds']:6.1f} {ends}", end="")
        print(
            f"{row['in rounds, decided']:22.1%} {row['in rounds, seeds']:6.1f} {row['in rounds, rounds']:7.1f}", end=""
        )
        print(f"{row['sequence, decided']:20.1%} {row['sequence, seeds']:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=Path("sequential.json"))
    options = parser.parse_args()
    results: dict[str, Any] = {"studies": options.studies, "confidence": CONFIDENCE}
    for planned in PLANS:
        rates = results[f"errors, {planned} seeds"] = errors(options.studies, planned)
        print(f"A difference found where there is none, over a whole study of {planned} seeds, %")
        names = list(next(iter(rates.values())))
        print(" " * 28 + "".join(f"{name:>22}" for name in names))
        for noise, row in rates.items():
            print(f"  {noise:<26}" + "".join(f"{100 * row[name]:22.2f}" for name in names))
    looks = (3, 5, 10, 20, 50, 100)
    print("Half the width of the interval over the spread")
    print(" " * 28 + "".join(f"{f'{n} seeds':>11}" for n in looks))
    lines = {
        "single look": np.append(np.inf, stats.t.isf((1 - CONFIDENCE) / 2, np.arange(1, max(looks)))),
        **{f"planned {planned}": critical_values(planned, CONFIDENCE, max(looks)) for planned in PLANS},
        "sequence": sequence_values(max(looks)),
    }
    results["half widths"] = {name: {n: values[n - 1] / n**0.5 for n in looks} for name, values in lines.items()}
    for name, row in results["half widths"].items():
        print(f"  {name:<26}" + "".join(f"{row[n]:11.2f}" for n in looks))
    for planned in PLANS[:2]:
        rows = results[f"saving, {planned} seeds"] = saving(options.studies, planned)
        print(f"Seeds until a decision, of {planned} at most, against a fixed design that decides as often")
        print_saving(rows)
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
