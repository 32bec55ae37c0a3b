"""What a run finds out about a study, stored beside the specification, which no run changes."""

from pydantic import Field

from leadline.parts.base import Spec
from leadline.specs.network import NetworkSpec
from leadline.specs.tuning import Values

TITLE_OF_SEARCH = "Tuning of {}"


class MatchedArm(Spec):
    """An arm whose widths were changed, with the network that it has now and what was changed in words."""

    arm: str
    network: NetworkSpec
    sentence: str


class Searched(Spec):
    """What the study of a search runs: every setting that was asked for so far, and the seeds that each is tried at."""

    seeds: list[int]
    tried: dict[str, list[Values]] = Field(description="arm -> its settings, in the order in which they are tried")


class ResolvedStudy(Spec):
    """What `match`, `tune` and `decide` found so far; a study without them resolves to nothing."""

    matched: list[MatchedArm] | None = Field(default=None, description="what `match` changed; None: not matched yet")
    search: Searched | None = Field(default=None, description="of the study that holds the trials of a search alone")
    chosen: dict[str, Values] | None = Field(
        default=None, description="arm -> the values that the search chose; None: not searched yet"
    )
    planned: int | None = Field(
        default=None, description="seeds over which `decide` shares the error out, fixed before the first look"
    )
    drawn: dict[str, int] = Field(default={}, description="arm -> seeds that `decide` has given to it so far")
    code: dict[str, dict[str, str]] = Field(
        default={}, description="arm -> the custom code and data files that it uses, with what identifies them"
    )


NOTHING_FOUND = ResolvedStudy()
