"""Numbers, counts and lists in plain English: the one place that knows how every output writes them."""

import math
import re
from collections.abc import Sequence

NOTHING = "–"
"""What stands for a value that is missing."""

LONGEST = 6
"""Names, levels or lines that a reader takes in at once; more are counted."""


def plural(count: int, singular: str, many: str = "") -> str:
    """Return a count with its noun, or any words that depend on it.

    Args:
        count: how many there are.
        singular: the words for one.
        many: the words for any other number; by default `singular` with an s.

    Examples:
        >>> plural(1, "trial"), plural(1200, "trial"), plural(2, "trial has", "trials have")
        ('1 trial', '1,200 trials', '2 trials have')
    """
    return f"{count:,} {singular if count == 1 else many or f'{singular}s'}"


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Return a number with a fixed number of decimals, a true minus sign and no sign on zero.

    Args:
        value: None and NaN give a dash.
        digits: decimals.
        signed: whether a number above zero gets a plus sign.

    Examples:
        >>> number(-1.25, 1), number(-0.001), number(3.14159, 3, signed=True), number(None)
        ('−1.2', '0.00', '+3.142', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def magnitude(value: float) -> str:
    """Return a number of any size with two significant digits.

    Examples:
        >>> magnitude(0.25), magnitude(3e-9), magnitude(12345.0)
        ('0.25', '3e-9', '1.2e4')
    """
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].strip('+')}{found[2]}", f"{value:.2g}")


def interval(ends: Sequence[float | None] | None, digits: int = 2, signed: bool = False) -> str:
    """Return the ends of an interval, or a dash where it is missing or has no finite ends.

    Examples:
        >>> interval((-4.484, 0.484), 1), interval(None)
        ('−4.5 to 0.5', '–')
    """
    if ends is None or not all(end is not None and math.isfinite(end) for end in ends):
        return NOTHING
    return " to ".join(number(end, digits, signed) for end in ends)


def clock(seconds: float) -> str:
    """Return a time in its two largest units.

    Examples:
        >>> clock(40), clock(125), clock(3900)
        ('40 s', '2 min 05 s', '1 h 05 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def byte_size(count: float) -> str:
    """Return the size of files, of a disk or of memory.

    Examples:
        >>> byte_size(0), byte_size(1000), byte_size(1536), byte_size(5 * 2**20), byte_size(2**30 - 1), byte_size(2**41)
        ('0 bytes', '1,000 bytes', '1.5 KiB', '5.0 MiB', '1.0 GiB', '2.0 TiB')
    """
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= 0.9995 * size:  # which rounds up to it
            return f"{count / size:,.1f} {unit}"
    return plural(round(count), "byte")


def p_value(p: float | None) -> str:
    """Return a p-value with two significant digits, or that it is below 0.001.

    Examples:
        >>> p_value(0.0312), p_value(0.25), p_value(1e-6), p_value(None)
        ('0.031', '0.25', '<0.001', '–')
    """
    if p is None or math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def decimals(estimate: float, ends: tuple[float, float] | None) -> int:
    """Return how many decimals, 1 to 3, an estimate and its interval need.

    They show two significant digits of the interval's half-width, and no number that falsely reads as zero.

    Examples:
        >>> decimals(-2.0, (-4.5, 0.5)), decimals(0.7, None), decimals(0.01, (-0.004, 0.024))
        (1, 2, 3)
    """
    low, high = ends or (estimate, estimate)
    half = (high - low) / 2
    enough = 1 - math.floor(math.log10(half)) if half > 0 else 1 if ends else 2
    shown = [value for value in (estimate, low, high) if value != 0]
    return next((d for d in (1, 2) if d >= enough and all(round(value, d) for value in shown)), 3)


def join(items: Sequence[str], most: int | None = None, mark: str = ",") -> str:
    """Return items as one list; those beyond the first `most` are counted.

    Args:
        items: words or clauses; none gives an empty text.
        most: items that are written out; by default 6, or 12 with semicolons.
        mark: "," puts "and" before the last item; ";", for items that contain commas, does not.

    Examples:
        >>> join(["a", "b", "c"]), join(["a", "b", "c"], most=1), join(["a, b", "c"], mark=";")
        ('a, b and c', 'a and 2 more', 'a, b; c')
    """
    most = most or (LONGEST if mark == "," else 2 * LONGEST)
    shown = [*items[:most], *([f"{len(items) - most:,} more"] if len(items) > most else [])]
    if mark != "," or len(shown) < 2:
        return f"{mark} ".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
