"""Calling again, with growing pauses, what fails for the moment."""

import time
from collections.abc import Callable
from typing import TypeVar

LONGEST_PAUSE = 10.0
"""Maximum seconds between two tries; each pause is twice the one before, up to this."""

T = TypeVar("T")


def retry(
    function: Callable[[bool], T], seconds: float, first_pause: float, may_pass: Callable[[Exception], bool]
) -> T:
    """Return function(again), called again with growing pauses while what it raises may pass.

    Args:
        function: is told whether it is called again; what it did before may or may not have had its effect.
        seconds: after which no further try begins; 0: there is only one.
        first_pause: seconds before the second try.
        may_pass: whether a call that raised this error may succeed later.

    Raises:
        Exception: what the function raised last.

    >>> retry(lambda again: 1 / int(again), 5.0, 0.01, lambda error: isinstance(error, ZeroDivisionError))
    1.0
    """
    began, pause, again = time.monotonic(), first_pause, False
    while True:
        try:
            return function(again)
        except Exception as error:
            if not may_pass(error) or time.monotonic() + pause > began + seconds:
                raise
        time.sleep(pause)
        pause, again = min(2 * pause, LONGEST_PAUSE), True
