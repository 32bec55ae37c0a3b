"""Circuits for parity: what depth saves, counted in verified circuits and compared with closed forms.

Parity, sum(x) mod 2, is the classical function that benefits from depth. A circuit of ANDs and ORs of depth 2 needs
2^(n-1) terms: a term that omits a bit would be 1 on inputs of both parities, so each input of odd parity needs its own
term. Any fixed depth k needs exp(Omega(n^(1/(k-1)))) gates (Hastad 1986). A tree of XOR gates needs n - 1.

The cost is due to AND and OR, not to depth 2 alone: linear threshold gates, which model neurons, compute every
symmetric function of n bits in two layers of n + 1 gates (Muroga 1971). For parity, these have n (n + 1) wires, which
more layers reduce, as in the tree: a threshold circuit of depth d needs (n/2)^(1/(2(d-1))) gates, and at any fixed
depth a superlinear number of wires (Impagliazzo, Paturi & Saks 1997).
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
"""Maximum number of bits for which a circuit is verified on all inputs."""
RANDOM_INPUTS = 2048
COUNTED_TO = 56
"""Maximum number of bits for which every count is below 2^63."""

NOTE = (
    "n bits; NOT gates are free. XOR tree: n − 1 gates, 2(n − 1) wires, depth ⌈log2 n⌉; O(n log n) is a valid but loose"
    " upper bound, because gates and wires are linear in n. DNF: exponential, because its gates are AND and OR;"
    " threshold gates need only n + 1 gates at the same depth, with n(n + 1) wires. An XOR gate takes two layers of"
    " threshold units, so depth is given in gates and in layers. The recurrent cell is counted as unrolled, its"
    " parameters as stored."
)


# --- the circuits


def dnf(bits: int) -> Circuit:
    """Return parity as an OR of ANDs: one term for each of the 2^(n-1) inputs of odd parity.

    Raises:
        SpecError: fewer than 2 bits or over 20, which would need too many terms.
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
    """Return parity as a chain of XOR gates, each of which adds one bit.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "chain")
    return Circuit("chain", bits, (Xor((0, 1)), *(Xor((bits + i, i + 2)) for i in range(bits - 2))))


def recurrent(bits: int) -> Recurrence:
    """Return parity as one XOR cell that is applied to the bits one by one, like a recurrent network.

    Raises:
        SpecError: fewer than 2 bits or over 1,024.
    """
    _check(bits, "recurrent")
    return Recurrence("recurrent", Circuit("cell", 2, (Xor((0, 1)),)), bits)


def threshold(bits: int) -> Circuit:
    """Return parity as two layers of threshold gates: gates for at least 1, 2, ... n ones, then their alternating sum.

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
    """A closed form as text, and as a function of the number of bits."""

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
    """Return a parity circuit by name: dnf, threshold, tree, chain or recurrent.

    Raises:
        SpecError: the name is unknown, or the circuit cannot be built for this number of bits.
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
            f"parity of {bits} bits as a DNF: 2^{bits - 1} terms are too many to build; at most {most} bits, or use"
            " only the closed forms"
        )
    raise SpecError(f"parity of {bits} bits, {name}: at most {most:,} bits")


# --- verification


@dataclass(frozen=True)
class Verification:
    """Number of inputs on which a circuit was verified, and of wrong outputs."""

    inputs: int
    complete: bool  # whether these are all inputs
    wrong: int

    @property
    def words(self) -> str:
        """The inputs in words, such as `all 256 inputs`."""
        return f"all {self.inputs:,} inputs" if self.complete else f"{self.inputs:,} random inputs"


def parity(inputs: Bits) -> Values:
    """Return sum(x) mod 2 of each row."""
    odd: Values = (inputs.sum(axis=1, dtype=np.int64) % 2).astype(np.uint8)
    return odd


def all_inputs(bits: int) -> Bits:
    """Return all 2^n inputs in the order of binary numbers, with wire 0 as the most significant bit."""
    numbers = np.arange(2**bits, dtype=np.uint32)
    return (numbers[:, None] >> np.arange(bits - 1, -1, -1, dtype=np.uint32) & 1).astype(np.uint8)


def verify(
    form: Circuit | Recurrence | ThresholdNetwork | RecurrentThresholdNetwork, bits: int, seed: int = 0
) -> Verification:
    """Compare a circuit or a threshold network with parity, on all inputs up to 16 bits, else on 2,048 random ones.

    Args:
        form: the circuit or network.
        bits: its number of bits.
        seed: seed of the random inputs, which are drawn with replacement and are the same for every circuit.

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
    rows = max(1, 2**19 // (built.bits + units))  # fits into the processor's cache
    with torch.no_grad():
        parts = [built(torch.from_numpy(inputs[i : i + rows]).float()) for i in range(0, len(inputs), rows)]
    given: np.ndarray = torch.cat(parts).numpy()
    return given


# --- counts


def counts(
    bits: Sequence[int],
    seed: int = 0,
    beyond: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    built_to: int = COUNTED_TO,
) -> pd.DataFrame:
    """Return the size of each parity circuit for each number of bits: counted in the circuit, and by its closed form.

    Columns: bits, circuit, quantity (a key of `QUANTITIES`), measured (missing if the circuit was not built), formula
    (value of the closed form), law (text of the closed form), verified (in words), inputs (their number), wrong_gates
    and wrong_network (inputs on which the gate list and the threshold network differ from parity).

    Args:
        bits: numbers of bits, each from 2 to 56.
        seed: seed of the random inputs on which circuits of more than 16 bits are verified.
        beyond: whether to list circuits that are too large to build with only their closed forms.
        progress: called after each circuit with the wires of those that are done, and of all that are built.
        built_to: maximum number of bits for which circuits are built, which takes four times as long for each bit more.

    Raises:
        SpecError: no number of bits, one below 2 or above 56, or one too large for a circuit without `beyond`.
    """
    if not bits:
        raise SpecError("parity: no number of bits; give at least one, 2 or more")
    for n in bits:
        if type(n) is not int or not 2 <= n <= COUNTED_TO:
            raise SpecError(f"parity of {n!r} bits: give whole numbers from 2 to {COUNTED_TO}")
        if not beyond and n <= built_to:
            for name in FAMILIES:
                _check(n, name)
    wires = {
        (n, name): family.laws["wires"].value(n) if n <= min(family.most, built_to) else 0
        for n in sorted(set(bits))
        for name, family in FAMILIES.items()
    }
    rows: list[dict[str, object]] = []
    done = 0
    for (n, name), own in wires.items():
        rows += _rows(name, n, seed, built_to)
        done += own
        progress(done, sum(wires.values()))
    frame = pd.DataFrame(rows)
    whole = ["measured", "inputs", "wrong_gates", "wrong_network"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _rows(name: str, bits: int, seed: int, built_to: int) -> Iterator[dict[str, object]]:
    family = FAMILIES[name]
    measured: Mapping[str, int | None] = dict.fromkeys(QUANTITIES)
    tried: dict[str, object] = {"verified": "not built, closed form only"}
    tried |= {"inputs": None, "wrong_gates": None, "wrong_network": None}
    if bits <= min(family.most, built_to):
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
