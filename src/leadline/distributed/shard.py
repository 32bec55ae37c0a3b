"""The part of every batch that falls to one of the processes that train one network together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of `count` parts: the rows of a training batch that lie together, and every `count`-th evaluation batch.

    Parts of a batch differ by one row at most; of a batch with fewer rows than parts, some are empty.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """Return which rows of a batch these are.

        >>> Shard(1, 2).rows(7)
        slice(3, 7, None)
        """
        return slice(batch_size * self.index // self.count, batch_size * (self.index + 1) // self.count)


WHOLE = Shard()
