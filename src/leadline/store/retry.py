"""Retry with exponential backoff."""

import time
from collections.abc import Callable
from typing import TypeVar

LONGEST_PAUSE = 10.0
"""Maximum seconds between two attempts; each pause is twice the one before, up to this."""

T = TypeVar("T")


def retry(
    function: Callable[[bool], T], seconds: float, first_pause: float, is_transient: Callable[[Exception], bool]
) -> T:
    """Call function(again) and return its result, retrying with growing pauses while its errors may be temporary.

    Args:
        function: called with whether this is a retry; the earlier call may or may not have taken effect.
        seconds: time after which no further attempt begins; 0: only one attempt.
        first_pause: seconds before the second attempt.
        is_transient: whether a call that raised this error may succeed later.

    Raises:
        Exception: the last error of the function.

    >>> retry(lambda again: 1 / int(again), 5.0, 0.01, lambda error: isinstance(error, ZeroDivisionError))
    1.0
    """
    began, pause, again = time.monotonic(), first_pause, False
    while True:
        try:
            return function(again)
        except Exception as error:
            if not is_transient(error) or time.monotonic() + pause > began + seconds:
                raise
        time.sleep(pause)
        pause, again = min(2 * pause, LONGEST_PAUSE), True
