"""Read the pickles of CIFAR without unpickling: no function named in a file is ever called.

A pickle is a program. Even with restricted globals, a file of a few bytes can make Python's unpickler exhaust memory or
hash forever. This reader, based on `pickletools.genops`, supports only the instructions for dictionaries, lists,
numbers, strings and plain integer arrays (protocols 2 to 5, as written by Python 2 and 3 and all versions of NumPy so
far) and rejects all others. The size of its result is bounded by the number of instructions and by the bytes in arrays
and strings.
"""

import math
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_INSTRUCTIONS = 2_000_000
"""Maximum number of instructions: more than three times that of the longest file of CIFAR."""

_ENCODE = "_codecs encode"  # how protocol 2 writes bytes of Python 3
_ARRAY, _DTYPE = "numpy ndarray", "numpy dtype"
_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_FROM_BUFFER = {"numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"}
_KNOWN = {_ENCODE, _ARRAY, _DTYPE} | _RECONSTRUCT | _FROM_BUFFER
_DTYPES = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True)
class _Global:
    name: str  # module and name, with a space between


@dataclass
class _Type:
    code: str


@dataclass
class _Array:
    """An array that the pickle is still building."""

    value: NDArray[Any] | None = None


def read_pickle(content: bytes) -> dict[str, object]:
    """Return the dictionary in a pickle, with text keys and NumPy arrays of integers.

    Strings of Python 2 are decoded as Latin 1.

    Raises:
        ValueError: the pickle is damaged, or contains anything but plain data; the message does not name the file.
    """
    result = _Reader(len(content)).run(content)
    if not isinstance(result, dict):
        raise ValueError(f"the pickle holds a {type(result).__name__.lstrip('_')}, expected a dictionary")
    return {_text(key): value.value if isinstance(value, _Array) else value for key, value in result.items()}


class _Reader:
    """A stack machine with a memo and a limit on the bytes that it creates."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.budget = 2 * size  # remaining bytes that may be created from strings, which can be repeated many times

    def run(self, content: bytes) -> object:
        end: int | None = None
        try:
            for count, (opcode, argument, position) in enumerate(_instructions(content)):
                if count >= MAX_INSTRUCTIONS:
                    raise ValueError(f"the pickle has more than {MAX_INSTRUCTIONS:,} instructions")
                if opcode.name == "STOP":
                    end = position
                else:
                    self.step(opcode.name, argument)
        except IndexError:
            raise ValueError("the pickle is damaged: it takes more from its stack than it put there") from None
        except (UnicodeError, OverflowError) as error:
            raise ValueError(f"the pickle is damaged: {type(error).__name__}") from None
        if end is None or end + 1 != len(content):
            raise ValueError(f"the pickle ends at byte {end}, but {len(content):,} bytes are there")
        if len(self.stack) != 1:
            raise ValueError(f"the pickle leaves {len(self.stack)} values, expected one")
        return self.stack.pop()

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise ValueError(f"the pickle is damaged: it names value {argument}, which it never stored")
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            stack.append(tuple(self.pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self.pop_to_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = self.pop_to_mark() if name == "APPENDS" else self.pop(1)
            self.top(list).extend(items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("SETITEM", "SETITEMS"):
            self.set_items(self.pop_to_mark() if name == "SETITEMS" else self.pop(2))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "GLOBAL":
            self.push_global(argument)
        elif name == "STACK_GLOBAL":
            self.push_global(" ".join(_text(part) for part in self.pop(2)))
        elif name == "REDUCE":
            function, arguments = self.pop(2)
            stack.append(self.call(function, arguments))
        elif name == "BUILD":
            (state,) = self.pop(1)
            self.set_state(self.top(_Array, _Type), state)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the pickle has the instruction {name}, which plain data never need")

    def pop(self, count: int) -> list[Any]:
        if count == 0:
            return []
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        if any(item is _MARK for item in items):
            raise IndexError
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def top(self, *kinds: type) -> Any:
        if not isinstance(self.stack[-1], kinds):
            raise ValueError(f"the pickle is damaged: a {type(self.stack[-1]).__name__.lstrip('_')} is being filled")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("the pickle is damaged: a key has no value")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Only text may be hashed, because hashing nested tuples could take forever.
            if not isinstance(key, str | bytes):
                raise ValueError(
                    f"the pickle has a dictionary key that is a {type(key).__name__.lstrip('_')}, expected text"
                )
            target[key] = value

    def push_global(self, name: str) -> None:
        if name not in _KNOWN:
            raise ValueError(
                f"the pickle names {_short(name.replace(' ', '.'))}, which no array, list, number or string needs"
            )
        self.stack.append(_Global(name))

    def call(self, function: object, arguments: object) -> object:
        """Return the result of one of the supported functions."""
        name = function.name if isinstance(function, _Global) else ""
        match arguments:
            case (str(text), "latin1" | "latin-1" | b"latin1") if name == _ENCODE:
                return self.encoded(text)
            case (str() | bytes() as code, *_) if name == _DTYPE:
                if _text(code).lstrip("|<>=") not in _DTYPES:
                    raise ValueError(f"the pickle has an array of type {_short(_text(code))}, expected plain integers")
                return _Type(_text(code))
            case (_Global(name=kind), *_) if name in _RECONSTRUCT and kind == _ARRAY:
                return _Array()
            case (raw, _Type(code=code), tuple(shape), order) if name in _FROM_BUFFER:
                return _Array(self.array(raw, code, shape, order == "F"))
        raise ValueError(
            f"the pickle calls {name.replace(' ', '.') or 'no function'} in a way that plain data never need"
        )

    def set_state(self, target: _Array | _Type, state: object) -> None:
        """Set the state of an array or a type, as stored by NumPy."""
        match target, state:
            case _Type(), (int(), str() | bytes() as order, *_) if _text(order) in ("|", "<", ">", "="):
                target.code = _text(order) + target.code.lstrip("|<>=")
            case _Array(), (int(), tuple(shape), _Type(code=code), bool(fortran), raw):
                target.value = self.array(raw, code, shape, fortran)
            case _:
                raise ValueError("the pickle is damaged: an array's state is not as numpy writes it")

    def array(self, raw: object, code: str, shape: tuple[Any, ...], fortran: bool) -> NDArray[Any]:
        """Return bytes as an array of integers, after checking their number."""
        content = self.encoded(raw) if isinstance(raw, str | bytearray) else raw
        if not isinstance(content, bytes):
            raise ValueError(f"the pickle has an array of {_kind(raw)}, expected bytes")
        values = np.frombuffer(content, np.dtype(code))
        possible = len(shape) <= 4 and all(type(length) is int and 0 <= length <= values.size for length in shape)
        if not possible or math.prod(shape) != values.size:
            raise ValueError(f"the pickle has {values.size:,} values for an array of shape {_short(shape)}")
        return values.reshape(shape, order="F" if fortran else "C")

    def encoded(self, text: str | bytearray) -> bytes:
        self.budget -= len(text)
        if self.budget < 0:
            raise ValueError("the pickle creates more bytes from its strings than the file has")
        return text.encode("latin1") if isinstance(text, str) else bytes(text)


def _instructions(content: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(content)
    except (ValueError, DeprecationWarning) as error:  # the latter where warnings are errors: a strange escape
        raise ValueError(f"the pickle is damaged: {_short(str(error))}") from None


def _kind(value: object) -> str:
    return type(value).__name__.lstrip("_")


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise ValueError(f"the pickle is damaged: a name is a {type(value).__name__.lstrip('_')}")
