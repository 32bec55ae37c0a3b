"""How often intervals of variance shares hold the truth: `python -m benchmarks.variance [REPLICATIONS]`.

Trainings of an orthogonal array are made up from normal effects of known size, with combined effects of two sources
that differ from cell to cell. 2,000 replications have a standard error of 0.5% at 95%.
"""

import sys

import numpy as np

from leadline.analysis.stats.variance_components import DRAWS, orthogonal_array, variance_components

CASES = {
    "one source": (1.0, 0.0, 0.0),
    "three alike": (0.3, 0.3, 0.3),
    "combinations alone": (0.0, 0.0, 0.0),
    "large and small": (1.0, 0.2, 0.05),
}
REST, IMAGES, TESTED = 0.4, 0.1, 360


def main(replications: int) -> None:
    """Print, for each case and number of levels, the coverage of each share, and how often a source is named."""
    print("levels  case                 coverage of a, b, c, images, left    called most, rightly, wrongly")
    draw = np.random.default_rng(0)
    for levels in (3, 5, 7):
        rows = np.array(orthogonal_array(levels, 3))
        for case, variances in CASES.items():
            truth = np.array([*variances, IMAGES, REST])
            truth /= truth.sum()
            covered, right, wrong = np.zeros(5), 0, 0
            for number in range(replications):
                y = sum(draw.normal(0, one**0.5, levels)[column] for one, column in zip(variances, rows.T, strict=True))
                together = draw.normal(0, (REST / 2) ** 0.5, (levels, levels))[rows[:, 0], rows[:, 2]]
                y = y + together + draw.normal(0, (REST / 2) ** 0.5, len(rows))
                images = IMAGES * draw.chisquare(TESTED, 1 + DRAWS) / TESTED
                columns = {name: column.tolist() for name, column in zip("abc", rows.T, strict=True)}
                found = variance_components(y, columns, ("images", images), seed=number)
                covered += [one.low <= share <= one.high for one, share in zip(found, truth, strict=True)]
                for one, share in zip(found, truth, strict=True):
                    right += one.low > 0.5 < share
                    wrong += one.low > 0.5 >= share
            shown = "  ".join(f"{one:.1%}" for one in covered / replications)
            print(
                f"{levels:6}  {case:19}  {shown:35}  {right / replications:.1%}, {wrong / replications:.1%}", flush=True
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
