"""Named random streams: every random choice is a pure function of the trial's seed and the name of what is drawn.

Nothing in Leadline draws from a global generator. So two arms of one seed see the same batches, and what was
drawn for one purpose never shifts what is drawn for another, however much either draws.
"""

import hashlib

INIT = "init"  # keyed by parameter name
ORDER = "order"  # keyed by epoch
AUGMENT = "augment"  # keyed by epoch; row i of the draw belongs to training sample i
NOISE = "noise"  # keyed by step
SUBSET = "subset"  # keyed by split
TUNE = "tune"  # keyed by the setting's number


def stream(seed: int, purpose: str, *keys: int | str) -> int:
    """Return the 63-bit seed of one named stream.

    The same arguments give the same number on every machine and in every version of Python; different
    arguments give independent numbers (BLAKE2b).

    Args:
        seed: the trial's seed, or the data set's seed for subsets.
        purpose: what is drawn, one of the constants of this module.
        keys: what tells one draw of this purpose from another, such as a parameter's name or an epoch's number.
    """
    text = "\x1f".join([str(seed), purpose, *(f"{type(key).__name__}:{key}" for key in keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
