"""What is found out about a study, stored beside the specification, which no run changes."""

from collections.abc import Mapping

from pydantic import Field

from leadline.parts.base import Spec
from leadline.specs.network import NetworkSpec
from leadline.specs.tuning import Values
from leadline.study.origin import is_other_experiment


def complete_title(title: str, name: str, is_search: bool, changed: Mapping[str, str]) -> str:
    """Return the title of a study, of which it says that it is a search, or other than the ready study of this title.

    Example:
        >>> complete_title("CNN against ResNet", "mine", False, {"training.epochs": "10 -> 3"})
        'CNN against ResNet (changed)'
    """
    if title and "title" not in changed and is_other_experiment(changed):
        title = f"{title} (changed)"
    return f"Tuning of {title or name}" if is_search else title


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
    """What `match`, `tune` and `decide` found so far, and what differs from the ready study; nothing without them."""

    changed: dict[str, str] = Field(
        default={}, description="key that differs from the ready study of `based_on` -> what it was and what it is"
    )
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

    def is_own(self, key: str) -> bool:
        """Return whether a key, such as `published`, is about this study, and not about the one it was made from."""
        return key in self.changed or not is_other_experiment(self.changed)


NOTHING_FOUND = ResolvedStudy()
