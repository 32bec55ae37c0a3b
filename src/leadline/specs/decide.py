"""How a study decides while seeds are added: how sure it must be, how many seeds it may take, how many at a time."""

from collections.abc import Mapping

from pydantic import Field, model_validator

from leadline.errors import SpecError
from leadline.parts.base import Spec
from leadline.specs.contrast import ContrastSpec, MetricName, needs_target

MOST = 400
"""Seeds at which the last look can be taken; see `leadline.analysis.stats.sequential`."""
LEAST_ERROR = 1e-6
"""Of one contrast's intervals, at the highest confidence that they can be had at."""


class DecideSpec(Spec):
    """Seeds are added in rounds until every contrast is decided, or there are `max_seeds` of them."""

    metric: MetricName = Field(default="test_error", description="default metric of contrasts that name none")
    margin: float | None = Field(
        default=None,
        gt=0,
        description="difference within which two arms are considered equivalent; None: the study's margin",
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        le=0.999,
        description="probability that every interval of every contrast, at every look, contains the true difference",
    )
    max_seeds: int = Field(
        default=20, ge=2, le=MOST, description="number of seeds after which the study ends undecided"
    )
    first: int = Field(default=3, ge=2, description="number of seeds in the first round, in which all arms are trained")
    step: int | None = Field(
        default=None,
        ge=1,
        description="number of seeds in every later round; None: as many as would decide the closest contrast if its"
        " mean and standard deviation stayed the same, at most as many as there are already",
    )
    planned: int | None = Field(
        default=None,
        ge=2,
        le=MOST,
        description="number of seeds over which the error probability is spread; fixed at the first look; None:"
        " max_seeds",
    )

    @model_validator(mode="after")
    def _possible(self) -> "DecideSpec":
        if self.first > self.max_seeds:
            raise ValueError(f"first {self.first} is more than max_seeds {self.max_seeds}")
        if needs_target(self.metric):
            raise ValueError(f"metric {self.metric} {_NO_INTERVAL}")
        return self

    @property
    def shared_over(self) -> int:
        """Seeds over which the error is shared out."""
        return self.planned or self.max_seeds

    def fill(self, contrast: ContrastSpec) -> ContrastSpec:
        """Return a contrast with the margin that it does not name, where its metric is the one to decide.

        Raises:
            SpecError: its metric cannot be decided in rounds.
        """
        if needs_target(contrast.metric):
            raise SpecError(f"metric {contrast.metric} {_NO_INTERVAL}")
        if contrast.margin is None and contrast.metric == self.metric:
            return contrast.model_copy(update={"margin": self.margin})
        return contrast

    def named(self, contrast: object) -> object:
        """Return a contrast, as a file gives it, with the metric that it does not name."""
        if isinstance(contrast, list | tuple) and len(contrast) == 2:
            contrast = dict(zip("ab", contrast, strict=True))
        return {"metric": self.metric, **contrast} if isinstance(contrast, Mapping) else contrast


_NO_INTERVAL = (
    "cannot be used with decide: some trials never reach the target, and no interval that is valid at every look is"
    " known for such times; choose another metric, or remove decide"
)
