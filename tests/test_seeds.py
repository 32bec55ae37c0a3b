"""Streams: pinned values, independence of names, nothing global."""

from hypothesis import given
from hypothesis import strategies as st

from leadline.seeds import AUGMENT, INIT, NOISE, ORDER, SUBSET, stream

KEYS = st.lists(st.integers(0, 10**6) | st.text(max_size=8), max_size=3)


def test_values_are_the_same_everywhere() -> None:
    assert stream(0, INIT, "head.linear.weight") == 0x20B350A7D2E83CA7
    assert stream(1, ORDER, 7) == 0x576C96B86BBBE0CC


@given(st.integers(0, 2**31), KEYS, st.integers(0, 2**31), KEYS)
def test_equal_exactly_when_arguments_are(
    seed: int, keys: list[int | str], other: int, others: list[int | str]
) -> None:
    assert (stream(seed, ORDER, *keys) == stream(other, ORDER, *others)) == ((seed, keys) == (other, others))


def test_purposes_differ() -> None:
    purposes = [INIT, ORDER, AUGMENT, NOISE, SUBSET]
    assert len({stream(0, purpose, 1) for purpose in purposes}) == len(purposes)


def test_number_and_text_keys_differ() -> None:
    assert stream(0, ORDER, 1) != stream(0, ORDER, "1")


@given(st.integers(0, 2**31), KEYS)
def test_range_suits_torch_and_numpy(seed: int, keys: list[int | str]) -> None:
    assert 0 <= stream(seed, NOISE, *keys) < 2**63
