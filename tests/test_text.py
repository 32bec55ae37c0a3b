"""Numbers, counts and lists in words: the examples of each function, and what holds of any input."""

import doctest
import math

from hypothesis import given
from hypothesis import strategies as st

from leadline import text


def test_examples_are_true() -> None:
    assert doctest.testmod(text).attempted >= 7 and doctest.testmod(text).failed == 0


@given(st.floats(-1e6, 1e6), st.integers(0, 3), st.booleans())
def test_a_number_reads_back_and_zero_has_no_sign(value: float, digits: int, signed: bool) -> None:
    written = text.number(value, digits, signed)
    back = float(written.replace("−", "-"))
    assert "-" not in written and math.isclose(back, value, abs_tol=0.5001 * 10.0**-digits)
    assert (written[0] in "−+") == (back < 0 or (signed and back > 0))


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30), st.integers(1, 20))
def test_a_list_names_the_first_and_counts_the_others(items: list[str], most: int) -> None:
    written = text.join(items, most)
    left = len(items) - most
    assert written.endswith(f"{left} more") == (left > 0)
    assert written.replace(" and ", ", ").split(", ")[: min(most, len(items))] == items[:most]


def test_what_is_missing_is_a_dash() -> None:
    assert {text.number(math.nan), text.p_value(math.nan), text.interval((-math.inf, 1.0)), text.number(None)} == {"–"}
