"""Named random streams: every random choice is a pure function of the trial's seed and the name of what is drawn.

Nothing in Leadline draws from a global generator. So two arms of one seed see the same batches, and what was
drawn for one purpose never shifts what is drawn for another, however much either draws.
"""

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

INIT = "init"  # keyed by parameter name
ORDER = "order"  # keyed by epoch
AUGMENT = "augment"  # keyed by epoch and name; row i of the draw belongs to training sample i
NOISE = "noise"  # keyed by step
SUBSET = "subset"  # keyed by split
OPTIMIZER = "optimizer"  # of a custom part; keyed by step
LOSS = "loss"  # of a custom part; keyed by step
DATA = "data"  # of a custom data set
SPLIT = "split"  # which images there are to train and test on
LABELS = "labels"  # of label noise; row i of the draw belongs to training sample i
TUNE = "tune"  # keyed by the setting's number
PRETRAINING = "pretraining"  # keyed by what is drawn, layer, epoch and step

Source = Literal["init", "order", "augment", "noise", "split"]
"""What differs from seed to seed, and may have a seed of its own: initial weights, the order of the images,
augmentation, noise in the network, and which images there are where a study resamples them, with label noise."""
SOURCES: tuple[Source, ...] = get_args(Source)

NAMES: Mapping[Source, str] = {
    "init": "initial weights",
    "order": "order",
    "augment": "augmentation",
    "noise": "noise in the network",
    "split": "choice of images",
}
"""How sentences call the sources."""

_SOURCE_OF: Mapping[str, Source] = {
    **{source: source for source in SOURCES},
    PRETRAINING: "init",
    LABELS: "split",
    OPTIMIZER: "noise",
    LOSS: "noise",
}
_KEY = "seed."
"""Begins the key of a source's seed in studies and in names: `seed.init`."""

GENERATORS = threading.RLock()
"""Held by a thread while it seeds the global generators, or does what nobody may draw from them during."""

SeedName = int | str
"""A trial's seed as tables and messages have it: the number, or the seeds by source, such as `seed.init=1`."""


class Seed(int):
    """A trial's seed with seeds of their own for some sources of randomness; the others follow the number itself.

    Args:
        number: the trial's seed.
        by_source: source -> its seed.

    Example:
        >>> Seed(0, {"init": 3})
        Seed(0, {'init': 3})
        >>> stream(Seed(0, {"init": 3}), INIT) == stream(3, INIT)
        True
        >>> stream(Seed(0, {"init": 3}), ORDER) == stream(0, ORDER)
        True
    """

    by_source: Mapping[Source, int]

    def __new__(cls, number: int, by_source: Mapping[Source, int]) -> "Seed":
        """Return the seed."""
        made = super().__new__(cls, number)
        made.by_source = {source: by_source[source] for source in SOURCES if source in by_source}
        return made

    def __reduce__(self) -> tuple[type["Seed"], tuple[int, dict[Source, int]]]:
        return Seed, (int(self), dict(self.by_source))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seed) and (int(self), self.by_source) == (int(other), other.by_source)

    def __hash__(self) -> int:
        return hash((int(self), *self.by_source.items()))

    def __repr__(self) -> str:
        return f"Seed({int(self)}, {self.by_source})"


def name_seed(seed: int) -> SeedName:
    """Return how tables and messages call a seed: `seed_of` reads it.

    Example:
        >>> name_seed(3), name_seed(Seed(0, {"init": 1, "order": 0}))
        (3, 'seed.init=1,seed.order=0')
    """
    if not isinstance(seed, Seed):
        return seed
    number = [f"seed={int(seed)}"] * (int(seed) != 0)
    return ",".join([*number, *(f"{_KEY}{source}={value}" for source, value in seed.by_source.items())])


def seed_of(name: SeedName) -> int:
    """Return the seed of a name.

    Raises:
        ValueError: it is no seed's name.

    Example:
        >>> seed_of("3"), seed_of("seed.order=0,seed.init=1")
        (3, Seed(0, {'init': 1, 'order': 0}))
    """
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    number, by_source = 0, {}
    for part in name.split(","):
        key, _, value = part.partition("=")
        if not value.isdecimal() or (key != "seed" and source_of(key) is None):
            raise ValueError(f"{part!r} is not a seed such as {_KEY}init=1")
        if (source := source_of(key)) is None:
            number = int(value)
        else:
            by_source[source] = int(value)
    return Seed(number, by_source)


def call_seed(name: SeedName) -> str:
    """Return a seed as sentences call it: `seed 3`, or the seeds by source."""
    return name if isinstance(name, str) else f"seed {name}"


def seed_order(name: SeedName) -> tuple[int, ...]:
    """Return what seeds of one study are sorted by: their numbers."""
    seed = seed_of(name)
    return (int(seed), *(seed.by_source.values() if isinstance(seed, Seed) else ()))


def levels_of_seed(seed: int) -> dict[str, int]:
    """Return a trial's seeds by source as levels of factors, such as `{"seed.init": 1}`; empty of a plain number."""
    return {key_of(source): value for source, value in seed.by_source.items()} if isinstance(seed, Seed) else {}


def divide_levels(levels: Mapping[str, Any], number: int) -> tuple[dict[str, Any], SeedName]:
    """Return the levels of factors that are not of seeds, and the name of the seed that the others are of.

    Args:
        levels: key -> level, with those of `levels_of_seed`.
        number: the trial's seed, which sources without a level follow.
    """
    by_source = {source: level for key, level in levels.items() if (source := source_of(key)) is not None}
    others = {key: level for key, level in levels.items() if source_of(key) is None}
    return others, name_seed(Seed(number, by_source) if by_source else number)


def source_of(key: str) -> Source | None:
    """Return the source of a key such as `seed.init`; None: it is another key."""
    return _BY_KEY.get(key)


def key_of(source: Source) -> str:
    """Return the key of a source's seed, such as `seed.init`."""
    return f"{_KEY}{source}"


_BY_KEY = {key_of(source): source for source in SOURCES}


def stream(seed: int, purpose: str, *keys: int | str) -> int:
    """Return the 63-bit seed of one named stream.

    The same arguments give the same number on every machine and in every version of Python; different
    arguments give independent numbers (BLAKE2b).

    Args:
        seed: the trial's seed, in which the purpose's source may have its own, or the data set's seed for subsets.
        purpose: what the numbers are for; one of the constants of this module.
        keys: what distinguishes draws for the same purpose, such as a parameter's name or an epoch number.
    """
    number = int(seed)
    if isinstance(seed, Seed) and (source := _SOURCE_OF.get(purpose)) is not None:
        number = seed.by_source.get(source, number)
    text = "\x1f".join([str(number), purpose, *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch within the context and restore them afterwards.

    Custom code may draw from any of them; its random numbers are then the same in every run. Another thread waits
    until the body has ended.

    Args:
        seed: from `stream`.

    Example:
        >>> import random
        >>> with seeded(stream(0, AUGMENT, 3)):
        ...     first = random.random()
        >>> with seeded(stream(0, AUGMENT, 3)):
        ...     first == random.random()
        True
    """
    import numpy as np
    import torch

    with GENERATORS:
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            with torch.random.fork_rng(range(torch.cuda.device_count()) if used else []):
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002
                torch.manual_seed(seed)
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
