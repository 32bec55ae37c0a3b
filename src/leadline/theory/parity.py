"""Parity as circuits: what depth saves, counted in circuits that are built and verified, beside the closed forms.

Parity, sum(x) mod 2, is the classical function for which depth pays. A circuit of ANDs and ORs of depth 2 needs
2^(n-1) terms: a term that leaves a bit out would be 1 on inputs of both parities, so each input of odd parity has a
term of its own. Any fixed depth k needs exp(Omega(n^(1/(k-1)))) gates (Hastad 1986). A tree of XOR gates needs n - 1.

What costs so much is AND and OR, not depth 2 alone: linear threshold gates, which is what neurons are, compute every
symmetric function of n bits in two layers of n + 1 gates (Muroga 1971). For parity the wires are then n (n + 1), and
more layers save on those, which the tree does: a threshold circuit of depth d needs (n/2)^(1/(2(d-1))) gates, and at
any fixed depth more than linearly many wires (Impagliazzo, Paturi & Saks 1997).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch

from leadline.errors import SpecError, unknown
from leadline.seeds import SUBSET, stream
from leadline.theory.circuits import (
    And,
    Bits,
    Circuit,
    Gate,
    Not,
    Or,
    Recurrence,
    RecurrentThresholdNetwork,
    Threshold,
    ThresholdNetwork,
    Values,
    Xor,
    evaluate,
    network,
    network_size,
    size,
)

ALL_INPUTS_TO = 16
"""Up to so many bits a circuit is verified on all of its inputs."""
RANDOM_INPUTS = 2048
COUNTED_TO = 56
"""Bits up to which every count is a whole number below 2^63."""

NOTE = (
    "n bits; NOT gates are free. XOR tree: n − 1 gates, 2(n − 1) wires, depth ⌈log2 n⌉. O(n log n) is true of it as an"
    " upper bound, but none of the three is n log n: gates and wires are linear in n. DNF: exponential because its"
    " gates are AND and OR; threshold gates do with n + 1 at the same depth, and n(n + 1) wires. An XOR gate is two"
    " layers of threshold units, so depth is given in both. The recurrent cell is counted as unrolled, its parameters"
    " as stored."
)


# --- the circuits


def dnf(bits: int) -> Circuit:
    """Return parity as an OR of ANDs: a term for each of the 2^(n-1) inputs of odd parity.

    Raises:
        SpecError: fewer than 2 bits, or over 20, which make more terms than are worth building.
    """
    _check(bits, "dnf")
    values = all_inputs(bits)
    literals = np.where(values[parity(values) == 1], np.arange(bits), bits + np.arange(bits))
    terms = [And(tuple(term)) for term in literals.tolist()]
    both = 2 * bits
    return Circuit("dnf", bits, (*map(Not, range(bits)), *terms, Or(tuple(range(both, both + len(terms))))))


def tree(bits: int) -> Circuit:
    """Return parity as a balanced tree of XOR gates.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "tree")
    gates: list[Gate] = []
    level = list(range(bits))
    while len(level) > 1:
        pairs = list(zip(level[::2], level[1::2], strict=False))
        above = range(bits + len(gates), bits + len(gates) + len(pairs))
        gates += map(Xor, pairs)
        level = [*above, *level[2 * len(pairs) :]]
    return Circuit("tree", bits, tuple(gates))


def chain(bits: int) -> Circuit:
    """Return parity as XOR gates in a row, each of which takes one bit more.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "chain")
    return Circuit("chain", bits, (Xor((0, 1)), *(Xor((bits + i, i + 2)) for i in range(bits - 2))))


def recurrent(bits: int) -> Recurrence:
    """Return parity as one XOR cell that is applied to one bit after another, as a recurrent network is.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "recurrent")
    return Recurrence("recurrent", Circuit("cell", 2, (Xor((0, 1)),)), bits)


def threshold(bits: int) -> Circuit:
    """Return parity as two layers of threshold gates: are at least 1, 2, ... n bits 1? + - + ... of the answers.

    Source: Muroga 1971, for every symmetric function.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "threshold")
    counting = [Threshold(tuple(range(bits)), (1,) * bits, least) for least in range(1, bits + 1)]
    signs = tuple(1 - 2 * (i % 2) for i in range(bits))
    return Circuit("threshold", bits, (*counting, Threshold(tuple(range(bits, 2 * bits)), signs, 1)))


@dataclass(frozen=True)
class Law:
    """A closed form: as it is written, and its value for so many bits."""

    text: str
    value: Callable[[int], int]


@dataclass(frozen=True)
class Family:
    """One circuit for every number of bits, with the closed form of each of its quantities."""

    title: str
    build: Callable[[int], Circuit | Recurrence]
    most: int  # bits
    laws: Mapping[str, Law]


QUANTITIES = MappingProxyType(
    {
        "gates": "Gates",
        "wires": "Wires",
        "depth": "Depth",
        "fan_in": "Largest fan-in",
        "units": "Threshold units",
        "unit_wires": "Wires between units",
        "layers": "Threshold layers",
        "parameters": "Parameters stored",
    }
)


def _laws(*laws: tuple[str, Callable[[int], int]]) -> Mapping[str, Law]:
    return MappingProxyType({name: Law(*law) for name, law in zip(QUANTITIES, laws, strict=True)})


def _log2(n: int) -> int:
    return (n - 1).bit_length()


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "dnf": Family(
            "DNF",
            dnf,
            20,
            _laws(
                ("2^(n-1) + 1", lambda n: 2 ** (n - 1) + 1),
                ("(n+1) 2^(n-1)", lambda n: (n + 1) * 2 ** (n - 1)),
                ("2", lambda n: 2),
                ("2^(n-1)", lambda n: 2 ** (n - 1)),
                ("2^(n-1) + 1", lambda n: 2 ** (n - 1) + 1),
                ("(n+1) 2^(n-1)", lambda n: (n + 1) * 2 ** (n - 1)),
                ("2", lambda n: 2),
                ("(n+2) 2^(n-1) + 1", lambda n: (n + 2) * 2 ** (n - 1) + 1),
            ),
        ),
        "threshold": Family(
            "threshold gates",
            threshold,
            1024,
            _laws(
                ("n + 1", lambda n: n + 1),
                ("n(n+1)", lambda n: n * (n + 1)),
                ("2", lambda n: 2),
                ("n", lambda n: n),
                ("n + 1", lambda n: n + 1),
                ("n(n+1)", lambda n: n * (n + 1)),
                ("2", lambda n: 2),
                ("(n+1)^2", lambda n: (n + 1) ** 2),
            ),
        ),
        "tree": Family(
            "XOR tree",
            tree,
            1024,
            _laws(
                ("n - 1", lambda n: n - 1),
                ("2(n-1)", lambda n: 2 * (n - 1)),
                ("ceil(log2 n)", _log2),
                ("2", lambda n: 2),
                ("3(n-1)", lambda n: 3 * (n - 1)),
                ("6(n-1)", lambda n: 6 * (n - 1)),
                ("2 ceil(log2 n)", lambda n: 2 * _log2(n)),
                ("9(n-1)", lambda n: 9 * (n - 1)),
            ),
        ),
        "chain": Family(
            "XOR chain",
            chain,
            1024,
            _laws(
                ("n - 1", lambda n: n - 1),
                ("2(n-1)", lambda n: 2 * (n - 1)),
                ("n - 1", lambda n: n - 1),
                ("2", lambda n: 2),
                ("3(n-1)", lambda n: 3 * (n - 1)),
                ("6(n-1)", lambda n: 6 * (n - 1)),
                ("2(n-1)", lambda n: 2 * (n - 1)),
                ("9(n-1)", lambda n: 9 * (n - 1)),
            ),
        ),
        "recurrent": Family(
            "recurrent XOR cell",
            recurrent,
            1024,
            _laws(
                ("n", lambda n: n),
                ("2n", lambda n: 2 * n),
                ("n", lambda n: n),
                ("2", lambda n: 2),
                ("3n", lambda n: 3 * n),
                ("6n", lambda n: 6 * n),
                ("2n", lambda n: 2 * n),
                ("9", lambda n: 9),
            ),
        ),
    }
)


def circuit(name: str, bits: int) -> Circuit | Recurrence:
    """Return the parity circuit of this name: dnf, threshold, tree, chain or recurrent.

    Raises:
        SpecError: no such name, or a number of bits that it cannot be built for.
    """
    if name not in FAMILIES:
        raise SpecError(unknown("parity circuit", name, FAMILIES))
    return FAMILIES[name].build(bits)


def _check(bits: int, name: str) -> None:
    most = FAMILIES[name].most
    if type(bits) is not int or bits < 2:
        raise SpecError(f"parity of {bits!r} bits: give a whole number, 2 or more")
    if bits <= most:
        return
    if name == "dnf":
        raise SpecError(
            f"parity of {bits} bits as a DNF: 2^{bits - 1} terms are too many to build; at most {most} bits, or take"
            " the closed forms alone"
        )
    raise SpecError(f"parity of {bits} bits, {name}: at most {most:,} bits")


# --- verification


@dataclass(frozen=True)
class Verification:
    """On how many inputs a circuit was tried, and on how many it was wrong."""

    inputs: int
    complete: bool  # these are all there are
    wrong: int

    @property
    def words(self) -> str:
        """How it was verified, such as `all 256 inputs`."""
        return f"all {self.inputs:,} inputs" if self.complete else f"{self.inputs:,} random inputs"


def parity(inputs: Bits) -> Values:
    """Return sum(x) mod 2 of each row."""
    odd: Values = (inputs.sum(axis=1, dtype=np.int64) % 2).astype(np.uint8)
    return odd


def all_inputs(bits: int) -> Bits:
    """Return all 2^n inputs, in the order of binary numbers, wire 0 the highest digit."""
    numbers = np.arange(2**bits, dtype=np.uint32)
    return (numbers[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32) & 1).astype(np.uint8)


def verify(
    form: Circuit | Recurrence | ThresholdNetwork | RecurrentThresholdNetwork, bits: int, seed: int = 0
) -> Verification:
    """Compare a circuit or a threshold network with parity: on all inputs up to 16 bits, beyond on 2,048 random ones.

    Args:
        form: what is verified.
        bits: how many it has.
        seed: of the random inputs, which are drawn with replacement and are the same for every circuit.

    Raises:
        SpecError: the circuit has another number of bits.
    """
    if form.bits != bits:
        raise SpecError(f"verification with {bits} bits: the circuit reads {form.bits}; give the same number")
    complete = bits <= ALL_INPUTS_TO
    if complete:
        inputs = all_inputs(bits)
    else:
        generator = np.random.default_rng(stream(seed, SUBSET, "parity", bits))
        inputs = generator.integers(0, 2, (RANDOM_INPUTS, bits), np.uint8)
    given = evaluate(form, inputs) if isinstance(form, Circuit | Recurrence) else _run(form, inputs)
    return Verification(len(inputs), complete, int((given != parity(inputs)).sum()))


def _run(built: ThresholdNetwork | RecurrentThresholdNetwork, inputs: Bits) -> np.ndarray:
    units = built.units if isinstance(built, ThresholdNetwork) else built.cell.units
    rows = max(1, 2**19 // (built.bits + units))  # so that a processor's cache holds them
    with torch.no_grad():
        parts = [built(torch.from_numpy(inputs[i : i + rows]).float()) for i in range(0, len(inputs), rows)]
    given: np.ndarray = torch.cat(parts).numpy()
    return given


# --- counts


def counts(bits: Sequence[int], seed: int = 0, beyond: bool = False) -> pd.DataFrame:
    """Return what each parity circuit takes for each number of bits: measured in the built circuit, and closed form.

    Columns: bits, circuit, quantity (a key of `QUANTITIES`), measured (missing where not built), formula (the closed
    form's value), law (the closed form as it is written), verified (in words), inputs tried, wrong_gates and
    wrong_network (inputs on which the gate list and the threshold network differ from parity).

    Args:
        bits: numbers of bits, each from 2 to 56.
        seed: of the random inputs on which circuits of more than 16 bits are verified.
        beyond: whether circuits that are too large to build stand with their closed forms alone.

    Raises:
        SpecError: no bits; fewer than 2 or over 56; or too many for a circuit, and `beyond` is not set.
    """
    if not bits:
        raise SpecError("parity: no number of bits; give at least one, 2 or more")
    for n in bits:
        if type(n) is not int or not 2 <= n <= COUNTED_TO:
            raise SpecError(f"parity of {n!r} bits: give whole numbers from 2 to {COUNTED_TO}")
        if not beyond:
            for name in FAMILIES:
                _check(n, name)
    rows = [row for n in sorted(set(bits)) for name in FAMILIES for row in _rows(name, n, seed)]
    frame = pd.DataFrame(rows)
    whole = ["measured", "inputs", "wrong_gates", "wrong_network"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _rows(name: str, bits: int, seed: int) -> Iterator[dict[str, object]]:
    family = FAMILIES[name]
    measured: Mapping[str, int | None] = dict.fromkeys(QUANTITIES)
    tried: dict[str, object] = {"verified": "not built: closed form alone"}
    tried |= {"inputs": None, "wrong_gates": None, "wrong_network": None}
    if bits <= family.most:
        form = family.build(bits)
        built = network(form)
        neural = network_size(built)
        units = {"units": neural.units, "unit_wires": neural.wires, "layers": neural.layers}
        measured = asdict(size(form)) | units | {"parameters": neural.parameters}
        gates, network_ = verify(form, bits, seed), verify(built, bits, seed)
        tried = {"verified": gates.words, "inputs": gates.inputs}
        tried |= {"wrong_gates": gates.wrong, "wrong_network": network_.wrong}
    for quantity, law in family.laws.items():
        row = {"bits": bits, "circuit": name, "quantity": quantity, "measured": measured[quantity]}
        yield row | {"formula": law.value(bits), "law": law.text} | tried
