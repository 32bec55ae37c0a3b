"""Circuits of AND, OR, NOT, XOR and threshold gates, as gate lists and as exact threshold networks.

Sizes are counted as in circuit complexity: a NOT is free, because it only changes a sign, so gates, wires and depth are
those of the other gates. An XOR gate is not a threshold unit, because no single weighted sum of a and b gives a XOR b
(Minsky & Papert 1969). It takes two layers of units, so an XOR gate adds 1 to the depth of a gate list and 2 to that of
a threshold network.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as joined
from operator import mul

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from leadline.errors import SpecError

Bits = UInt8[np.ndarray, "inputs bits"]
Values = UInt8[np.ndarray, "inputs"]

_MOST_BYTES = 3 * 2**26  # of all wires during the evaluation of a gate list
_MOST_SUM = 2**23  # sums in float32 are exact up to 2^24, and NOTs shift a threshold by at most this
_MOST_WEIGHTS, _MOST_WIRES = 2**26, 2**24  # weights of one layer, including zeros; wires of a network


# --- gate lists


@dataclass(frozen=True, slots=True)
class And:
    """1 if all inputs are 1."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """1 if any input is 1."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """1 if its input is 0."""

    input: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """The wire that it reads, as for other gates."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Xor:
    """1 if an odd number of inputs is 1."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """1 if the weighted sum of its inputs is at least the threshold.

    The majority of k inputs has weights of 1 and the threshold k // 2 + 1.

    Raises:
        SpecError: the numbers of weights and inputs differ, or the weights are too large for exact sums in float32.
    """

    inputs: tuple[int, ...]
    weights: tuple[int, ...]
    threshold: int

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.inputs):
            raise SpecError(
                f"threshold gate: {len(self.weights)} weights for {len(self.inputs)} wires; give one weight per wire"
            )
        if not all(type(value) is int for value in (*self.weights, self.threshold)):
            raise SpecError(f"threshold gate: weights {self.weights}, threshold {self.threshold!r}: give whole numbers")
        if (total := sum(map(abs, self.weights)) + abs(self.threshold)) > _MOST_SUM:
            raise SpecError(
                f"threshold gate: weights and threshold add to {total:,} in magnitude, over {_MOST_SUM:,}, up to which"
                " sums in float32 are exact; give smaller weights"
            )


Gate = And | Or | Not | Xor | Threshold


@dataclass(frozen=True)
class Circuit:
    """Gates in evaluation order; the output of the last gate is the output of the circuit.

    Wires are numbered: 0 to bits - 1 are the inputs of the circuit, and bits + i is the output of gate i.

    Raises:
        SpecError: no gates, a gate without inputs, or a gate that reads a wire that is not defined before it.
    """

    name: str
    bits: int
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        if self.bits < 1 or not self.gates:
            raise SpecError(
                f"circuit {self.name!r}: {self.bits} inputs and {len(self.gates)} gates; expected at least 1 of each"
            )
        for place, gate in enumerate(self.gates):
            if not gate.inputs:
                raise SpecError(f"circuit {self.name!r}, gate {place}: reads no wire; expected at least 1")
            if min(gate.inputs) < 0 or max(gate.inputs) >= self.bits + place:
                wrong = next(wire for wire in gate.inputs if not 0 <= wire < self.bits + place)
                raise SpecError(
                    f"circuit {self.name!r}, gate {place}: reads wire {wrong}, but only wires 0 to"
                    f" {self.bits + place - 1} are defined before it; put the gates in evaluation order"
                )


@dataclass(frozen=True)
class Recurrence:
    """One cell applied step by step: it reads the state (wire 0, initially 0) and one bit, and returns the new state.

    Raises:
        SpecError: the cell does not read two bits, or there are no steps.
    """

    name: str
    cell: Circuit
    bits: int  # also the number of steps

    def __post_init__(self) -> None:
        if self.cell.bits != 2 or self.bits < 1:
            raise SpecError(
                f"recurrence {self.name!r}: {self.bits} steps of a cell that reads {self.cell.bits} bits;"
                " give at least 1 step and a cell that reads 2 bits, the state and the input"
            )


@dataclass(frozen=True)
class Size:
    """Size of a circuit; NOT gates are free, and a recurrence is counted as unrolled."""

    gates: int
    wires: int  # inputs of gates
    depth: int  # gates on the longest path from an input to the output
    fan_in: int  # maximum over gates


def size(form: Circuit | Recurrence) -> Size:
    """Return the size of a circuit, counted gate by gate."""
    circuit, steps = (form, 1) if isinstance(form, Circuit) else (form.cell, form.bits)
    counted = [len(gate.inputs) for gate in circuit.gates if not isinstance(gate, Not)]
    depth = levels(circuit)[-1]
    if isinstance(form, Recurrence):
        for _ in range(steps - 1):
            depth = levels(circuit, (depth, 0))[-1]
    return Size(steps * len(counted), steps * sum(counted), depth, max(counted, default=0))


def levels(circuit: Circuit, start: Sequence[int] | None = None) -> list[int]:
    """Return the number of gates, without NOTs, on the longest path to each wire.

    Args:
        circuit: the circuit.
        start: levels of the inputs; None: all 0.
    """
    known = list(start or [0] * circuit.bits)
    for gate in circuit.gates:
        known.append(max(map(known.__getitem__, gate.inputs)) + (not isinstance(gate, Not)))
    return known


def evaluate(form: Circuit | Recurrence, inputs: Bits) -> Values:
    """Return the exact output of a circuit for each input, 0 or 1; gates are evaluated one by one on packed bits.

    Raises:
        SpecError: the inputs are not an array of 0 and 1 with one column per bit.
    """
    if inputs.ndim != 2 or inputs.shape[1] != form.bits or inputs.dtype != np.uint8 or (inputs > 1).any():
        raise SpecError(
            f"circuit {form.name!r}: inputs of shape {inputs.shape} and type {inputs.dtype};"
            f" give 0 and 1 as uint8, {form.bits} columns"
        )
    if isinstance(form, Recurrence):
        state = np.zeros(len(inputs), np.uint8)
        for bit in inputs.T:
            state = evaluate(form.cell, np.stack([state, bit], axis=1))
        return state
    rows = 8 * max(1, _MOST_BYTES // (form.bits + len(form.gates)))
    return np.concatenate([_gate_by_gate(form, inputs[i : i + rows]) for i in range(0, max(1, len(inputs)), rows)])


def _gate_by_gate(circuit: Circuit, inputs: Bits) -> Values:
    packed = np.packbits(inputs, axis=0).T
    wires = np.empty((circuit.bits + len(circuit.gates), packed.shape[1]), np.uint8)
    wires[: circuit.bits] = packed
    for place, gate in enumerate(circuit.gates, circuit.bits):
        read = wires.take(gate.inputs, axis=0)
        match gate:
            case And():
                np.bitwise_and.reduce(read, axis=0, out=wires[place])
            case Or():
                np.bitwise_or.reduce(read, axis=0, out=wires[place])
            case Xor():
                np.bitwise_xor.reduce(read, axis=0, out=wires[place])
            case Not():
                np.invert(read[0], out=wires[place])
            case Threshold():
                total = np.asarray(gate.weights, np.int32) @ np.unpackbits(read, axis=1).astype(np.int32)
                wires[place] = np.packbits(total >= gate.threshold)
    return np.unpackbits(wires[-1], count=len(inputs))


# --- threshold networks


class ThresholdLayer(nn.Module):
    """Linear threshold units: 1 if the weighted sum of a unit's inputs is at least its threshold, else 0.

    Weights and thresholds are integers, whose sums are exact in float32 and float64. They do not require gradients,
    because the step function has none.
    """

    reads: Tensor | slice

    def __init__(
        self, weight: Float[Tensor, "units reads"], threshold: Float[Tensor, " units"], reads: Int[Tensor, " reads"]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.threshold = nn.Parameter(threshold, requires_grad=False)
        first, last = int(reads[0]), int(reads[-1])
        if torch.equal(reads, torch.arange(first, last + 1)):
            self.reads = slice(first, last + 1)  # avoids a copy
        else:
            self.register_buffer("reads", reads)

    def forward(self, wires: Float[Tensor, "batch wires"]) -> Float[Tensor, "batch units"]:
        """Return the outputs of the units, 0 or 1."""
        total: Tensor = wires[:, self.reads] @ self.weight.T
        return total.ge_(self.threshold)


class ThresholdNetwork(nn.Module):
    """A circuit as layers of linear threshold units with exact integer weights.

    A layer can read the input and every earlier layer, as in threshold circuits. An AND of k wires has the threshold k,
    an OR the threshold 1, and a NOT is the sign of a weight. An XOR of k wires takes two layers: units for at least 1,
    2, ... k ones, and a unit with the threshold 1 that adds these with alternating signs (Muroga 1971, for symmetric
    functions).

    Raises:
        SpecError: the network would have too many weights.
    """

    def __init__(self, circuit: Circuit) -> None:
        super().__init__()
        self.bits = circuit.bits
        units, self.output = _units(circuit)
        self.layers = nn.ModuleList(_layers(circuit, units))
        self.units = len(units)

    def forward(self, x: Float[Tensor, "batch bits"]) -> Float[Tensor, " batch"]:
        """Return the output of the circuit for bits that are 0 or 1."""
        wires = x.new_empty(len(x), self.bits + self.units)
        wires[:, : self.bits] = x
        start = self.bits
        for layer in self.layers:
            given = layer(wires)
            wires[:, start : start + given.shape[1]] = given
            start += given.shape[1]
        return wires[:, self.output].clone()  # a view would keep all wires in memory


class RecurrentThresholdNetwork(nn.Module):
    """A recurrence as a threshold network: one set of weights, applied once per bit."""

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.bits = recurrence.bits
        self.cell = ThresholdNetwork(recurrence.cell)

    def forward(self, x: Float[Tensor, "batch bits"]) -> Float[Tensor, " batch"]:
        """Return the state after the last bit."""
        state = x.new_zeros(len(x))
        for bit in x.unbind(1):
            state = self.cell(torch.stack([state, bit], dim=1))
        return state


def network(form: Circuit | Recurrence) -> ThresholdNetwork | RecurrentThresholdNetwork:
    """Return the threshold network of a circuit.

    Raises:
        SpecError: the network would have too many weights.
    """
    return ThresholdNetwork(form) if isinstance(form, Circuit) else RecurrentThresholdNetwork(form)


@dataclass(frozen=True)
class NetworkSize:
    """Size of a threshold network; units, wires and layers as unrolled, parameters as stored."""

    units: int
    wires: int  # nonzero weights
    layers: int
    parameters: int  # nonzero weights and thresholds


def network_size(built: ThresholdNetwork | RecurrentThresholdNetwork) -> NetworkSize:
    """Return the size of a threshold network, counted in its tensors."""
    cell, steps = (built, 1) if isinstance(built, ThresholdNetwork) else (built.cell, built.bits)
    layers = [layer for layer in cell.layers if isinstance(layer, ThresholdLayer)]
    units = sum(len(layer.threshold) for layer in layers)
    wires = sum(int(layer.weight.count_nonzero()) for layer in layers)
    return NetworkSize(steps * units, steps * wires, steps * len(layers), wires + units)


@dataclass(frozen=True, slots=True)
class _Unit:
    layer: int
    reads: tuple[int, ...]  # numbers below `bits` are inputs, the others are units in the order of creation
    weights: tuple[int, ...]
    threshold: int


def _units(circuit: Circuit) -> tuple[list[_Unit], int]:
    """Return the units of a circuit sorted by layer, and the number of the wire that is its output."""
    wires = sum(len(gate.inputs) * (1 + len(gate.inputs) * isinstance(gate, Xor)) for gate in circuit.gates)
    if wires > _MOST_WIRES:
        raise SpecError(
            f"circuit {circuit.name!r}: its threshold network has {wires:,} wires, over {_MOST_WIRES:,}; build a"
            " smaller circuit, or evaluate its gate list"
        )
    made: list[_Unit] = []
    layer = [0] * circuit.bits
    wire = list(range(circuit.bits))  # the input or unit of each wire
    sign = [1] * circuit.bits  # -1 if that is the negation of the wire

    def add(reads: Sequence[int], signs: Sequence[int], weights: tuple[int, ...], threshold: int) -> int:
        signed = tuple(map(mul, weights, signs))
        # w (1 - x) is w - w x: a negated wire flips the sign of its weight and lowers the threshold
        lowered = threshold - (sum(weights) - sum(signed)) // 2
        made.append(_Unit(1 + max(map(layer.__getitem__, reads)), tuple(reads), signed, lowered))
        layer.append(made[-1].layer)
        return circuit.bits + len(made) - 1

    for gate in circuit.gates:
        reads = tuple(map(wire.__getitem__, gate.inputs))
        signs = tuple(map(sign.__getitem__, gate.inputs))
        ones = (1,) * len(reads)
        match gate:
            case Not():
                wire.append(reads[0])
                sign.append(-signs[0])
                continue
            case And():
                unit = add(reads, signs, ones, len(reads))
            case Or():
                unit = add(reads, signs, ones, 1)
            case Threshold():
                unit = add(reads, signs, gate.weights, gate.threshold)
            case Xor():
                counting = [add(reads, signs, ones, least) for least in range(1, len(reads) + 1)]
                unit = add(counting, ones, tuple(1 - 2 * (i % 2) for i in range(len(reads))), 1)
        wire.append(unit)
        sign.append(1)
    if sign[-1] < 0:  # no weight follows the output whose sign could be flipped
        wire[-1] = add(wire[-1:], sign[-1:], (1,), 1)
    order = sorted(range(len(made)), key=lambda place: made[place].layer)
    moved = [*range(circuit.bits), *(0 for _ in made)]
    for place, unit in enumerate(order):
        moved[circuit.bits + unit] = circuit.bits + place
    units = [
        _Unit(unit.layer, tuple(map(moved.__getitem__, unit.reads)), unit.weights, unit.threshold)
        for unit in map(made.__getitem__, order)
    ]
    return units, moved[wire[-1]]


def _layers(circuit: Circuit, units: list[_Unit]) -> Iterator[ThresholdLayer]:
    by_layer: defaultdict[int, list[_Unit]] = defaultdict(list)
    for unit in units:
        by_layer[unit.layer].append(unit)
    for number, layer in by_layer.items():
        every = np.fromiter(joined.from_iterable(unit.reads for unit in layer), np.int64)
        values = np.fromiter(joined.from_iterable(unit.weights for unit in layer), np.float32)
        reads, columns = np.unique(every, return_inverse=True)
        if len(layer) * len(reads) > _MOST_WEIGHTS:
            raise SpecError(
                f"circuit {circuit.name!r}, layer {number}: {len(layer):,} units that read {len(reads):,} wires have"
                f" over {_MOST_WEIGHTS:,} weights; build a smaller circuit, or evaluate its gate list"
            )
        rows = np.repeat(np.arange(len(layer)), [len(unit.reads) for unit in layer])
        weight = torch.zeros(len(layer), len(reads))
        places = (torch.from_numpy(rows), torch.from_numpy(columns.reshape(-1)))
        weight.index_put_(places, torch.from_numpy(values), accumulate=True)
        threshold = torch.tensor([float(unit.threshold) for unit in layer])
        yield ThresholdLayer(weight, threshold, torch.from_numpy(reads))
