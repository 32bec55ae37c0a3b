"""The reader of pickles: it reads what every Python and numpy wrote, and calls nothing that a file names."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.data.formats.cifar import read_batch
from leadline.data.formats.pickled import MAX_INSTRUCTIONS, read_pickle


def python2(batch: dict[bytes, object]) -> bytes:
    """Write a batch instruction by instruction as cPickle of Python 2 wrote the published files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def value(item: object) -> bytes:
        if isinstance(item, bytes):
            return text(item)
        if isinstance(item, int):
            return b"K" + bytes([item])
        if isinstance(item, list):
            return b"](" + b"".join(map(value, item)) + b"e"
        assert isinstance(item, np.ndarray)
        raw = item.tobytes()
        rows, columns = (b"M" + struct.pack("<H", length) for length in item.shape)
        state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        dtype = b"cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87R" + state
        start = b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85q\x07U\x01b\x87R"
        return (
            start + b"(K\x01" + rows + columns + b"\x86" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
        )

    return b"\x80\x02}q\x01(" + b"".join(text(key) + value(item) for key, item in batch.items()) + b"u."


def protocol(number: int) -> Callable[[dict[bytes, object]], bytes]:
    return lambda batch: pickle.dumps(batch, protocol=number)


@pytest.mark.parametrize("dump", [python2, *(protocol(n) for n in (2, 3, 4, 5))])
def test_batches_of_every_python_are_read(dump: Callable[[dict[bytes, object]], bytes]) -> None:
    rng = np.random.default_rng(0)
    data, labels = rng.integers(0, 256, (20, 3072), np.uint8), (np.arange(20) % 10).tolist()
    batch = {b"batch_label": b"one", b"labels": labels, b"data": data, b"filenames": [b"caf\xe9"] * 20}
    images, found = read_batch(dump(batch), 20, (3, 32, 32), 10, "labels")
    assert np.array_equal(images, data.reshape(20, 3, 32, 32)) and found.tolist() == labels
    assert found.dtype == np.int64


def test_labels_may_be_an_array() -> None:
    content = dumped(labels=np.arange(10, dtype=np.int32))
    assert read_batch(content, 10, (3, 32, 32), 10, "labels")[1].tolist() == list(range(10))


class Hostile:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


def good_batch() -> dict[bytes, object]:
    return {b"data": np.zeros((10, 3072), np.uint8), b"labels": [0] * 10}


def dumped(**changes: object) -> bytes:
    """Pickle a good batch with some values changed, or left out where they are None."""
    batch = {**good_batch(), **{key.encode(): value for key, value in changes.items()}}
    return pickle.dumps({key: value for key, value in batch.items() if value is not None}, protocol=4)


ENCODE_BOMB = (
    b"\x80\x02c_codecs\nencode\nq\0X\x10\x27\0\0" + b"a" * 10_000 + b"q\x01U\x06latin1\x86q\x02" + b"h\0h\x02R" * 9
)
CASES: dict[str, tuple[bytes, str]] = {
    "shell": (pickle.dumps(Hostile(os.system, "touch OWNED"), 2), "names 'posix.system', which no array"),
    "shell inside": (dumped(extra=Hostile(os.system, "touch OWNED")), "names 'posix.system'"),
    "eval": (dumped(extra=Hostile(eval, "1")), "names 'builtins.eval'"),
    "getattr": (dumped(extra=Hostile(getattr, "a", "b")), "names 'builtins.getattr'"),
    "object array": (dumped(data=np.full((10, 3072), None)), "array of type 'O8', expected plain integers"),
    "structure": (dumped(data=np.zeros(3, [("a", "u1")])), "array of type 'V1', expected plain integers"),
    "array of floats": (dumped(data=np.zeros(9)), "array of type 'f8', expected plain integers"),
    "class": (dumped(extra=Path("x")), "names 'pathlib.PosixPath'"),
    "wrong type": (dumped(data=np.zeros((10, 3072), np.int8)), "its 'data' are int8, expected an array of uint8"),
    "no array": (dumped(data=[0]), "its 'data' are list, expected an array of uint8"),
    "wrong shape": (dumped(data=np.zeros((9, 3072), np.uint8)), "shape (9, 3072), expected (10, 3072)"),
    "label count": (dumped(labels=[0] * 9), "has 9 'labels' for 10 images"),
    "label range": (dumped(labels=[0] * 9 + [10]), "label 10 at position 9, expected 0 to 9"),
    "label type": (dumped(labels=[0] * 9 + ["3"]), "label '3' at position 9, expected 0 to 9"),
    "label missing": (dumped(labels=None, fine_labels=[0] * 10), "has no 'labels', only 'data', 'fine_labels'"),
    "not a dictionary": (pickle.dumps([1], 2), "the pickle holds a list, expected a dictionary"),
    "truncated": (dumped()[:-20], "the pickle is damaged"),
    "trailing": (dumped() + b"x", "the pickle ends at byte"),
    "web page": (b"<!DOCTYPE html>", "the pickle is damaged"),
    "empty": (b"", "the pickle is damaged"),
    "hash bomb": (b"\x80\x02}" + b")" + b"q\0h\0\x86" * 99 + b"K\0s.", "a dictionary key that is a tuple"),
    "memo bomb": (b"\x80\x02}r\xff\xff\xff\x7f.", "has no 'data', only nothing"),
    "length bomb": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "the pickle is damaged"),
    "encode bomb": (ENCODE_BOMB + b".", "creates more bytes from its strings than the file has"),
    "old instruction": (b"(ios\nsystem\n.", "has the instruction INST, which plain data never need"),
    "unknown extension": (b"\x80\x02\x82\x01.", "has the instruction EXT1"),
    "persistent": (b"\x80\x02U\x01aQ.", "has the instruction BINPERSID"),
    "stack": (b"\x80\x02a.", "takes more from its stack than it put there"),
    "list filled with itself": (b"\x80\x02}U\x04data]q\0h\0as.", "has no 'labels', only 'data'"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_pickle_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    content, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        read_batch(content, 10, (3, 32, 32), 10, "labels")
    message = str(caught.value)
    assert expected in message and "\n" not in message and len(message) < 200
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_pickle_has_an_end() -> None:
    with pytest.raises(ValueError, match="more than 2,000,000 instructions"):
        read_pickle(b"\x80\x02" + b"N" * (MAX_INSTRUCTIONS + 1) + b".")


@pytest.mark.parametrize("number", [2, 3, 4, 5])
@pytest.mark.parametrize("code", ["u1", "<i2", ">i4", "<u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_pickle_itself_gives_them(number: int, code: str, order: str) -> None:
    array = np.array(np.arange(12).reshape(3, 4), np.dtype(code), order=order)  # type: ignore[call-overload]
    content = pickle.dumps(
        {"a": array, b"b\xe9": [1, -1, 2**40, "text", b"\xff", 1.5, None, True, ()]}, protocol=number
    )
    found = read_pickle(content)
    assert np.array_equal(found["a"], array) and found["a"].dtype == array.dtype  # type: ignore[attr-defined, arg-type]
    assert found["b\xe9"] == pickle.loads(content)[b"b\xe9"]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_pickle_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    batch = {b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"labels": [0, 1], b"filenames": [b"\xff"]}
    content = bytearray(
        python2(batch) if data.draw(st.booleans()) else pickle.dumps(batch, data.draw(st.integers(2, 5)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 4))
        content[place : place + length] = data.draw(st.binary(max_size=4))
        content = content or bytearray(b".")
    try:
        read_pickle(bytes(content))
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
