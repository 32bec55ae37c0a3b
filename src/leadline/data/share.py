"""The part of every batch that falls to one of several devices that train one network together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One of `of` parts: the rows of a training batch that lie together, and every `of`-th batch of evaluation.

    Parts of a batch differ by one row at most; of a batch with fewer rows than parts, some are empty.
    """

    index: int = 0
    of: int = 1

    def rows(self, count: int) -> slice:
        """Return which of a batch's `count` rows these are."""
        return slice(count * self.index // self.of, count * (self.index + 1) // self.of)


WHOLE = Share()
