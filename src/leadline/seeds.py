"""Named random streams: every random choice is a pure function of the trial's seed and the name of what is drawn.

Nothing in Leadline draws from a global generator. So two arms of one seed see the same batches, and what was
drawn for one purpose never shifts what is drawn for another, however much either draws.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

INIT = "init"  # keyed by parameter name
ORDER = "order"  # keyed by epoch
AUGMENT = "augment"  # keyed by epoch; row i of the draw belongs to training sample i
NOISE = "noise"  # keyed by step
SUBSET = "subset"  # keyed by split
OPTIMIZER = "optimizer"  # of a custom part; keyed by step
LOSS = "loss"  # of a custom part; keyed by step
DATA = "data"  # of a custom data set
TUNE = "tune"  # keyed by the setting's number


def stream(seed: int, purpose: str, *keys: int | str) -> int:
    """Return the 63-bit seed of one named stream.

    The same arguments give the same number on every machine and in every version of Python; different
    arguments give independent numbers (BLAKE2b).

    Args:
        seed: the trial's seed, or the data set's seed for subsets.
        purpose: what the numbers are for; one of the constants of this module.
        keys: what distinguishes draws for the same purpose, such as a parameter's name or an epoch number.
    """
    text = "\x1f".join([str(seed), purpose, *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch within the context and restore them afterwards.

    Custom code may draw from any of them; its random numbers are then the same in every run.

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

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
