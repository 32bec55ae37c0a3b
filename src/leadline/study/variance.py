"""The study that shows where the spread between seeds comes from: an orthogonal array of seeds by source."""

from pathlib import Path

from leadline.analysis.stats.variance_components import orthogonal_array
from leadline.errors import SpecError, unknown
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.check import draws_weights
from leadline.study.expand import ExpandedStudy, default_metric, drawn_sources, expand

SUFFIX = ".variance"
"""Ends the name of such a study."""


def variance_study(
    study: ExpandedStudy, arm: str | None = None, levels: int = 5, data_dir: Path | None = None
) -> ExpandedStudy:
    """Return a study of the same arms whose seeds vary apart, so that each source's part in the spread can be told.

    Every source that the arms draw from has as many seeds, and every two seeds of two sources meet in one trial of each
    arm (see `orthogonal_array`). Where the study does not resample its images, the training images are bootstrapped.

    Args:
        study: the study.
        arm: the only arm, without its levels; None: all arms.
        levels: seeds of each source, an odd prime; there are levels^2 trials of each arm.
        data_dir: folder of the data sets and of weights that training starts from; None: the default folder.

    Raises:
        SpecError: there is no such arm or design, or the study tunes its arms.
        DataError: a file of weights is missing, or the data that its network is for.
    """
    spec = study.spec
    if arm is not None and arm not in spec.arms:
        raise SpecError(unknown("arm", arm, spec.arms))
    if spec.tune is not None:
        raise SpecError(f"{spec.name}: variance needs settings that are known; give them in training instead of tune")
    plain = spec.model_dump(mode="json")
    plain |= {"name": spec.name + SUFFIX, "seeds": 1, "decide": None, "probes": {}, "published": []}
    plain["vary"] = spec.factors
    plain["data"].setdefault("resample", "bootstrap")
    plain["title"] = f"Where the spread between seeds comes from: {spec.title or spec.name}"
    if arm is not None:
        plain |= {"arms": {arm: plain["arms"][arm]}, "contrasts": []}
    asked = expand(parse(StudySpec, plain))
    if default_metric(asked) != "test_error":
        raise SpecError(f"{spec.name}: variance is that of test errors, which its task has not; choose classification")
    sources = list(drawn_sources(asked.arms))
    if not any(draws_weights(own, data_dir) for own in asked.arms):
        sources.remove("init")
    rows = orthogonal_array(levels, len(sources))
    return expand(parse(StudySpec, {**plain, "seeds": [dict(zip(sources, row, strict=True)) for row in rows]}))
